"""The charts of a report, as inline SVG coloured by the page's CSS variables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from mgoe.features.macro_nodes import MacroNode

WIDTH = 360
"""About the room of a card on a phone, so that letters keep their size there."""
ROW, LINE = 32, 22
"""Height of a row of an interval plot, and where its line is, below the text."""
COLORS = 8
"""Number of colours `--c1 ...` in the style sheet."""
AIR = 0.08
"""Share of a range left free on either side."""
_LEAST = 1e-9
"""Share of its values below which a scale's width counts as none."""
Point = tuple[float, float]


class Svg:
    """A drawing that scales with its container.

    Args:
        width, height: In user units, about one pixel each at full width.
        label: Description for screen readers.
    """

    def __init__(self, width: float, height: float, label: str):
        self.width, self.height, self.label = width, height, label
        self.parts: list[Markup] = []

    def line(self, a: Point, b: Point, css: str) -> None:
        self._add("line", css, x1=a[0], y1=a[1], x2=b[0], y2=b[1])

    def rect(
        self, at: Point, size: Point, css: str, tip: str = "", opacity: float | None = None, radius: float = 0
    ) -> None:
        self._add(
            "rect",
            css,
            tip,
            x=at[0],
            y=at[1],
            width=max(size[0], 0),
            height=max(size[1], 0),
            fill_opacity=opacity,
            rx=radius or None,
        )

    def circle(self, at: Point, radius: float, css: str, tip: str = "") -> None:
        self._add("circle", css, tip, cx=at[0], cy=at[1], r=radius)

    def text(
        self, at: Point, text: object, css: str = "", anchor: str = "start", turned: bool = False
    ) -> None:
        x, y = (0.0, 0.0) if turned else at
        self._add(
            "text",
            css,
            body=str(text),
            x=x,
            y=y,
            text_anchor=anchor if anchor != "start" else None,
            transform=f"translate({_number(at[0])} {_number(at[1])}) rotate(-90)" if turned else None,
        )

    def path(self, points: Sequence[Point], css: str, tip: str = "") -> None:
        if points:
            self._add("path", css, tip, d="M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points))

    def __html__(self) -> str:
        return Markup('<svg viewBox="0 0 {} {}" style="--w:{}px" role="img" aria-label="{}">{}</svg>').format(
            _number(self.width),
            _number(self.height),
            _number(self.width),
            self.label,
            Markup("").join(self.parts),
        )

    def _add(
        self, tag: str, css: str, tip: str = "", body: str = "", **attributes: float | str | None
    ) -> None:
        written = Markup(" ").join(
            Markup('{}="{}"').format(
                name.replace("_", "-"), value if isinstance(value, str) else _number(value)
            )
            for name, value in attributes.items()
            if value is not None
        )
        inner = Markup("<title>{}</title>").format(tip) if tip else escape(body)
        self.parts.append(Markup('<{0} class="{1}" {2}>{3}</{0}>').format(Markup(tag), css, written, inner))


class Scale:
    """A linear or logarithmic map from values to positions."""

    def __init__(self, values: tuple[float, float], positions: tuple[float, float], log: bool = False):
        low, high = values
        if high - low <= _LEAST * max(abs(low), abs(high), _LEAST):
            low, high = (low / 2, low * 2) if log and low > 0 else (low - 0.5, low + 0.5)
        self.low, self.high, self.positions, self.log = low, high, positions, log

    def __call__(self, value: float) -> float:
        a, b = self.positions
        share = (self._of(value) - self._of(self.low)) / (self._of(self.high) - self._of(self.low))
        return a + (b - a) * min(max(share, 0), 1)

    def ticks(self, about: int = 4) -> list[float]:
        """Return round values inside the scale."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            powers = [10.0**e for e in range(first, last + 1)]
            for steps in ((1,), (1, 2, 5)):
                ticks = [step * power for power in powers for step in steps]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) > 2:
                    return ticks
            return ticks if len(ticks) > 1 else [self.low, self.high]
        raw = (self.high - self.low) / about
        base = 10.0 ** math.floor(math.log10(raw))
        step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 12) + 0.0 for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _of(self, value: float) -> float:
        return math.log(max(value, self.low)) if self.log else value


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the finite values."""
    return [v for v in values if v is not None and math.isfinite(v)]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around values with some space on either side."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * AIR or abs(high) * AIR or 0.5
    return low - air, high + air


def short(value: float) -> str:
    """Format a tick label."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return f"{value or 0:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Mark:
    """One line of an interval plot: a value, its interval, and the seeds behind it."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[float] = ()
    strong: bool = False
    digits: int = 4


def interval_plot(
    marks: Sequence[Mark], label: str, *, differences: bool = False, lower_is_better: bool = False
) -> Svg:
    """Draw values, or differences around a line at 0, with intervals, one line each.

    The values closest to the best one (half of them, with a margin) set the scale, or the differences closest
    to 0 (a third of them). What is farther away is off the scale and keeps its number.

    Args:
        marks: In order; those without a finite value are left out.
        label: Description of the plot.
        differences: Whether the values are differences.
        lower_is_better: Whether large values are behind.
    """
    marks = [mark for mark in marks if math.isfinite(mark.value)]
    values = [mark.value for mark in marks]
    front = 0.0 if differences else (min if lower_is_better else max)(values, default=0.0)
    away = np.abs(np.subtract(values, front))
    near = math.inf
    if len(away) >= 4:
        near = 5 * np.quantile(away, 1 / 3) if differences else 3 * np.median(away)
    left, right, bottom = 6.0, WIDTH - 6.0, ROW * len(marks)
    svg = Svg(WIDTH, bottom + 18, label)
    inside = finite(
        v
        for mark, distance in zip(marks, away, strict=True)
        if distance <= near + 1e-9
        for v in (mark.value, mark.low, mark.high, *mark.seeds)
    )
    low, high = padded([*inside, 0.0] if differences else inside)
    scale = Scale((low, high), (left, right))
    ticks = [tick for tick in scale.ticks(4) if 16 <= scale(tick) <= WIDTH - 16]
    for tick in ticks:
        svg.text((scale(tick), bottom + 14), short(tick), "tick", "middle")
    for row, mark in enumerate(marks):
        y = ROW * row + LINE
        for tick in ticks:
            svg.line((scale(tick), y - 6), (scale(tick), y + 6), "grid")
        if differences:
            svg.line((scale(0), y - 6), (scale(0), y + 6), "zero")
        css = " strong" if mark.strong else ""
        half = (mark.high - mark.low) / 2
        text = f"{mark.value:{'+' if differences else ''}.{mark.digits}f}" + (
            f" ± {half:.{mark.digits}f}" if differences and math.isfinite(half) else ""
        )
        tip = f"{mark.label}: {text}"
        weight = "" if differences else css
        room = WIDTH - (120 if differences else 60)
        svg.text((0, y - 10), _cut(mark.label, room), f"label{weight}")
        svg.text((WIDTH, y - 10), text, f"value{weight}", "end")
        if low <= mark.value <= high:
            if math.isfinite(half):
                svg.line((scale(mark.low), y), (scale(mark.high), y), f"whisker{css}")
                tip += f" [{mark.low:.{mark.digits}f}, {mark.high:.{mark.digits}f}]"
            for seed in finite(mark.seeds) if len(mark.seeds) > 1 else []:
                svg.line((scale(seed), y - 4), (scale(seed), y + 4), f"seed{css}")
            svg.circle((scale(mark.value), y), 4, f"dot{css}", tip)
        else:
            edge, tail = (left, left + 5) if mark.value < low else (right, right - 5)
            svg.path([(tail, y - 4), (edge, y), (tail, y + 4)], f"off{css}", f"{tip}, off the scale")
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
    points: Mapping[str, Mapping[str, Sequence[float]]], colors: Mapping[str, int], label: str
) -> Svg:
    """Draw the observed share over the mean prediction of each bin, one line per model, the first on top.

    The axes are logarithmic if predictions span two decades.
    """
    width = 340
    svg = Svg(width, 330, label)
    predicted = [p for model in points.values() for p in finite(model["predicted"]) if p > 0]
    both = [
        *predicted,
        *(o for model in points.values() for o in finite(model["observed"]) if o > 0),
    ] or [1.0]
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
        css = f"c{colors[model]}" + (" strong" if colors[model] == 1 else "")
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


