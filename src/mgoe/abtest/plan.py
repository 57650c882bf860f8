"""How many units and days an effect needs, from what the service's users did before.

A plan takes the last days of the log as if they were an experiment, and the days before as the time before.
With variance v of one unit's influence and shares s and 1 - s, an effect e has power 1 - b at

    n = v (1 / s + 1 / (1 - s)) (z(1 - alpha / 2) + z(1 - b))^2 / e^2    units.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from mgoe.abtest.effects import ALPHA, compare, sequential_width, sum_units
from mgoe.abtest.samples import DAY, Metric, metrics_of
from mgoe.config import RunSettings
from mgoe.errors import DataError

POWER = 0.8
DAYS = (7, 14, 21, 28)


@dataclass(frozen=True)
class Plan:
    """What an experiment of so many days can find."""

    metric: str
    days: int
    units: int
    """Units of all arms that the log saw in so many days."""
    value: float
    detectable: float
    """Lift found with the power asked for, at one look at the end."""
    with_cuped: float
    at_every_look: float
    """The same with CUPED and a decision at any daily look."""
    needed: int
    """Units of all arms for the lift asked for, with CUPED, at one look."""


def units_needed(variance: float, effect: float, share: float = 0.5, power: float = POWER) -> float:
    """Return how many units of both arms together find an effect.

    Args:
        variance: Of one unit's influence on the metric.
        effect: In the metric's own unit.
        share: Of the treated arm.
        power: Probability of finding it.

    Example:
        >>> round(units_needed(variance=1.0, effect=0.1))
        3140
    """
    z = float(norm.ppf(1 - ALPHA / 2) + norm.ppf(power))
    return variance * (1 / share + 1 / (1 - share)) * (z / effect) ** 2


def make_plans(
    settings: RunSettings, rows: Any, lift: float, share: float = 0.5, power: float = POWER
) -> list[Plan]:
    """Return plans for several lengths of an experiment, as far as the log reaches.

    Args:
        settings: Of the bundle that is served.
        rows: As of `read_rows`: the service's own past.
        lift: The effect to find, as a share of the metric.
        share: Of the treated arm.
        power: Probability of finding it.

    Raises:
        DataError: The log is too short.
    """
    end, first = int(rows["time"].max()) + 1, int(rows["time"].min())
    plans = []
    for days in DAYS:
        start = end - days * DAY
        if start < first:
            break
        plans += [
            plan
            for metric in metrics_of(settings)
            if metric.kind in ("unit", "given")
            or (metric.kind == "exposure" and settings.form == "exposures")
            if (plan := _plan(metric, rows, start, days, lift, share, power)) is not None
        ]
    if not plans:
        found = f"{(end - first) / DAY:.1f}"
        raise DataError("--log", f"must reach back {DAYS[0]} days at least, found {found}; give an older one")
    return plans


def verdicts(plans: Iterable[Plan], lift: float) -> list[str]:
    """Say of each metric how many days find a lift, with CUPED and at one look, or that none do.

    Args:
        plans: As of `make_plans`.
        lift: The one that they were made for.

    Example:
        >>> verdicts([Plan("click per unit", 7, 900, 2.0, 0.06, 0.05, 0.07, 1_200)], 0.04)
        ['click per unit: 7 days find 5.00%, but not 4.00%, which needs 1,200 units; they had 900.']
    """
    by_metric: dict[str, list[Plan]] = {}
    for plan in plans:
        by_metric.setdefault(plan.metric, []).append(plan)
    return [_verdict(sorted(found, key=lambda plan: plan.days), lift) for found in by_metric.values()]


def _verdict(plans: list[Plan], lift: float) -> str:
    for plan in plans:
        if plan.units >= plan.needed:
            return f"{plan.metric}: {plan.days} days find {lift:.2%}."
    last = plans[-1]
    return (
        f"{last.metric}: {last.days} days find {last.with_cuped:.2%}, but not {lift:.2%}, which needs "
        f"{last.needed:,} units; they had {last.units:,}."
    )


def _plan(
    metric: Metric, rows: Any, start: int, days: int, lift: float, share: float, power: float
) -> Plan | None:
    """Return the plan of one metric; None if nobody did anything of it."""
    names = [metric.numerator, *([metric.denominator] if metric.denominator else [])]
    during = rows[rows["time"] >= start].groupby("user")[names].sum()
    before: Any = rows[rows["time"] < start].groupby("user")[names].sum()
    before = before.reindex(during.index, fill_value=0.0)
    shown = during[metric.denominator] if metric.denominator else np.ones(len(during))
    half = sum_units(np.column_stack([during[metric.numerator], shown, metric.covariate(before)]))
    plain, adjusted = compare(half, half), compare(half, half, True)
    if not plain.control > 0 or not plain.variance > 0:
        return None
    n, value = len(during), float(plain.control)
    per_unit = [float(effect.variance) * n / 2 for effect in (plain, adjusted)]
    found = [np.sqrt(units_needed(v, 1.0, share, power) / n) / value for v in per_unit]
    z = float(norm.ppf(power))
    wider = (float(sequential_width(1.0)) + z) / (float(norm.ppf(1 - ALPHA / 2)) + z)
    needed = int(np.ceil(units_needed(per_unit[1], lift * value, share, power)))
    return Plan(
        metric.name, days, n, value, float(found[0]), float(found[1]), float(found[1] * wider), needed
    )
