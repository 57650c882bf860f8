"""The blend: lists are ordered by what the model says together with item-to-item links (ours).

A model is trained to tell a user's items from other popular ones. Which items follow one another, within an
hour or a day, is in the links. So a list adds to the log-odds that a user does anything on an item

    a log-odds(u, i) + b log n(i) + c ln(FLOOR + l(u, i)) + d ln(FLOOR + s(u, i))

where n(i) undoes the sampling of negatives, l(u, i) is the sum of cosine links from the user's latest items
to item i, weighted by what was done and when, and s(u, i) the same from the items of the user's last day
alone. The weights `a` to `d` are likeliest on validation: of a user's candidates, the one that is done is a
draw from their softmax.

Axes: `B` items, `F` signals, `Q` queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.hash_table import free_places, place_of
from mgoe._util.kernels import kernel
from mgoe.graph.latest import DAY
from mgoe.graph.links import ItemLinks
from mgoe.retrieval.history import OwnItems

FLOOR = 0.03
"""Added to a sum of links, so that an item without any is not excluded."""
RIDGE = 1e-3
"""Penalty per query on the weights: few queries stay close to the order of the model."""
FEWEST = 50
"""Queries from which a blend is fitted; fewer say nothing."""


class Blend(NamedTuple):
    """Weights of the signals in what is added to the log-odds of an item.

    Attributes:
        log_odds: Of the log-odds that the user does anything on the item.
        sampling: Of what undoing the sampling of negatives added to them.
        linked: Of links from the user's latest items.
        session: Of links from the items of the user's last day.

    Example:
        >>> Blend(log_odds=0.0, sampling=-0.5, linked=0.0, session=1.0).added(np.ones((2, 4)))
        array([0.5, 0.5])
    """

    log_odds: float
    sampling: float
    linked: float
    session: float

    def added(self, signals: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what is added to the log-odds of items with some signals, (B, F). Shape (B,)."""
        return signals.astype(np.float64) @ np.array(self)

    @classmethod
    def fit(
        cls, signals: Sequence[NDArray[np.floating]], wanted: Sequence[NDArray[np.bool_]]
    ) -> "Blend | None":
        """Return the weights under which wanted items are likeliest. Every query counts the same.

        Args:
            signals: Of the candidates of each query, (B, F). Q arrays.
            wanted: Whether each is done. Q arrays (B,).

        Returns:
            None for fewer than `FEWEST` queries with a wanted candidate.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> signals = [rng.normal(size=(9, 4)) for _ in range(100)]
            >>> blend = Blend.fit(signals, [one[:, 3] == one[:, 3].max() for one in signals])
            >>> max(blend._asdict(), key=blend._asdict().get)
            'session'
        """
        asked = [k for k, one in enumerate(wanted) if one.any()]
        if len(asked) < FEWEST:
            return None
        rows = np.concatenate([signals[k] for k in asked]).astype(np.float64)
        share = np.concatenate([wanted[k] / wanted[k].sum() for k in asked])
        sizes = np.array([len(wanted[k]) for k in asked])
        first = np.cumsum(sizes) - sizes

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            scores = rows @ weights + rows[:, 0]
            scores -= np.repeat(np.maximum.reduceat(scores, first), sizes)
            chance = np.exp(scores)
            total = np.add.reduceat(chance, first)
            scores -= np.repeat(np.log(total), sizes)
            chance /= np.repeat(total, sizes)
            value = -share @ scores / len(asked) + RIDGE * weights @ weights
            return float(value), (chance - share) @ rows / len(asked) + 2 * RIDGE * weights

        from scipy.optimize import minimize  # slow to import, and a service does not need it

        return cls(*minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x.tolist())


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
