"""Leads of one model over several rivals: intervals by bootstrap over users and seeds, p values, and Holm's correction.

A lead is the mean over seeds of paired differences on the same rows. Drawing users anew moves it, to first order, by

    sum over users c of (w_c - 1) * mean over seeds of influence_c,     w_c ~ Poisson(1),

which is what a bootstrap over users does without measuring anything a second time (multiplier bootstrap; van der Vaart & Wellner 1996,
3.6). Seeds are too few to draw from: of three there are ten different samples, none wider than the three. Their mean moves by
s / sqrt(seeds) times a draw of Student's t with seeds - 1 degrees of freedom: the bootstrap of a normal sample. Both movements add up, and
all rivals of a table share the draws. The interval is the basic one, [d - q(.975), d - q(.025)] with the quantiles q of the movement,
and p is twice the share of movements that reach d, so that p < .05 where the interval leaves out zero, but for a draw.

`compare` has the closed form of the same variance, for one pair and without draws; a run's report prints that one. Here distributions of
users need not be normal, and ranks of p values over rivals are wanted.

Axes: `C` users, `M` metrics, `B` draws, `V` rivals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from mgoe.evaluation.compare import LEVEL, Estimate
from mgoe.evaluation.influence import Influence, carriers

DRAWS = 10_000
GROUPS = 512
"""Users are dealt into at most so many groups, which are drawn as one: the same variance, to three hundredths of an interval, at a cost
that does not grow with users."""
_BLOCK = 1000


@dataclass(frozen=True)
class Lead(Estimate):
    """A paired difference `model - rival` with its interval and p values.

    Attributes:
        p: Two-sided, that the lead is none.
        adjusted: The same after Holm's correction over the rivals, task and metric being equal; NaN over a rival that shares fewer seeds
            with the model than others do, about which less is known.
    """

    p: float
    adjusted: float


def deal(influence: Influence) -> Influence:
    """Users in at most `GROUPS` groups, numbered from 0. The same users are always dealt alike, and what is dealt stays so."""
    users = len(influence.users)
    if users <= GROUPS:
        return Influence(influence.names, influence.values, np.arange(users), influence.parts)
    group = np.random.default_rng(0).permutation(users) % GROUPS
    parts = (
        sp.csr_array((np.ones(users, np.float32), (group, np.arange(users))), shape=(GROUPS, users))
        @ influence.parts
    )
    return Influence(influence.names, influence.values, np.arange(GROUPS), parts)


def find_leads(
    model: str,
    ours: Mapping[int, Influence],
    rivals: Mapping[str, Mapping[int, Influence]],
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Lead]:
    """Leads of a model over rivals in every metric.

    Args:
        model: Its name.
        ours: Its influence a seed, on the same rows as all others.
        rivals: Theirs, by name. Of each, the seeds that both have are compared; a rival without any is left out.
        seed: Of the draws.
        draws: B.
    """
    paired = {
        name: [ours[s] - theirs[s] for s in sorted(ours.keys() & theirs.keys())]
        for name, theirs in rivals.items()
        if name != model
    }
    paired = {name: differences for name, differences in paired.items() if differences}
    if not paired:
        return []
    parts = [
        np.mean([one.parts for one in differences], axis=0) for differences in paired.values()
    ]  # V of (C, M)
    moves = _moves(parts, list(paired.values()), seed, draws)  # (V, B, M)
    found: list[Lead] = []
    for (rival, differences), own, moved in zip(paired.items(), parts, moves, strict=True):
        values = np.stack([one.values for one in differences])  # (seeds, M)
        users = carriers(own)
        for m, (task, metric) in enumerate(differences[0].names):
            value = float(values[:, m].mean())
            low, high, p = _interval(value, moved[:, m])
            about = (
                model,
                rival,
                task,
                metric,
                value,
                low,
                high,
                tuple(values[:, m].tolist()),
                int(users[m]),
            )
            found.append(Lead(*about, p, np.nan))
    adjusted = {}
    for column in dict.fromkeys((lead.task, lead.metric) for lead in found):
        family = [lead for lead in fully_paired(found) if (lead.task, lead.metric) == column]
        adjusted |= {
            (lead.rival, *column): p
            for lead, p in zip(family, holm([lead.p for lead in family]), strict=True)
        }
    return [
        replace(lead, adjusted=float(adjusted.get((lead.rival, lead.task, lead.metric), np.nan)))
        for lead in found
    ]


def fully_paired(leads: Sequence[Lead]) -> list[Lead]:
    """Those over rivals that share as many seeds with the model as any does."""
    most = max((len(lead.by_seed) for lead in leads), default=0)
    return [lead for lead in leads if len(lead.by_seed) == most]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p values of a family (Holm 1979): all that are below a level may be believed together. NaN where they do not exist."""
    p = np.asarray(p, np.float64)
    adjusted, there = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _moves(
    means: Sequence[NDArray], paired: Sequence[Sequence[Influence]], seed: int, draws: int
) -> NDArray[np.float64]:
    """How drawing users and seeds anew moves each lead. Shape (V, B, M)."""
    rng = np.random.default_rng(seed)
    parts = np.concatenate(means, axis=1)  # (C, V * M)
    users = carriers(parts)
    weights = (
        rng.poisson(1.0, (min(_BLOCK, draws - at), len(parts))).astype(np.float32) - 1
        for at in range(0, draws, _BLOCK)
    )
    of_users = np.concatenate([block @ parts for block in weights]).astype(np.float64) * np.sqrt(
        users / np.maximum(users - 1, 1)
    )
    moves = of_users.reshape(draws, len(paired), -1).transpose(1, 0, 2)
    for v, differences in enumerate(paired):
        seeds = len(differences)
        if seeds > 1:
            spread = np.std([one.values for one in differences], axis=0, ddof=1) / np.sqrt(seeds)  # (M,)
            moves[v] += np.random.default_rng([seed, seeds]).standard_t(seeds - 1, (draws, 1)) * spread
    return moves


def _interval(value: float, moved: NDArray[np.float64]) -> tuple[float, float, float]:
    """Basic interval and p value of a lead."""
    if np.isnan(value) or np.isnan(moved).any():
        return np.nan, np.nan, np.nan
    above, below = np.quantile(moved, [0.5 + LEVEL / 2, 0.5 - LEVEL / 2])
    reached = min((moved >= value).sum(), (moved <= value).sum()) + 1
    return float(value - above), float(value - below), float(min(1.0, 2 * reached / (len(moved) + 1)))
