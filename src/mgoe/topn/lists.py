"""Lists: the best items of each user, in a fixed order, with or without what the user knows.

Equal scores are ordered by popularity, most popular first, then by index. So a user about whom a recommender
knows nothing gets popular items, and a list never depends on the machine.

Axes: `Q` users, `I` items, `N` places of a list.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.errors import TrainingError
from mgoe.topn.queries import Events, Queries

Scores = Callable[[NDArray[np.int64]], NDArray[np.floating]]
"""Users (B,) to one score per item (B, I)."""
CELLS = 1 << 23
"""Scores that are held at a time."""


def make_lists(scores: Scores, queries: Queries, n: int) -> NDArray[np.int64]:
    """Return the best items of every user that is asked for.

    Args:
        scores: Of a recommender.
        queries: The users.
        n: Places of a list, N.

    Returns:
        Items by index, best first, -1 where a list ends earlier. Shape (Q, N).
    """
    known, places = queries.events.matrix(), popularity_places(queries.events)
    at_once = max(1, CELLS // queries.events.shape[1])
    found = np.full((len(queries.users), n), -1, np.int64)
    for start in range(0, len(queries.users), at_once):
        users = queries.users[start : start + at_once]
        block = np.array(scores(users), np.float32)
        if queries.hide:
            block[known[users].nonzero()] = -np.inf
        for place, row in enumerate(block, start):
            best = best_items(row, places, n)
            found[place, : len(best)] = best
    return found


def best_items(scores: NDArray[np.floating], places: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the indices of the best scores, best first; those of -inf are left out.

    Args:
        scores: Shape (I,).
        places: Orders equal scores, the smallest first. Shape (I,).
        n: How many at most.

    Raises:
        TrainingError: A score is no number.

    Example:
        >>> best_items(np.array([0.5, 0.9, 0.5, -np.inf]), places=np.array([1, 2, 0, 3]), n=3)
        array([1, 2, 0])
    """
    n = min(n, len(scores))
    if np.isnan(scores).any():
        raise TrainingError("topn", "scores must be numbers, found NaN; narrow the searched settings")
    smallest = torch.topk(torch.from_numpy(scores), n).values[-1].item()  # much faster than NumPy's partition
    least = max(smallest, np.finfo(np.float32).min)
    reached = np.flatnonzero(scores >= least)
    return reached[np.lexsort((places[reached], -scores[reached]))][:n]


def popularity_places(events: Events) -> NDArray[np.int64]:
    """Return the place of each item when all are ordered by their number of events. Shape (I,)."""
    order = np.argsort(-np.bincount(events.item, minlength=events.shape[1]), kind="stable")
    return np.argsort(order)
