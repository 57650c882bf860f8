"""True probabilities of behaviours in a world, and the best possible prediction for an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mgoe.simulation.settings import DEVICE_SHARES

if TYPE_CHECKING:
    from mgoe.simulation.truth import Truth

_GRID = (
    0.5  # step of the tables over biases, in standard deviations; errors stay below .002 in the default world
)


def pair_logits(truth: Truth, user: NDArray, item: NDArray, day: NDArray) -> NDArray[np.float64]:
    """Return the logit of each behaviour without device and position, and the mean log stay. Shape (N, T +
    1)."""
    cells = truth.users.community[user], truth.items.community[item]
    first, last = truth.phases(day)
    affinity = [first * a[cells] + last * b[cells] for a, b in zip(*truth.affinity, strict=True)]
    return truth.intercept + np.stack(affinity, 1) + truth.users.bias[user] + truth.items.bias[item]


def position_losses(truth: Truth) -> NDArray[np.float64]:
    """Return the logits that the first behaviour loses at each position. Shape (positions,)."""
    return truth.settings.position_effect * np.log1p(np.arange(truth.settings.positions))


def chances(
    truth: Truth, user: NDArray, item: NDArray, day: NDArray, device: NDArray | None = None
) -> NDArray[np.float64]:
    """Return the probability of each behaviour on an exposure. Shape (N, T).

    It is averaged over positions, and over devices where none (-1) is given.
    """
    logits = pair_logits(truth, user, item, day)[:, :-1]
    given = np.full(len(logits), -1) if device is None else device
    mean = np.zeros_like(logits)
    for d, share in enumerate(DEVICE_SHARES):
        rows = np.flatnonzero((given == d) | (given < 0))
        mean[rows] += np.where(given[rows] < 0, share, 1.0)[:, None] * _funnel(
            truth, logits[rows] + truth.device[:, d]
        )
    return mean


def stay_means(truth: Truth, user: NDArray, item: NDArray, day: NDArray) -> NDArray[np.float64]:
    """Return the expected seconds on a clicked item, the mean of a log-normal. Shape (N,)."""
    return np.exp(pair_logits(truth, user, item, day)[:, -1] + truth.settings.stay.noise**2 / 2)


def _funnel(truth: Truth, logits: NDArray) -> NDArray[np.float64]:
    chance = expit(logits)
    chance[:, 0] = np.mean([expit(logits[:, 0] - loss) for loss in position_losses(truth)], 0)
    for t, parent in enumerate(truth.settings.parents[1:], start=1):
        chance[:, t] *= chance[:, parent]
    return chance


@dataclass(frozen=True)
class Posterior:
    """One day of an event log: how much more likely a pair is as a positive than as a negative.

    A positive is an exposure with the first behaviour: density e(i|u) p(u, i) / m(u) for a user u, with m the
        sum of e p over items.
    A negative of u is an item drawn as positives of the day are: density q(i). Within an item community,
    e and q share the item's popularity, so their ratio depends only on communities and biases. Both biases
    are interpolated on grids.

    Attributes:
        day: The day.
        aim: e between communities. Shape (user communities, item communities).
        by_user: m of a user community and a bias. Shape (user communities, grid).
        by_item: q divided by the item's share of its community's popularity. Shape (item communities, grid).
    """

    day: int
    aim: NDArray[np.float64]
    by_user: NDArray[np.float64]
    by_item: NDArray[np.float64]

    @classmethod
    def of_day(cls, truth: Truth, day: int) -> Posterior:
        popularity = truth.popularity(day)
        aim = truth.aim(day, popularity)
        present = truth.activity * (truth.users.arrival <= day)
        users = _histogram(truth.users.community, truth.users.bias[:, 0], present, len(aim))
        items = _histogram(truth.items.community, truth.items.bias[:, 0], popularity, aim.shape[1])
        items /= np.maximum(items.sum(1, keepdims=True), 1e-300)
        x = truth.logits(day)[:, :, 0]
        grid_u, grid_i = _grid(truth.users.bias[:, 0]), _grid(truth.items.bias[:, 0])
        by_user, by_item = np.empty_like(users), np.zeros_like(items)
        for u in range(len(aim)):
            p = _click(
                truth, x[u][:, None, None] + grid_u[:, None] + grid_i
            )  # (item communities, grid of users, grid of items)
            by_user[u] = np.einsum("c,ck,cgk->g", aim[u], items, p)
            by_item += np.einsum("g,c,cgk->ck", users[u], aim[u], p)
        return cls(day, aim, by_user, by_item / (users * by_user).sum())

    def labels(self, truth: Truth, user: NDArray, item: NDArray, negatives: int) -> NDArray[np.float64]:
        """Return the probability of each label of examples of this day. Shape (N, T)."""
        chance = chances(truth, user, item, np.full(len(user), self.day))
        cu, ci = truth.users.community[user], truth.items.community[item]
        m = _read(self.by_user, cu, truth.users.bias[:, 0], user)
        q = _read(self.by_item, ci, truth.items.bias[:, 0], item)
        ratio = self.aim[cu, ci] * chance[:, 0] / (m * np.maximum(q, 1e-300))
        return (ratio / (ratio + negatives) / chance[:, 0])[:, None] * chance


def _click(truth: Truth, logits: NDArray) -> NDArray[np.float64]:
    """Return the probability of the first behaviour, averaged over devices and positions. Same shape.

    It is interpolated in a fine table.
    """
    xs = np.linspace(logits.min(), logits.max(), 4096)
    shifts = truth.device[0][:, None] - position_losses(truth)  # (devices, positions)
    table = expit(xs[:, None, None] + shifts).mean(2) @ np.array(DEVICE_SHARES)
    return np.interp(logits, xs, table)


def _grid(bias: NDArray) -> NDArray[np.float64]:
    low, high = float(bias.min()), float(bias.max())
    steps = int(np.ceil((high - low) / max(_GRID * float(bias.std()), 1e-9)))
    return np.linspace(low, high, max(2, steps + 1))


def _place(bias: NDArray, grid: NDArray) -> tuple[NDArray, NDArray]:
    """Return the grid point below each bias, and the fraction of the way to the next."""
    x = (bias - grid[0]) / max(grid[1] - grid[0], 1e-12)
    below = np.clip(x.astype(np.int64), 0, len(grid) - 2)
    return below, np.clip(x - below, 0, 1)


def _histogram(community: NDArray, bias: NDArray, weight: NDArray, communities: int) -> NDArray[np.float64]:
    """Return the weight of each community at each grid point. Shape (communities, grid).

    Each weight is shared between the two grid points around its bias.
    """
    grid = _grid(bias)
    below, part = _place(bias, grid)
    cell = community.astype(np.int64) * len(grid) + below
    size = communities * len(grid)
    total = np.bincount(cell, weight * (1 - part), size) + np.bincount(cell + 1, weight * part, size)
    return total.astype(np.float64).reshape(communities, -1)


def _read(table: NDArray, community: NDArray, bias: NDArray, node: NDArray) -> NDArray[np.float64]:
    below, part = _place(bias[node], _grid(bias))
    return table[community, below] * (1 - part) + table[community, below + 1] * part
