"""Intervals of metrics and of leads over baselines: one bootstrap over users and seeds, p values, Holm's
correction.

A lead is the mean over seeds of paired differences on the same rows. Redrawing the users moves it, to first
order, by

    sum over users c of (w_c - 1) * mean over seeds of influence_c,     w_c ~ Poisson(1),

which is what a bootstrap over users does without measuring anything a second time (multiplier bootstrap; van
der Vaart & Wellner 1996, 3.6). Seeds are too few to redraw: three seeds have ten different samples, none
wider than the three. Their mean moves by s / sqrt(seeds) times a draw of Student's t with seeds - 1 degrees
of freedom, the bootstrap of a normal sample. Both movements add up, and all baselines of a table share the
draws. With one seed only users vary, and the interval says nothing about seeds.

The interval is the basic one, [d - q(.975), d - q(.025)] with the quantiles q of the movement. p is twice the
share of movements that reach d, so p < .05 where the interval excludes zero, up to a draw.

Axes: `C` users or random groups of them, `M` metrics, `B` draws, `V` baselines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, WithJsonSchema

from mgoe.evaluation.influence import Influence
from mgoe.evaluation.rows import digits_for

LEVEL = 0.95
DRAWS = 10_000
GROUPS = 512
"""Number of random groups of users that are drawn as one. The variance stays the same, up to three hundredths
of an interval, and the cost no longer grows with the number of users."""
_BLOCK = 1000
Number = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]})]
"""A number; NaN where it does not exist, which is null in JSON."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Example:
        >>> Estimate("mgoe", "mmoe", "all", "ranking", 0.02, 0.01, 0.03, (0.02,), users=500).low
        0.01
    """

    model: str
    baseline: Annotated[
        str | None,
        Field(description="Whose value was subtracted, seed by seed; none for the model's own value."),
    ]
    task: str
    metric: str
    value: Annotated[Number, Field(description="Mean over seeds.")]
    low: Annotated[
        Number,
        Field(description="95 % interval over users and seeds; over users alone with one seed."),
    ]
    high: Number
    by_seed: tuple[Number, ...]
    users: Annotated[int, Field(description="Test users (or groups of them) that contribute.")]
    p: Annotated[Number, Field(description="Two-sided p of no difference.")] = np.nan
    adjusted: Annotated[
        Number,
        Field(
            description="p after Holm's correction over the baselines, for the same task and metric; none "
            "for a baseline that shares fewer seeds with the model than others do."
        ),
    ] = np.nan

    @property
    def digits(self) -> int:
        """How many to show after the point."""
        return digits_for([self.users])


def group_users(influence: Influence) -> Influence:
    """Sum an influence over at most `GROUPS` random groups of users.

    The same users always form the same groups, and grouping twice changes nothing.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> from mgoe.evaluation import user_influence
        >>> labels = np.tile([[0.0], [1.0]], (30, 1))
        >>> one = user_influence(labels, labels, np.arange(60) // 2, [TaskSettings(name="click")])
        >>> len(group_users(one).users)
        30
    """
    users = len(influence.users)
    if users <= GROUPS:
        return replace(influence, users=np.arange(users))
    group = np.random.default_rng(0).permutation(users) % GROUPS
    members = sp.csr_array((np.ones(users, np.float32), (group, np.arange(users))), shape=(GROUPS, users))
    return replace(influence, users=np.arange(GROUPS), parts=members @ influence.parts)


def estimate(model: str, influences: Sequence[Influence], draws: int = DRAWS) -> list[Estimate]:
    """Return every metric of a model with its interval.

    Args:
        model: Its name.
        influences: One per seed, on the same rows.
        draws: B.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> from mgoe.evaluation import user_influence
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 2, (200, 1)).astype(float)
        >>> scores, tasks = rng.random((200, 1)), [TaskSettings(name="click")]
        >>> one = user_influence(scores, labels, np.arange(200) // 5, tasks)
        >>> first = estimate("mine", [one], draws=100)[0]
        >>> first.low < first.value < first.high
        True
    """
    return [
        replace(one, p=np.nan)
        for one in _estimates(model, {None: list(map(group_users, influences))}, 0, draws)
    ]


def find_leads(
    model: str,
    ours: Mapping[int, Influence],
    baselines: Mapping[str, Mapping[int, Influence]],
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Estimate]:
    """Return the leads of a model over baselines in every metric.

    Args:
        model: Its name.
        ours: Its influence by seed, on the same rows as all others.
        baselines: Theirs, by name. Seeds that both have are compared; a baseline that shares none is left
            out.
        seed: Of the draws.
        draws: B.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> from mgoe.evaluation import user_influence
        >>> rng, tasks = np.random.default_rng(0), [TaskSettings(name="click")]
        >>> labels, users = rng.integers(0, 2, (200, 1)).astype(float), np.arange(200) // 5
        >>> ours, theirs = (user_influence(rng.random((200, 1)), labels, users, tasks) for _ in range(2))
        >>> find_leads("ours", {0: ours}, {"theirs": {0: theirs}}, draws=100)[0].baseline
        'theirs'
    """
    paired: dict[str | None, list[Influence]] = {
        name: [group_users(ours[s]) - group_users(theirs[s]) for s in sorted(ours.keys() & theirs)]
        for name, theirs in baselines.items()
        if name != model and ours.keys() & theirs
    }
    found = _estimates(model, paired, seed, draws)
    families: dict[tuple[str, str], list[Estimate]] = {}
    for lead in fully_paired(found):
        families.setdefault((lead.task, lead.metric), []).append(lead)
    adjusted = {
        (lead.baseline, *column): float(p)
        for column, family in families.items()
        for lead, p in zip(family, holm([lead.p for lead in family]), strict=True)
    }
    return [
        replace(lead, adjusted=adjusted.get((lead.baseline, lead.task, lead.metric), np.nan))
        for lead in found
    ]


def fully_paired(leads: Sequence[Estimate]) -> list[Estimate]:
    """Return the leads over those baselines that share the largest number of seeds with the model."""
    most = max((len(lead.by_seed) for lead in leads), default=0)
    return [lead for lead in leads if len(lead.by_seed) == most]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust the p values of a family (Holm 1979), so that all below a level can be trusted together.

    p values that do not exist are NaN and stay so.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p, np.float64)
    adjusted, present = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = present[np.argsort(p[present], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order]), 1)
    return adjusted


def _estimates(
    model: str, influences: Mapping[str | None, list[Influence]], seed: int, draws: int
) -> list[Estimate]:
    """Return the mean over seeds of each list of influences, with interval and p value."""
    if not influences:
        return []
    parts = [np.mean([one.parts for one in seeds], axis=0) for seeds in influences.values()]  # V of (C, M)
    moves = _moves(parts, list(influences.values()), seed, draws)  # (V, B, M)
    found = []
    for (baseline, seeds), own, moved in zip(influences.items(), parts, moves, strict=True):
        values = np.stack([one.values for one in seeds])  # (seeds, M)
        for (task, metric), by_seed, part, movement in zip(
            seeds[0].names, values.T, own.T, moved.T, strict=True
        ):
            value = float(by_seed.mean())
            low, high, p = _interval(value, movement)
            users = int((part != 0).sum())  # the others, such as those without a label, move nothing
            found.append(
                Estimate(model, baseline, task, metric, value, low, high, tuple(by_seed.tolist()), users, p)
            )
    return found


def _moves(
    means: Sequence[NDArray], paired: Sequence[Sequence[Influence]], seed: int, draws: int
) -> NDArray[np.float64]:
    """Return how redrawing users and seeds moves each mean. Shape (V, B, M)."""
    parts = np.concatenate(means, axis=1)  # (C, V * M)
    users = (parts != 0).sum(0)
    by_users = np.concatenate([block @ parts for block in _weights(seed, draws, len(parts))])
    by_users = by_users.astype(np.float64)
    by_users *= np.sqrt(users / np.maximum(users - 1, 1))
    moves = by_users.reshape(draws, len(paired), -1).transpose(1, 0, 2)
    for v, influences in enumerate(paired):
        seeds = len(influences)
        if seeds > 1:
            spread = np.std([one.values for one in influences], axis=0, ddof=1) / np.sqrt(seeds)  # (M,)
            moves[v] += np.random.default_rng([seed, seeds]).standard_t(seeds - 1, (draws, 1)) * spread
    return moves


@lru_cache(maxsize=4)
def _weights(seed: int, draws: int, users: int) -> tuple[NDArray[np.float32], ...]:
    """Return how often each user is drawn, less one, in blocks of draws. Shape (at most `_BLOCK`, C) each.

    A table asks for the same ones once for every model.
    """
    rng = np.random.default_rng(seed)
    return tuple(
        rng.poisson(1.0, (min(_BLOCK, draws - at), users)).astype(np.float32) - 1
        for at in range(0, draws, _BLOCK)
    )


def _interval(value: float, moved: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the basic interval and the p value of a mean."""
    if np.isnan(value) or np.isnan(moved).any():
        return np.nan, np.nan, np.nan
    above, below = np.quantile(moved, [0.5 + LEVEL / 2, 0.5 - LEVEL / 2])
    reached = min((moved >= value).sum(), (moved <= value).sum()) + 1
    return float(value - above), float(value - below), float(min(1.0, 2 * reached / (len(moved) + 1)))
