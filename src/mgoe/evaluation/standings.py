"""Standings: what one table on one log says, decided from metrics and leads before anything is formatted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from mgoe.evaluation.intervals import Estimate, fully_paired
from mgoe.evaluation.rows import Row
from mgoe.evaluation.table import (
    BOUNDS,
    LOWER,
    MEAN,
    Column,
    Summary,
    best,
    by_seed,
    headline,
    summarise,
)

SIGNIFICANT = 0.05
REACHABLE = "best-reachable"


@dataclass(frozen=True)
class Cost:
    """What a model costs, as means over its finished cells; NaN where they do not record it.

    Attributes:
        parameters: Number of learned parameters.
        training_seconds: Elapsed time, which includes waiting for other work on the machine.
        cpu_seconds: Processor time of training, without that of a GPU.
        scored_per_second: Rows.
    """

    parameters: float
    training_seconds: float
    cpu_seconds: float
    scored_per_second: float


@dataclass(frozen=True)
class Standings:
    """One table on one log.

    Attributes:
        question: What the table asks.
        log: Name of the log.
        reference: The model that the others are compared with.
        models: In order.
        rows: Metrics of the models, and of the bounds of a simulated log.
        leads: Of the reference over each other model.
        costs: By model.
        missing: Why cells of a model are absent: failed, or not run yet.
        notes: Further remarks.
    """

    question: str
    log: str
    reference: str
    models: Sequence[str]
    rows: Sequence[Row]
    leads: Sequence[Estimate] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def remarks(self) -> list[str]:
        """Sentences below the tables; models with the same reason for missing cells share one."""
        together = [
            f"{', '.join(model for model, other in self.missing.items() if other == reason)}: {reason}"
            for reason in dict.fromkeys(self.missing.values())
        ]
        return [*together, *self.notes]


@dataclass(frozen=True)
class Verdict:
    """Where the reference stands among the baselines that share as many seeds with it as any.

    Attributes:
        column: Task and metric that decide.
        lower_is_better: Whether the smallest value is the best.
        place: From 1.
        compared: Number of baselines.
        ahead: Baselines against which its interval excludes zero in its favour.
        significant: Those of them that remain after Holm's correction.
        behind: Baselines against which its interval excludes zero to its disadvantage.
        seeds: Seeds that the models share.
        fewer: Baselines left out because they share fewer seeds.
    """

    column: Column
    lower_is_better: bool
    place: int
    compared: int
    ahead: int
    significant: int
    behind: int
    seeds: int
    fewer: int


def judge(standings: Standings) -> Verdict | None:
    """Decide the place of the reference; None if nothing can be compared with it."""
    column = headline(summarise(standings.rows))
    present, judged = (
        [lead for lead in leads if (lead.task, lead.metric) == column and math.isfinite(lead.value)]
        for leads in (standings.leads, fully_paired(standings.leads))
    )
    if not judged:
        return None
    lower = LOWER.fullmatch(column[1]) is not None
    sign = -1 if lower else 1
    ahead = [lead for lead in judged if min(sign * lead.low, sign * lead.high) > 0]
    return Verdict(
        column=column,
        lower_is_better=lower,
        place=sum(sign * lead.value < 0 for lead in judged) + 1,
        compared=len(judged),
        ahead=len(ahead),
        significant=sum(map(is_significant, ahead)),
        behind=sum(max(sign * lead.low, sign * lead.high) < 0 for lead in judged),
        seeds=len(judged[0].by_seed),
        fewer=len(present) - len(judged),
    )


def is_significant(lead: Estimate) -> bool:
    """Return whether a difference in either direction excludes zero, after Holm's correction too."""
    return (lead.low > 0 or lead.high < 0) and lead.adjusted < SIGNIFICANT


def reachable_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Return the share of the reachable gain, (mean - .5) / (best - .5), by model; empty if the best is
    unknown.
    """
    means = {model: found[MEAN].mean for model, found in summarise(rows).items() if MEAN in found}
    best_value = means.pop(REACHABLE, math.nan)
    if math.isnan(best_value) or best_value <= 0.5:
        return {}
    return {
        model: (mean - 0.5) / (best_value - 0.5)
        for model, mean in means.items()
        if model not in BOUNDS and not math.isnan(mean)
    }


def leaders(standings: Standings, columns: Sequence[Column]) -> dict[Column, set[str]]:
    """Return the best models of each column among the reference and the fully paired baselines, on shared
    seeds.
    """
    values, reference = by_seed(standings.rows), standings.reference
    baselines = dict.fromkeys(
        lead.baseline for lead in fully_paired(standings.leads) if lead.baseline is not None
    )
    found = {}
    for column in columns:
        of = {model: values.get(model, {}).get(column, {}) for model in (reference, *baselines)}
        shared = {
            name: seeds for name in baselines if (seeds := sorted(of[reference].keys() & of[name].keys()))
        }
        own = fmean(of[reference][seed] for seed in set().union(*shared.values())) if shared else math.nan
        means = {
            name: own + fmean(of[name][seed] - of[reference][seed] for seed in seeds)
            for name, seeds in shared.items()
        }
        summaries = {
            model: {column: Summary(mean, math.nan, 1)} for model, mean in {reference: own, **means}.items()
        }
        found[column] = best(summaries, column)
    return found
