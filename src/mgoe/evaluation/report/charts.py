"""The charts of a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgoe.evaluation.report.svg import Scale, Svg, finite, padded, short

WIDTH = 400
ROW = 22
COLOURS = 8
"""Number of colours `--c1 ...` in the style sheet."""


@dataclass(frozen=True)
class Mark:
    """One line of an interval plot: a value, its interval, and the seeds behind it."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[float] = ()
    strong: bool = False


def interval_plot(marks: Sequence[Mark], label: str, *, lower_is_better: bool = False) -> Svg:
    """Draw values with intervals, one line each. Values far behind the rest are off the scale and keep their
    number.

    Args:
        marks: In order.
        label: Description of the plot.
        lower_is_better: Whether large values are behind.
    """
    values = finite(mark.value for mark in marks)
    front = (min if lower_is_better else max)(values, default=0.0)
    near = 3 * float(np.median(np.abs(np.subtract(values, front)))) if len(values) > 3 else math.inf
    return _intervals(marks, label, (front, near), "{:.4f}", 56)


def difference_plot(marks: Sequence[Mark], label: str) -> Svg:
    """Draw differences with intervals around a line at 0, one line each.

    The closest third sets the scale.
    """
    values = finite(mark.value for mark in marks)
    near = 5 * float(np.quantile(np.abs(values), 1 / 3)) if len(values) > 3 else math.inf
    return _intervals(marks, label, (0.0, near), "{:+.4f}", 116, zero=True)


def _intervals(
    marks: Sequence[Mark],
    label: str,
    around: tuple[float, float],
    form: str,
    room: float,
    zero: bool = False,
) -> Svg:
    """Draw the marks with a finite value, on a scale of those within a distance (the second number of
    `around`) of a value (the first).
    """
    marks = [mark for mark in marks if math.isfinite(mark.value)]
    shown = [mark for mark in marks if abs(mark.value - around[0]) <= around[1] + 1e-9]
    left, right = min(172.0, 16 + 6.9 * max((len(mark.label) for mark in marks), default=4)), WIDTH - room
    bottom = ROW * len(marks) + 8
    svg = Svg(WIDTH, bottom + 22, label)
    inside = finite(v for mark in shown for v in (mark.value, mark.low, mark.high, *mark.seeds))
    low, high = padded([*inside, 0.0] if zero else inside)
    scale = Scale((low, high), (left, right))
    for tick in scale.ticks(3):
        svg.line((scale(tick), 4), (scale(tick), bottom), "grid")
        svg.text((scale(tick), bottom + 14), short(tick), "tick", "middle")
    if zero:
        svg.line((scale(0), 4), (scale(0), bottom), "zero")
    for row, mark in enumerate(marks):
        y = ROW * row + 16
        css = " strong" if mark.strong else ""
        half = (mark.high - mark.low) / 2
        text = form.format(mark.value) + (f" ± {half:.4f}" if zero and math.isfinite(half) else "")
        tip = f"{mark.label}: {text}"
        weight = css if not zero else ""
        svg.text((0, y + 4), _cut(mark.label, left), f"label{weight}")
        svg.text((WIDTH, y + 4), text, f"value{weight}", "end")
        if not low <= mark.value <= high:
            edge, inward = (left, 5) if mark.value < low else (right, -5)
            svg.path(
                [(edge + inward, y - 4), (edge, y), (edge + inward, y + 4)],
                f"off{css}",
                f"{tip}, off the scale",
            )
            continue
        if math.isfinite(half):
            svg.line((scale(mark.low), y), (scale(mark.high), y), f"whisker{css}")
        for seed in finite(mark.seeds) if len(mark.seeds) > 1 else []:
            svg.line((scale(seed), y - 4), (scale(seed), y + 4), f"seed{css}")
        svg.circle(
            (scale(mark.value), y),
            4,
            f"dot{css}",
            tip + (f" [{mark.low:.4f}, {mark.high:.4f}]" if math.isfinite(half) else ""),
        )
    return svg


def line_chart(
    series: Sequence[Sequence[tuple[float, float]]], label: str, best: Sequence[tuple[float, float]] = ()
) -> Svg:
    """Draw thin lines over whole steps (epochs), with a dot at the best step of each."""
    svg = Svg(180, 118, label)
    steps = [x for line in series for x, _ in line] or [1.0]
    across = Scale((min(steps), max(steps)), (38, 172))
    up = Scale(padded(finite(y for line in series for _, y in line)), (94, 8))
    for tick in up.ticks(3):
        svg.line((38, up(tick)), (172, up(tick)), "grid")
        svg.text((34, up(tick) + 3.5), short(tick), "tick", "end")
    whole = range(math.ceil(min(steps)), math.floor(max(steps)) + 1)
    for tick in whole[:: max(1, math.ceil(len(whole) / 6))]:
        svg.text((across(tick), 110), tick, "tick", "middle")
    for line in series:
        svg.path([(across(x), up(y)) for x, y in line if math.isfinite(y)], "curve")
    for x, y in best:
        if math.isfinite(y):
            svg.circle((across(x), up(y)), 3.2, "end", f"best epoch {x:g}: {y:.4f}")
    return svg


