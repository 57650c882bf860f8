"""Quality against cost as a chart, and the sides of the dots at which names have room."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, get_args

import numpy as np

from mgoe.evaluation.pareto import COSTS, CostName, pareto
from mgoe.evaluation.report.charts import Axis, Chart, Dot, Line, Side, are_near, short
from mgoe.evaluation.rows import LOWER, full_title, headline, summarize
from mgoe.evaluation.standings import Standings

LETTER, LINE = 6.6, 14.0
"""Room of a letter of a name, and of its line."""
SPREAD = 10.0
"""From this ratio of the largest to the smallest cost on, the axis is logarithmic."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom end, in units of the page, downwards."""


def cost_chart(standings: Standings, cost: CostName) -> Chart | None:
    """Return the models of a table between cost and quality, and a line that joins those on the front.

    The half of the models that is best sets the scale, with a margin; others may stand at its edge. The
    reference has the accent colour, and the name of it is placed first, before those on the front. Names that
    would overlap are left out. None if the cost is known of no model.
    """
    points = pareto(standings, cost)
    if not points:
        return None
    column = headline(summarize(standings.rows))
    quality, lower = full_title(column), bool(LOWER.fullmatch(column[1]))
    costs, values = [point.cost for point in points], np.array([point.quality for point in points])
    near = are_near(values, values.min() if lower else values.max())
    x = Axis.around(costs, COSTS[cost], log=min(costs) > 0 and max(costs) > SPREAD * min(costs))
    y = Axis.around(values[near].tolist(), quality)
    dots = [
        Dot(
            point.cost,
            min(max(point.quality, y.low), y.high),
            f"{point.model}: {point.quality:.4f} for {short(point.cost)} {COSTS[cost]}",
            color=int(point.model == standings.reference),
            full=point.on_front,
            beyond=not inside,
            name=point.model,
        )
        for point, inside in zip(points, near.tolist(), strict=True)
    ]
    front = Line([(dot.x, dot.y) for dot in dots if dot.full])
    chart = Chart(f"{quality} against {COSTS[cost]}", x, y, [front])
    dots.sort(key=lambda dot: (not dot.color, not dot.full))
    sides = dict(_sides(chart, dots))
    return replace(chart, dots=[dot._replace(side=sides.get(dot.name)) for dot in dots])


def _sides(chart: Chart, dots: Sequence[Dot]) -> Iterator[tuple[str, Side]]:
    """Yield the side of each name that has room; earlier names have the choice. On the front a name may cover
    a model that is not."""
    around = {dot: name_box(chart, dot, None) for dot in dots}
    every, full = [*around.values()], [box for dot, box in around.items() if dot.full]
    names: list[Box] = []
    for dot in dots:
        boxes = {side: name_box(chart, dot, side) for side in get_args(Side)}
        free = [side for side, box in boxes.items() if _fits(chart, box, [*every, *names])]
        if not free and dot.full:
            free = [side for side, box in boxes.items() if _fits(chart, box, [*full, *names])]
        if free:
            names.append(boxes[free[0]])
            yield dot.name, free[0]


def _fits(chart: Chart, box: Box, taken: Sequence[Box]) -> bool:
    """Whether a name lies inside the frame and on nothing that is there."""
    left, top, right, bottom = box
    if left < 0 or right > chart.size[0] + 6 or top < -10 or bottom > chart.size[1] + 2:
        return False
    return all(right <= one[0] or one[2] <= left or bottom <= one[1] or one[3] <= top for one in taken)


def name_box(chart: Chart, dot: Dot, side: Side | None) -> Box:
    """Return the room of the name at a side of a dot, or of the dot itself."""
    (wide, high), length = chart.size, LETTER * len(dot.name)
    x, y = wide * chart.x.share(dot.x), high * (1 - chart.y.share(dot.y))
    if side is None:
        return x - 5, y - 5, x + 5, y + 5
    left = {"right": x + 7, "left": x - 7 - length}.get(side, x - length / 2)
    top = {"above": y - 6 - LINE, "below": y + 6}.get(side, y - LINE / 2)
    return left, top, left + length, top + LINE
