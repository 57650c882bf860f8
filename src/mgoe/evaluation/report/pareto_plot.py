"""The plot of quality against cost, as inline SVG; other plots share its scale and the places of names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from mgoe.evaluation.pareto import Point
from mgoe.evaluation.report.charts import WIDTH, Scale, Svg, padded, short

LEFT, RIGHT, TOP, BOTTOM = 46.0, WIDTH - 6.0, 24.0, 240.0
"""Frame of the plot."""
LETTER, LINE = 6.6, 14.0
"""Room of a letter of a name, and of its line."""
SPREAD = 10.0
"""From this ratio of the largest to the smallest cost on, the axis is logarithmic."""
Side: TypeAlias = Literal["right", "left", "above", "below"]
SIDES: tuple[Side, ...] = ("right", "left", "above", "below")
Box: TypeAlias = tuple[float, float, float, float]


class ParetoLayout:
    """Where the models of a plot stand, in the frame of the SVG, whose y grows downwards.

    The half of the models that is best sets the scale, with a margin; others may stand at its edge.

    Args:
        points: Models with finite cost and quality, one at least.
        reference: Its name is placed first, then those on the front.
        lower_is_better: Whether a small quality is a good one, as of an error.

    Attributes:
        log: Whether the axis of costs is logarithmic.
        across, up: The scales.
        at: Position of each model.
        inside: The models that are within the scale.
        sides: Where the names stand that do not overlap.
    """

    def __init__(self, points: Sequence[Point], reference: str, lower_is_better: bool):
        costs, values = [point.cost for point in points], np.array([point.quality for point in points])
        away = np.abs(values - (values.min() if lower_is_better else values.max()))
        seen = away <= (3 * np.median(away) if len(points) >= 4 else np.inf)
        self.log = min(costs) > 0 and max(costs) > SPREAD * min(costs)
        span = (min(costs) / 1.25, max(costs) * 1.25) if self.log else padded(costs)
        self.across = Scale(span, (LEFT, RIGHT), self.log)
        self.up = Scale(padded(values[seen].tolist()), (BOTTOM, TOP))
        self.inside = {point.model for point, near in zip(points, seen, strict=True) if near}
        edge = TOP + 6 if lower_is_better else BOTTOM - 6
        self.at = {
            point.model: (
                self.across(point.cost),
                self.up(point.quality) if point.model in self.inside else edge,
            )
            for point in points
        }
        first = sorted(points, key=lambda point: (point.model != reference, not point.on_front))
        self.sides = dict(_sides(first, self.at))


def pareto_plot(
    points: Sequence[Point], quality: str, cost: str, reference: str, *, lower_is_better: bool = False
) -> Svg:
    """Draw models between cost and quality, and join those on the front. All models have a tip.

    Args:
        points: As of `ParetoLayout`, cheapest first.
        quality: Name of the vertical axis.
        cost: Name of the horizontal axis.
        reference: The model that is shown in the accent colour.
        lower_is_better: As of `ParetoLayout`.
    """
    svg = Svg(WIDTH, BOTTOM + 42, f"{quality} against {cost}")
    layout = ParetoLayout(points, reference, lower_is_better)
    _axes(svg, layout, quality, f"{cost} (log scale)" if layout.log else cost)
    svg.path([layout.at[point.model] for point in points if point.on_front], "front")
    for point in sorted(points, key=lambda point: point.on_front):
        x, y = layout.at[point.model]
        css = ("" if point.on_front else " beaten") + (" strong" if point.model == reference else "")
        tip = f"{point.model}: {point.quality:.4f} for {short(point.cost)} {cost}"
        if point.model in layout.inside:
            svg.circle((x, y), 4.5, f"dot{css}", tip)
        else:
            tail = 2 if lower_is_better else -2
            svg.path([(x - 4, y + tail), (x, y - tail), (x + 4, y + tail)], f"off{css}", tip)
        if side := layout.sides.get(point.model):
            left, _, right, bottom = _box(point.model, (x, y), side)
            start, anchor = {"right": (left, "start"), "left": (right, "end")}.get(side, (x, "middle"))
            svg.text((start, bottom - 3), point.model, "label" if point.on_front else "tick", anchor)
    return svg


def _axes(svg: Svg, layout: ParetoLayout, quality: str, cost: str) -> None:
    for tick in layout.up.ticks(4):
        svg.line((LEFT, layout.up(tick)), (RIGHT, layout.up(tick)), "grid")
        svg.text((LEFT - 6, layout.up(tick) + 4), short(tick), "tick", "end")
    for tick in layout.across.ticks(5):
        svg.line((layout.across(tick), TOP), (layout.across(tick), BOTTOM), "grid")
        svg.text((layout.across(tick), BOTTOM + 16), short(tick), "tick", "middle")
    svg.text(((LEFT + RIGHT) / 2, BOTTOM + 36), cost, "axis", "middle")
    svg.text((0, TOP - 12), quality, "axis")


def _sides(points: Sequence[Point], at: Mapping[str, tuple[float, float]]) -> Iterator[tuple[str, Side]]:
    """Yield the side of each name that has room; earlier names have the choice. On the front a name may cover
    a model that is not."""
    dots = {point: _around(at[point.model]) for point in points}
    full = [dot for point, dot in dots.items() if point.on_front]
    names: list[Box] = []
    for point in points:
        boxes = {side: _box(point.model, at[point.model], side) for side in SIDES}
        free: list[Side] = [side for side in SIDES if _fits(boxes[side], [*dots.values(), *names])]
        if not free and point.on_front:
            free = [side for side in SIDES if _fits(boxes[side], [*full, *names])]
        if free:
            names.append(boxes[free[0]])
            yield point.model, free[0]


def _around(at: tuple[float, float]) -> Box:
    return at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5


def _box(name: str, at: tuple[float, float], side: Side) -> Box:
    """The room of a name: left, top, right, bottom."""
    (x, y), width = at, LETTER * len(name)
    left = {"right": x + 7, "left": x - 7 - width}.get(side, x - width / 2)
    top = {"above": y - 6 - LINE, "below": y + 6}.get(side, y - LINE / 2)
    return left, top, left + width, top + LINE


def _fits(box: Box, taken: Sequence[Box]) -> bool:
    """Whether a name lies inside the frame and on nothing that is there."""
    left, top, right, bottom = box
    if left < LEFT or right > WIDTH or top < TOP - 10 or bottom > BOTTOM + 2:
        return False
    return all(right <= one[0] or one[2] <= left or bottom <= one[1] or one[3] <= top for one in taken)
