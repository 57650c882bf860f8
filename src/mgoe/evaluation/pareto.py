"""Quality against cost: which models no other model beats for less.

Quality is the mean over tasks on test. Models are compared on the seeds that they share with the reference,
as leads are; one that shares none has its own mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from mgoe.evaluation.rows import by_seed, distance, headline, summarize
from mgoe.evaluation.standings import Standings, paired_means

CostName: TypeAlias = Literal["serving_ms", "cpu_seconds"]
COSTS: tuple[CostName, ...] = ("serving_ms", "cpu_seconds")
"""The costs that quality is compared with; attributes of `Cost`."""


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
