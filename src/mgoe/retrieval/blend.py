"""The blend: lists are ordered by what the model says together with item-to-item links (ours).

A model is trained to tell a user's items from other popular ones. Which items follow one another, within an
hour or a day, is in the links, and what a user comes back to in the user's own counts. So a list adds to the
log-odds that a user does anything on an item

    a log-odds(u, i) + b log n(i) + c ln(FLOOR + l(u, i)) + d ln(FLOOR + s(u, i)) + e ln(1 + t(u, i))
        + f ln(1 + r(u, i)) + g ln p(i)

where n(i) undoes the sampling of negatives, l(u, i) is the sum of cosine links from the user's latest items
to item i, weighted by what was done and when, s(u, i) the same from the items of the user's last day alone,
t(u, i) the user's events on the item, r(u, i) these decayed by the age of the last, and p(i) the share of the
item's events in which its users come back. The weights `a` to `g` are those of which a draw from the softmax
of a user's candidates is likeliest an item that is done. So it is the head of a list that they are fitted to,
however many items a user acts on.

Axes: `B` items, `F` signals, `Q` queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe._util.hash_table import free_places, place_of
from mgoe._util.kernels import kernel
from mgoe.graph.latest import DAY
from mgoe.graph.links import ItemLinks
from mgoe.retrieval.history import OwnItems
from mgoe.retrieval.popular import REPEATED

FLOOR = 0.03
"""Added to a sum of links, so that an item without any is not excluded."""
RIDGE = 1e-3
"""Penalty per query on the weights: few queries stay close to the order of the model."""
SMALLEST = 1e-100
"""Least probability that a draw is wanted whose logarithm is taken."""
FEWEST = 50
"""Queries from which a blend is fitted; fewer say nothing."""


class Blend(NamedTuple):
    """Weights of the signals in what is added to the log-odds of an item.

    Attributes:
        log_odds: Of the log-odds that the user does anything on the item.
        sampling: Of what undoing the sampling of negatives added to them.
        linked: Of links from the user's latest items.
        session: Of links from the items of the user's last day.
        events: Of how often the user acted on the item.
        recent_events: Of the same, decayed.
        repeated: Of how often the item's users come back to it.

    Example:
        >>> Blend(0.0, sampling=-0.5, linked=0.0, session=1.0).added(np.ones((2, 7)))
        array([0.5, 0.5])
    """

    log_odds: float
    sampling: float
    linked: float
    session: float
    events: float = 0.0
    recent_events: float = 0.0
    repeated: float = 0.0

    def added(self, signals: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what is added to the log-odds of items with some signals, (B, F). Shape (B,)."""
        return signals.astype(np.float64) @ np.array(self)

    @classmethod
    def fit(
        cls, signals: Sequence[NDArray[np.floating]], wanted: Sequence[NDArray[np.bool_]]
    ) -> "Blend | None":
        """Return the weights under which a draw is likeliest wanted. Every query counts the same.

        Args:
            signals: Of the candidates of each query, (B, F). Q arrays.
            wanted: Whether each is done. Q arrays (B,).

        Returns:
            None for fewer than `FEWEST` queries with a wanted candidate.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> signals = [rng.normal(size=(9, 7)) for _ in range(100)]
            >>> blend = Blend.fit(signals, [one[:, 3] == one[:, 3].max() for one in signals])
            >>> max(blend._asdict(), key=blend._asdict().get)
            'session'
        """
        asked = [k for k, one in enumerate(wanted) if one.any()]
        if len(asked) < FEWEST:
            return None
        rows = np.concatenate([signals[k] for k in asked]).astype(np.float64)
        done = np.concatenate([wanted[k] for k in asked])
        sizes = np.array([len(wanted[k]) for k in asked])
        first = np.cumsum(sizes) - sizes

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            scores = rows @ weights + rows[:, 0]
            scores -= np.repeat(np.maximum.reduceat(scores, first), sizes)
            chance = np.exp(scores)
            chance /= np.repeat(np.add.reduceat(chance, first), sizes)
            found = np.maximum(np.add.reduceat(chance * done, first), SMALLEST)
            value = RIDGE * weights @ weights - np.log(found).mean()
            rest = chance * (1 - done / np.repeat(found, sizes))
            return float(value), rest @ rows / len(asked) + 2 * RIDGE * weights

        from scipy.optimize import minimize  # slow to import, and a service does not need it

        return cls(*minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x.tolist())


def repeat_signals(
    repeated: NDArray[np.float32], own: OwnItems, items: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the signals of what the user did on some items, and of how often users come back to them.

    Args:
        repeated: See `Stored`. Of items that it does not hold nothing is known.
        own: The user's items.
        items: By index. Shape (B,).

    Returns:
        Shape (B, 3).
    """
    out, at = np.zeros((len(items), 3)), np.searchsorted(own.all, items)
    there = np.flatnonzero(at < len(own.all))
    there = there[own.all[at[there]] == items[there]]
    out[there, :2] = np.log1p(np.stack([own.events, own.recent_events], axis=1)[at[there]])
    out[:, 2] = np.log(take(repeated, items, REPEATED))
    return out


def link_signals(
    links: ItemLinks, fresh: NDArray[np.float32], own: OwnItems, items: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the signals of links from a user's latest items, and from those of the last day, to some items.

    Args:
        links: Item-to-item links. Items that they do not know have none.
        fresh: How active each item is of late. Shape (I,).
        own: The user's items.
        items: By index, each once. Shape (B,).

    Returns:
        Shape (B, 2).
    """
    known = own.latest < len(links.indptr) - 1
    today = np.where(own.age < DAY, own.weight, 0)
    weights = np.stack([own.weight, today], axis=1)[known].astype(np.float64)
    key = free_places(2 * len(items), np.int32)
    return np.log(FLOOR + _sum_links(links, fresh, own.latest[known], weights, items, key))


@kernel("key")
def _sum_links(links, fresh, seeds, weights, items, key):  # pragma: no cover - compiled
    """Add up links to some items, which are found in a hash table."""
    row_at, total = np.empty(len(key), np.int32), np.zeros((len(items), weights.shape[1]))
    for row in range(len(items)):
        at = place_of(key, items[row])
        key[at], row_at[at] = items[row], row
    for k in range(len(seeds)):
        for e in range(links.indptr[seeds[k]], links.indptr[seeds[k] + 1]):
            item = links.item[e]
            at = place_of(key, item)
            if key[at] >= 0:
                for column in range(weights.shape[1]):
                    total[row_at[at], column] += weights[k, column] * links.weight[e] * fresh[item]
    return total
