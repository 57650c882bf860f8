"""What an experiment found: effects on every metric, for whom, since when, and whether one can decide."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import write_text
from mgoe._util.templates import templates_of
from mgoe.abtest.check import Finding
from mgoe.abtest.effects import ALPHA, compare, fixed, fixed_p, sequential, sequential_p
from mgoe.abtest.interleaving import Preference, preferences
from mgoe.abtest.samples import DAY, Metric, Sample
from mgoe.config.experiment import ExperimentSettings
from mgoe.errors import ConfigError, DataError
from mgoe.evaluation.intervals import holm

FEW = 5
"""Rows before the experiment from which a unit counts as active."""
MIN_UNITS = 20
"""Fewest units of each arm that are compared."""
PLANNED = 28
"""Days of an experiment without an end."""
_TEMPLATES = templates_of("mgoe.abtest")


@dataclass(frozen=True)
class Line:
    """The effect of an arm on a metric, in a slice of the units."""

    arm: str
    metric: str
    slice: str
    cuped: bool
    units: int
    control: float
    treated: float
    difference: float
    lift: float
    fixed: tuple[float, float]
    """Interval of the lift at one look, chosen in advance."""
    sequential: tuple[float, float]
    """Interval of the lift that holds at every look."""
    p: float
    """At one look."""
    always_valid_p: float
    removed: float
    """Share of the variance that CUPED removed."""
    adjusted: float = np.nan
    """The always-valid p after Holm's correction over the secondary metrics."""


@dataclass(frozen=True)
class Report:
    """All that a report shows."""

    experiment: str
    primary: str
    primary_reason: str
    """Why this metric decides."""
    decision: str
    days: int
    planned_days: float
    units: dict[str, int]
    lines: list[Line]
    """All units: each metric, with CUPED and without; secondary metrics with Holm's correction."""
    guards: list[str]
    """One sentence per metric that must not fall."""
    triggered: list[Line]
    """Units that would have been shown another list by another arm."""
    interleaving: list[Preference]
    """Which arm the units with interleaved lists prefer, by task."""
    slices: list[Line]
    tenure: list[Line]
    looks: list[Line]
    """The primary metric at the end of each day."""
    findings: list[Finding] = field(default_factory=list)


def make_report(
    experiment: ExperimentSettings,
    sample: Sample,
    findings: list[Finding],
    primary: str | None = None,
    guards: dict[str, float] | None = None,
) -> Report:
    """Return the report of an experiment.

    Args:
        experiment: Its settings.
        sample: Its units.
        findings: As of `check`; nothing is decided while one is an alarm.
        primary: The metric that decides; by default that of the strongest task which enough units of each arm
            did.
        guards: Metrics that must not fall, and by which share of the control at most.

    Raises:
        ConfigError: A metric is unknown.
        DataError: The experiment ended too early to compare its arms.
    """
    metrics = {metric.name: metric for metric in sample.metrics}
    chosen, reason = (primary, f"{primary} decides, as asked.") if primary else _strongest(sample)
    for option, name in [("--metric", chosen), *(("--guard", name) for name in guards or {})]:
        if name not in metrics:
            raise ConfigError(option, f"must be one of {', '.join(metrics)}, found {name!r}; name one")
    counts = np.bincount(sample.units["arm"], minlength=len(sample.arms))
    if counts.min() < MIN_UNITS:
        raise DataError(
            f"experiment {experiment.id}",
            f"ended too early: each arm needs {MIN_UNITS} units, found {counts.min()} in "
            f"{sample.arms[int(counts.argmin())]}; let it run",
        )
    planned = PLANNED if experiment.end is None else (experiment.end.timestamp() * 1e6 - sample.start) / DAY
    share = min(sample.days / planned, 1.0)
    lines = [
        line
        for metric in sample.metrics
        for cuped in ((False,) if metric.kind == "return" else (False, True))
        for line in _lines(sample, metric, share, cuped=cuped)
    ]
    lines = _adjusted(lines, chosen)
    main, activity = metrics[chosen], sample.units["before"].to_numpy()
    differs = sample.units["differs"].to_numpy()
    groups = {
        "new": activity == 0,
        f"1 to {FEW - 1} rows before": (activity > 0) & (activity < FEW),
        f"{FEW} rows before or more": activity >= FEW,
    }
    triggered = [one for m in sample.metrics for one in _lines(sample, m, share, "lists differ", differs)]
    slices = [one for name, rows in groups.items() for one in _lines(sample, main, share, name, rows)]
    tenure, looks = [], []
    if main.kind != "return":
        for low, high in ((0, 1), (1, 3), (3, 7), (7, 14), (14, 28), (28, 10_000)):
            since = sample.cells["since"].to_numpy()
            there = sample.end - sample.units["first"].to_numpy() >= min(high, low + 7) * DAY
            name, cells = f"days {low} to {high - 1}" if high < 10_000 else f"from day {low}", (since >= low)
            tenure += _lines(sample, main, share, name, there, cells & (since < high))
        day = sample.cells["day"].to_numpy()
        begun = (sample.units["first"].to_numpy() - sample.start) // DAY
        for last in range(sample.days):
            part = (last + 1) / planned
            looks += _lines(sample, main, part, f"day {last + 1}", begun <= last, day <= last, cuped=True)
    decisive = [line for line in lines if line.metric == chosen and line.cuped == (main.kind != "return")]
    told = [_guard(line, limit) for name, limit in (guards or {}).items() for line in _of(lines, name)]
    return Report(
        experiment=experiment.id,
        primary=chosen,
        primary_reason=reason,
        decision=_decision(chosen, decisive, findings, told, share),
        days=sample.days,
        planned_days=planned,
        units=dict(zip(sample.arms, counts.tolist(), strict=True)),
        lines=lines,
        guards=told,
        triggered=triggered,
        interleaving=preferences(experiment, sample),
        slices=slices,
        tenure=tenure,
        looks=looks,
        findings=findings,
    )