def reliability_chart(
    points: Mapping[str, Mapping[str, Sequence[float]]], colours: Mapping[str, int], label: str
) -> Svg:
    """Draw the observed share over the mean prediction of each bin, one line per model, the first on top.

    The axes are logarithmic if predictions span two decades.
    """
    width = 340
    svg = Svg(width, 330, label)
    predicted = [p for model in points.values() for p in finite(model["predicted"]) if p > 0]
    observed = [o for model in points.values() for o in finite(model["observed"]) if o > 0]
    both = predicted + observed or [1.0]
    log = bool(predicted) and max(predicted) > 100 * min(predicted)
    low, high = (min(both) * 0.8, min(1.0, max(both) * 1.25)) if log else (0.0, max(both) * 1.04)
    across, up = Scale((low, high), (46, width - 10), log), Scale((low, high), (286, 10), log)
    for tick in across.ticks(4):
        svg.line((across(tick), 10), (across(tick), 286), "grid")
        svg.line((46, up(tick)), (width - 10, up(tick)), "grid")
        svg.text((across(tick), 303), short(tick), "tick", "middle")
        svg.text((40, up(tick) + 4), short(tick), "tick", "end")
    svg.text(((46 + width - 10) / 2, 324), "predicted" + (" (log scale)" if log else ""), "axis", "middle")
    svg.text((46, 6), "observed", "axis")
    svg.line((across(low), up(low)), (across(high), up(high)), "zero")
    for model, bins in reversed(list(points.items())):
        css = f"c{colours[model]}" + (" strong" if colours[model] == 1 else "")
        pairs = list(zip(bins["predicted"], bins["observed"], bins["rows"], strict=True))
        svg.path([(across(p), up(o)) for p, o, _ in pairs], f"curve {css}")
        for p, o, rows in pairs:
            svg.circle(
                (across(p), up(o)),
                2.8,
                f"end {css}",
                f"{model}: predicted {p:.4f}, observed {o:.4f}, {rows:,.0f} rows",
            )
    return svg


def heat_map(
    lift: np.ndarray,
    user_sizes: np.ndarray,
    item_sizes: np.ndarray,
    users: Sequence[int],
    items: Sequence[int],
) -> Svg:
    """Draw the lift between macro nodes: warm if a user macro node takes more of an item macro node than
    expected.

    Bars show members.

    Args:
        lift: Shape (Ku, Ki).
        user_sizes, item_sizes: Members.
        users, items: Macro nodes shown, in the order shown.
    """
    cell = float(np.clip(620 / max(len(items), 1), 9, 26))
    left, top, bar = 34.0, 34.0, 44.0
    wide, tall = cell * len(items), cell * len(users)
    svg = Svg(left + wide + bar + 8, top + tall + bar + 8, "Lift between user and item macro nodes")
    depth = np.clip(np.log2(np.maximum(lift, 1e-9)) / 3, -1, 1)  # full colour from 8 times or an eighth
    every = max(1, math.ceil(11 / cell))
    for row, u in enumerate(users):
        y = top + row * cell
        if row % every == 0:
            svg.text((left - 6, y + cell / 2 + 3.5), u, "tick", "end")
        for column, i in enumerate(items):
            tip = f"user node {u} × item node {i}: lift {lift[u, i]:.2f}"
            css = "hot" if depth[u, i] > 0 else "cool"
            svg.rect((left + column * cell, y), (cell - 1, cell - 1), css, tip, abs(float(depth[u, i])), 2)
        size = bar * user_sizes[u] / max(user_sizes.max(), 1)
        svg.rect(
            (left + wide + 4, y + 1),
            (size, cell - 3),
            "size",
            f"user node {u}: {user_sizes[u]:,} users",
            radius=2,
        )
    for column, i in enumerate(items):
        x = left + column * cell
        if column % every == 0:
            svg.text((x + cell / 2, top - 6), i, "tick", "middle")
        size = bar * item_sizes[i] / max(item_sizes.max(), 1)
        svg.rect(
            (x + 1, top + tall + 4),
            (cell - 3, size),
            "size",
            f"item node {i}: {item_sizes[i]:,} items",
            radius=2,
        )
    svg.text((left, 11), "item macro nodes →", "axis")
    svg.text((9, top + tall / 2), "user macro nodes", "axis", "middle", turned=True)
    return svg


def gate_bars(
    weights: Sequence[Sequence[float]], tasks: Sequence[str], experts: Sequence[str], label: str
) -> Svg:
    """Draw, per task, the share of each expert in what its tower reads."""
    svg = Svg(WIDTH, 30 * len(tasks) + 6, label)
    left = min(110, 12 + 7 * max((len(task) for task in tasks), default=4))
    for row, (task, shares) in enumerate(zip(tasks, weights, strict=False)):
        y, x = 30 * row + 4, float(left)
        svg.text((0, y + 15), _cut(task, left), "label")
        whole = sum(finite(shares)) or 1.0
        for number, (expert, share) in enumerate(zip(experts, shares, strict=True)):
            width = (WIDTH - left) * (share / whole if math.isfinite(share) else 0)
            svg.rect(
                (x, y),
                (width - 1.5, 22),
                f"fill c{number % COLOURS + 1}",
                f"{task} reads {share:.1%} of expert {expert}",
                radius=3,
            )
            if width > 34:
                svg.text((x + width / 2, y + 15), f"{share:.0%}", "inside", "middle")
            x += width
    return svg


def _cut(text: str, room: float) -> str:
    most = int((room - 8) / 6.6)
    return text if len(text) <= most else text[: most - 1] + "…"
