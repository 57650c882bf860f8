"""The charts of a report as plain values: what they show and on which axes.

`charts.j2` draws them as inline SVG in the page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.report.data import Bins
from mgoe.evaluation.tables import Cell

AIR = 0.08
"""Share of a range left free on either side."""
FEW = 3
"""Marks up to which none is off the scale."""
DECADES = 100
"""From this ratio of the largest to the smallest prediction on, reliability is drawn on logarithmic axes."""
SMALL = 130, 86
"""Frame of a chart of which two stand side by side."""
MONITORS = {"all.ranking": "mean of AUC and GAUC, validation", "all.logloss": "log loss, validation"}
"""What picks the best epoch, in words."""
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        low, high: What it shows.
        title: What it measures.
        log: Whether it is logarithmic.
        whole: Whether its ticks are whole numbers.
    """

    low: float
    high: float
    title: str = ""
    log: bool = False
    whole: bool = False

    @classmethod
    def around(cls, values: Iterable[float], title: str = "", whole: bool = False) -> Self:
        """Return an axis with some space on either side of the finite values."""
        found = _finite(values) or [0.0, 1.0]
        low, high = min(found), max(found)
        wide = high - low
        air = AIR * (wide if wide > 1e-9 * abs(high) else abs(high)) or 0.5
        return cls(low - air, high + air, title, whole=whole)

    def share(self, value: float) -> float:
        """Return where a value is, from 0 at the lower end to 1; what is beyond an end is at it."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = map(math.log, (low, high, value))
        return (value - low) / (high - low)

    def ticks(self, about: int = 4) -> dict[float, str]:
        """Return round values on the axis, and how each is written."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1,) if len(decades) > about + 1 else (1, 2, 5)
            ticks = [step * 10.0**decade for decade in decades for step in steps]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            return {tick: short(tick) for tick in (ticks if len(ticks) > 1 else (self.low, self.high))}
        least = (self.high - self.low) / about
        base = 10.0 ** math.floor(math.log10(least))
        step = next(base * times for times in (1, 2, 2.5, 5, 10) if base * times >= least * 0.999)
        step = math.ceil(step) if self.whole else step
        places = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return {place * step: short(place * step) for place in places}


class Line(NamedTuple):
    """Points that a line joins.

    Attributes:
        points: In order.
        name: What it stands for.
        color: Number of its colour; 0 for a dashed line that helps to read the chart.
    """

    points: Sequence[Point]
    name: str = ""
    color: int = 0


class Dot(NamedTuple):
    """A point.

    Attributes:
        x, y: Where it is.
        tip: What it says where a pointer rests on it.
        color: Number of its colour.
    """

    x: float
    y: float
    tip: str
    color: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines and dots between two axes.

    Attributes:
        title: Description of the chart.
        x, y: The axes.
        lines, dots: What is drawn, the first on top.
        size: Width and height of the frame in the page.
    """

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    size: tuple[int, int] = (300, 216)


@dataclass(frozen=True)
class Mark:
    """One line of an interval plot.

    Attributes:
        name: Whose value it is.
        cell: The value as text, strong if it stands out.
        value: The value.
        low, high: Its interval, if known.
        seeds: The values of single seeds.
    """

    name: str
    cell: Cell
    value: float
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class IntervalPlot:
    """Values, or differences around a line at 0, with intervals, one line each.

    Attributes:
        title: What is measured.
        marks: In order.
        axis: What it shows; a value that is beyond it keeps its number.
        differences: Whether the values are differences.
    """

    title: str
    marks: Sequence[Mark]
    axis: Axis
    differences: bool

    @classmethod
    def of(
        cls, title: str, marks: Sequence[Mark], *, differences: bool = False, lower_is_better: bool = False
    ) -> Self:
        """Choose the axis: the values closest to the best one decide, or the differences closest to 0.

        Args:
            title: What is measured.
            marks: In order, at least one, with finite values.
            differences: Whether the values are differences.
            lower_is_better: Whether large values are behind.
        """
        values = np.array([mark.value for mark in marks])
        best = 0.0 if differences else values.min() if lower_is_better else values.max()
        near = [mark for mark, is_near in zip(marks, are_near(values, best), strict=True) if is_near]
        inside = [v for mark in near for v in (mark.value, mark.low, mark.high, *mark.seeds)]
        return cls(title, marks, Axis.around([*inside, 0.0] if differences else inside), differences)


def are_near(values: NDArray[np.float64], best: float) -> NDArray[np.bool_]:
    """Return which values set the scale: the half that is closest to the best one, with a margin."""
    away = np.abs(values - best)
    return away <= (3 * np.median(away) if len(away) > FEW else math.inf)


def short(value: float) -> str:
    """Format a tick label."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def curve_charts(title: str, runs: Mapping[str, Mapping[str, Any]]) -> tuple[Chart, Chart]:
    """Return two charts over epochs: training loss, and validation with a dot at the epoch that was kept.

    Args:
        title: Whose training it is.
        runs: What `curves.json` holds, by name; one at least.
    """
    losses, validations, dots = list[Line](), list[Line](), list[Dot]()
    for color, (name, run) in enumerate(runs.items(), 1):
        loss = [(one["epoch"], sum(_finite(one["losses"].values()))) for one in run["epochs"]]
        monitor = {one["epoch"]: value for one in run["epochs"] for value in _finite([one["monitor"]])}
        losses.append(Line(loss, name, color))
        validations.append(Line([*monitor.items()], name, color))
        if (best := run["best_epoch"]) in monitor:
            dots.append(Dot(best, monitor[best], f"{name}: {monitor[best]:.4f} in epoch {best:g}", color))
    x = Axis.around((x for line in losses for x, _ in line.points), "epoch", whole=True)
    measured: str = next(iter(runs.values())).get("monitor", "validation")
    y_loss, y_validation = (
        Axis.around((y for line in lines for _, y in line.points), name)
        for lines, name in ((losses, "training loss"), (validations, MONITORS.get(measured, measured)))
    )
    return (
        Chart(f"Training loss of {title}", x, y_loss, losses, size=SMALL),
        Chart(f"Validation of {title}", x, y_validation, validations, dots, SMALL),
    )


def reliability_chart(title: str, bins: Mapping[str, Bins]) -> Chart:
    """Return the observed share over the mean prediction of each bin, one line per name, the first on top.

    The axes are logarithmic if predictions span two decades; what was never observed is at the lower end.

    Args:
        title: Whose reliability it is.
        bins: By name, see `evaluation.reliability`; empty where there are none.
    """
    predicted = [p for one in bins.values() for p in one.get("predicted", ()) if p > 0]
    observed = [o for one in bins.values() for o in one.get("observed", ()) if o > 0]
    log = bool(predicted) and max(predicted) > DECADES * min(predicted)
    low = 0.8 * min(predicted + observed) if log else 0.0
    high = 1.04 * max(predicted + observed, default=1.0)
    lines, dots = list[Line](), list[Dot]()
    for color, (name, one) in enumerate(bins.items(), 1):
        columns = (one.get(column, ()) for column in ("predicted", "observed", "rows"))
        points = [(max(p, low), max(o, low), rows) for p, o, rows in zip(*columns, strict=True)]
        lines.append(Line([(p, o) for p, o, _ in points], name, color))
        dots += [
            Dot(p, o, f"{name}: predicted {p:.4f}, observed {o:.4f}, {rows:,.0f} rows", color)
            for p, o, rows in points
        ]
    lines.append(Line([(low, low), (high, high)]))
    return Chart(title, Axis(low, high, "predicted", log), Axis(low, high, "observed", log), lines, dots)


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