def write_page(report: Report, path: Path) -> None:
    """Write a report as one HTML file that loads nothing."""
    write_text(path, _TEMPLATES.get_template("report.html.j2").render(report=report))


def _strongest(sample: Sample) -> tuple[str, str]:
    """Return the metric per unit of the last task that enough units of each arm did, and why it decides.

    If none is, it is the task that most units did.
    """
    arm, metrics = sample.units["arm"].to_numpy(), [one for one in sample.metrics if one.kind == "unit"]
    fewest = {
        one: np.bincount(arm[sample.values(one)[:, 0] != 0], minlength=len(sample.arms)).min()
        for one in metrics
    }
    enough = [one for one in metrics if fewest[one] >= MIN_UNITS]
    chosen = enough[-1] if enough else max(metrics, key=lambda one: fewest[one])
    rare = ", ".join(one.task for one in metrics[metrics.index(chosen) + 1 :])
    why = (
        f"although fewer than {MIN_UNITS} units of an arm did {chosen.task}"
        if not enough
        else f"because fewer than {MIN_UNITS} units of an arm did {rare}"
        if rare
        else f"because {chosen.task} is the last task, and {MIN_UNITS} units or more of each arm did it"
    )
    return chosen.name, f"{chosen.name} decides, {why}; name the metric in advance with --metric."


def _lines(
    sample: Sample,
    metric: Metric,
    share: float,
    name: str = "all",
    units: NDArray[np.bool_] | None = None,
    cells: NDArray[np.bool_] | None = None,
    cuped: bool = False,
) -> list[Line]:
    """Return the effect of each arm on a metric; none where an arm has too few units."""
    control, *others = sample.sums(sample.values(metric, cells), units)
    found = []
    for arm, treated in zip(sample.arms[1:], others, strict=True):
        effect = compare(control, treated, cuped)
        if min(control.n, treated.n) < MIN_UNITS or not np.isfinite(effect.lift_variance):
            continue
        lift, variance = effect.lift, effect.lift_variance
        bounds = [fixed(lift, variance), sequential(lift, variance, share)]
        intervals = [(float(low), float(high)) for low, high in bounds]
        values = (effect.control, effect.treated, effect.difference, lift)
        tests = effect.difference, effect.variance
        p, always = float(fixed_p(*tests)), float(sequential_p(*tests, share))
        n = int(control.n + treated.n)
        shown: Any = (*map(float, values), *intervals, p, always, float(effect.removed))
        found.append(Line(arm, metric.name, name, cuped, n, *shown))
    return found


def _adjusted(lines: list[Line], primary: str) -> list[Line]:
    """Return lines with Holm's correction over the secondary metrics of the same adjustment."""
    secondary = [
        n for n, one in enumerate(lines) if one.metric != primary and (one.cuped or "return" in one.metric)
    ]
    found = list(lines)
    for n, p in zip(secondary, holm([lines[n].always_valid_p for n in secondary]), strict=True):
        found[n] = replace(lines[n], adjusted=float(p))
    return found


def _of(lines: list[Line], metric: str) -> list[Line]:
    """Return the most exact lines of a metric."""
    own = [line for line in lines if line.metric == metric]
    return [line for line in own if line.cuped] or own


def _guard(line: Line, limit: float) -> str:
    """Return whether a guard rail holds."""
    low, high = line.sequential
    word = "holds" if low > -limit else "is broken" if high < -limit else "is not decided yet"
    return (
        f"{line.metric} in {line.arm} {word}: {line.lift:+.1%} ({low:+.1%} to {high:+.1%}), and it may fall "
        f"by {limit:.1%}."
    )


def _decision(
    primary: str, lines: list[Line], findings: list[Finding], guards: list[str], share: float
) -> str:
    """Return one sentence that decides, or says what is missing."""
    if alarms := [finding.name for finding in findings if finding.alarm]:
        return f"Do not decide: the data have alarms ({', '.join(alarms)})."
    if not lines:
        return f"Nothing can be decided: {primary} has no value in one of the arms; name another metric."
    if broken := [guard for guard in guards if "is broken" in guard]:
        return f"Keep the control: a guard rail is broken. {broken[0]}"
    best = max(lines, key=lambda line: line.lift)
    low, high = best.sequential
    told = f"{best.metric} {best.lift:+.1%} ({low:+.1%} to {high:+.1%} at every look)"
    if low > 0 and all("holds" in guard for guard in guards):
        return f"Take {best.arm}: {told}."
    if low > 0:
        return f"Wait: {best.arm} is better ({told}), but a guard rail is not decided yet."
    if all(line.sequential[1] < 0 for line in lines):
        return f"Keep the control: {told}."
    rest = (
        "let it run on"
        if share < 1
        else "its planned time is over, so plan a longer one, or keep the control"
    )
    return f"Not decided: {told} includes no effect at level {ALPHA:g}; {rest}."
