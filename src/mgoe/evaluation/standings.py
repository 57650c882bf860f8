"""The standings of models in a comparison: what was measured, who leads, a verdict in words, and which
models no other model beats for less.

Quality is the mean over tasks on test. Where it is compared with cost, models are compared on the seeds that
they share with the reference, as leads are; one that shares none has its own mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, TypeAlias

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate, fully_paired
from mgoe.evaluation.rows import (
    ALL,
    LOWER,
    MEAN,
    Column,
    Row,
    Summary,
    best,
    by_seed,
    distance,
    head,
    headline,
    summarize,
)

SIGNIFICANT = 0.05
REACHABLE = "best-reachable"
"""Row of a simulated log whose scores are the truth."""
CostName: TypeAlias = Literal["serving_ms", "cpu_seconds"]
COSTS: tuple[CostName, ...] = ("serving_ms", "cpu_seconds")
"""The costs that quality is compared with; attributes of `Cost`."""


@dataclass(frozen=True)
class Cost:
    """What a model costs, as means over its finished cells; NaN where it is not known.

    Attributes:
        parameters: Number of learned parameters.
        training_seconds: Elapsed time, which includes waiting for other work on the machine.
        cpu_seconds: Processor time of training, without that of a GPU.
        scored_per_second: Rows.
        serving_ms: Milliseconds of one core in which a service scores 500 candidates of a user, without HTTP.

    Example:
        >>> Cost(parameters=1_022_704, cpu_seconds=159).cpu_seconds
        159
    """

    parameters: float = math.nan
    training_seconds: float = math.nan
    cpu_seconds: float = math.nan
    scored_per_second: float = math.nan
    serving_ms: float = math.nan


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
        reached: Share of the best reachable result in the main metric of lists, by model, where it is known.
        missing: Why cells of a model are absent: failed, or not run yet.
        notes: Further remarks.
        notices: What is odd about the log or the results of the reference, said above the table.
        served: Which model of a run is served, and why: the first sentence above the table.

    Example:
        >>> one = Standings("All models", "mine", "mgoe", ["mgoe", "shared-bottom"], rows)
        >>> one.reference
        'mgoe'
    """

    question: str
    log: str
    reference: str
    models: Sequence[str]
    rows: Sequence[Row]
    leads: Sequence[Estimate] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    reached: Mapping[str, Estimate] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    notices: Sequence[str] = ()
    served: str = ""

    @property
    def title(self) -> str:
        """Its question and log, as far as they have names."""
        return ": ".join(filter(None, (self.question, self.log)))

    @property
    def remarks(self) -> list[str]:
        """Sentences below the tables; models with the same reason for missing cells share one."""
        return [
            *(
                f"{', '.join(model for model, other in self.missing.items() if other == reason)}: {reason}"
                for reason in dict.fromkeys(self.missing.values())
            ),
            *self.notes,
        ]


def verdict(standings: Standings) -> str:
    """Say where the reference stands among the baselines that share as many seeds with it as any; nothing if
    there are none.

    Example:
        >>> from mgoe.evaluation import Estimate, Standings
        >>> lead = Estimate("mgoe", "shared-bottom", "all", "ranking", 0.02, 0.01, 0.03, (0.02,), users=500)
        >>> models = ["mgoe", "shared-bottom"]
        >>> verdict(Standings("All models", "mine", "mgoe", models, rows, [lead])).split(".")[0]
        'On the mean, mgoe is first of 2'
    """
    column = headline(summarize(standings.rows))
    present, judged = (
        [lead for lead in leads if (lead.task, lead.metric) == column and math.isfinite(lead.value)]
        for leads in (standings.leads, fully_paired(standings.leads))
    )
    if not judged:
        return ""
    sign = -1 if LOWER.fullmatch(column[1]) else 1
    ahead = [lead for lead in judged if min(sign * lead.low, sign * lead.high) > 0]
    behind = [lead for lead in judged if max(sign * lead.low, sign * lead.high) < 0]
    place = sum(sign * lead.value < 0 for lead in judged) + 1
    fewer = len(present) - len(judged)
    return " ".join(
        text
        for text in (
            "On the mean," if column == MEAN else f"In {head(column)},",
            f"{standings.reference} is {'first' if place == 1 else f'number {place}'} of {len(judged) + 1}.",
            f"Significantly ahead of {len(ahead)} of {len(judged)} baselines",
            f"({sum(map(is_significant, ahead))} after Holm's correction), behind {len(behind)}.",
            "With one seed intervals are over users alone." if len(judged[0].by_seed) == 1 else "",
            f"Not counted: {fewer} that share{'s' * (fewer == 1)} fewer seeds with it." if fewer else "",
        )
        if text
    )