def heat_map(lift: np.ndarray, users: Sequence[MacroNode], items: Sequence[MacroNode]) -> Svg:
    """Draw the lift between macro nodes: warm if a user macro node takes more of an item macro node than
    expected.

    Bars show members.

    Args:
        lift: By the numbers of the macro nodes. Shape (Ku, Ki).
        users, items: Macro nodes shown, in the order shown.
    """
    cell = float(np.clip(620 / max(len(items), 1), 9, 26))
    left, top, bar = 34.0, 34.0, 44.0
    wide, tall = cell * len(items), cell * len(users)
    svg = Svg(left + wide + bar + 8, top + tall + bar + 8, "Lift between groups of users and groups of items")
    depth = np.clip(np.log2(np.maximum(lift, 1e-9)) / 3, -1, 1)  # full colour from 8 times or an eighth
    every = max(1, math.ceil(11 / cell))
    most_users, most_items = (max((one.members for one in side), default=0) or 1 for side in (users, items))
    for row, user in enumerate(users):
        y = top + row * cell
        if row % every == 0:
            svg.text((left - 6, y + cell / 2 + 3.5), user.node, "tick", "end")
        for column, item in enumerate(items):
            at = user.node, item.node
            svg.rect(
                (left + column * cell, y),
                (cell - 1, cell - 1),
                "hot" if depth[at] > 0 else "cool",
                f"users {user.node} ({user.name}) and items {item.node} ({item.name}): "
                f"{lift[at]:.2g} times what is expected",
                abs(float(depth[at])),
                2,
            )
        svg.rect(
            (left + wide + 4, y + 1),
            (bar * user.members / most_users, cell - 3),
            "size",
            f"group of users {user.node}: {user.members:,} users",
            radius=2,
        )
    for column, item in enumerate(items):
        x = left + column * cell
        if column % every == 0:
            svg.text((x + cell / 2, top - 6), item.node, "tick", "middle")
        svg.rect(
            (x + 1, top + tall + 4),
            (cell - 3, bar * item.members / most_items),
            "size",
            f"group of items {item.node}: {item.members:,} items",
            radius=2,
        )
    svg.text((left, 11), "groups of items →", "axis")
    svg.text((9, top + tall / 2), "groups of users", "axis", "middle", turned=True)
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
                f"fill c{number % COLORS + 1}",
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