def is_significant(lead: Estimate) -> bool:
    """Return whether a difference in either direction excludes zero, after Holm's correction too."""
    return (lead.low > 0 or lead.high < 0) and lead.adjusted < SIGNIFICANT


def reachable_shares(rows: Sequence[Row], slice: str = ALL) -> dict[str, float]:
    """Return the share of the reachable gain, (mean - .5) / (best - .5), by model; empty if the best is
    unknown.

    Example:
        >>> row = {"seed": 0, "split": "test", "slice": "all", "task": "all", "metric": "ranking"}
        >>> values = {"mgoe": 0.75, "best-reachable": 1.0}
        >>> reachable_shares([{"model": model, **row, "value": value} for model, value in values.items()])
        {'mgoe': 0.5}
    """
    means = {
        model: found[MEAN].mean for model, found in summarize(rows, slice=slice).items() if MEAN in found
    }
    best_value = means.pop(REACHABLE, math.nan)
    return {
        model: (mean - 0.5) / (best_value - 0.5)
        for model, mean in means.items()
        if best_value > 0.5 and model not in BOUNDS and not math.isnan(mean)  # not true for NaN
    }


def leaders(standings: Standings, columns: Sequence[Column]) -> dict[Column, set[str]]:
    """Return the best models of each column among the reference and the fully paired baselines, on shared
    seeds.
    """
    baselines = [lead.baseline or "" for lead in fully_paired(standings.leads)]
    own = summarize(standings.rows).get(standings.reference, {}).values()
    digits = min((one.digits for one in own), default=4)
    return {
        column: best(
            {
                model: {column: Summary(mean, math.nan, 1, digits)}
                for model, mean in paired_means(standings, column, baselines).items()
            },
            column,
        )
        for column in columns
    }


def paired_means(standings: Standings, column: Column, models: Sequence[str]) -> dict[str, float]:
    """Return the mean of the reference over all seeds that some models share with it, and what each of these
    is ahead of it on its own. Models that share no seed are left out.
    """
    values = {model: found.get(column, {}) for model, found in by_seed(standings.rows).items()}
    own = values.get(standings.reference, {})
    shared = {m: seeds for m in models if (seeds := sorted(own.keys() & values.get(m, {}).keys()))}
    level = fmean(own[seed] for seed in set().union(*shared.values())) if shared else math.nan
    ahead = {m: fmean(values[m][seed] - own[seed] for seed in seeds) for m, seeds in shared.items()}
    return {standings.reference: level} | {model: level + lead for model, lead in ahead.items()}


@dataclass(frozen=True)
class Point:
    """A model between quality and cost.

    Attributes:
        model: Its name.
        cost: What it costs.
        quality: Its mean over tasks on test.
        on_front: Whether no other model is at least as good for at most this cost.

    Example:
        >>> Point("mgoe", cost=9.6, quality=0.7567, on_front=True).model
        'mgoe'
    """

    model: str
    cost: float
    quality: float
    on_front: bool


def pareto(standings: Standings, cost: CostName) -> list[Point]:
    """Return the models of a table whose quality and cost are known, cheapest first.

    Example:
        >>> from mgoe.evaluation import Cost, Standings
        >>> costs = {"mgoe": Cost(serving_ms=9.6), "shared-bottom": Cost(serving_ms=1.3)}
        >>> one = Standings("All models", "mine", "mgoe", ["mgoe", "shared-bottom"], rows, costs=costs)
        >>> [point.model for point in pareto(one, "serving_ms")]
        ['shared-bottom', 'mgoe']
    """
    column = headline(summarize(standings.rows))
    own = {m: fmean(of[column].values()) for m, of in by_seed(standings.rows).items() if column in of}
    metric, means = column[1], own | paired_means(standings, column, standings.models)
    known = [
        (getattr(standings.costs[model], cost), distance(metric, means[model]), model)
        for model in standings.models
        if model in means and model in standings.costs
    ]
    known = sorted(one for one in known if math.isfinite(one[0]) and math.isfinite(one[1]))
    return [
        Point(model, spent, means[model], _is_on_front((spent, away), known)) for spent, away, model in known
    ]


def _is_on_front(one: tuple[float, float], known: Sequence[tuple[float, float, str]]) -> bool:
    """Whether no other model is at least as cheap and at least as near to the best, and better in one."""
    return not any(spent <= one[0] and away <= one[1] and (spent, away) != one for spent, away, _ in known)
