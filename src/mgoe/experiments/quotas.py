"""Quotas of the generators of candidates, chosen on validation."""

import numpy as np

from mgoe.config import RunSettings
from mgoe.data import Prepared
from mgoe.features import View
from mgoe.retrieval import Retrieval, best_quotas

USERS = 2000
"""Users of the validation window, at most, whose items are to be found."""
LEAST: dict[str, float] = {"recent": 0.04, "popular": 0.02, "unseen": 0.06}
"""Shares of the candidates that are not chosen, of generators with a default quota: new items and unknown
users are rare on validation, and nothing else serves them."""


def chosen_quotas(
    retrieval: Retrieval, view: View, settings: RunSettings, prepared: Prepared, n: int
) -> dict[str, int] | None:
    """Return the quotas of n candidates that find most of what users do in the validation window.

    Every user counts the same.

    Args:
        retrieval: Lists as of the snapshot before the window.
        view: Of this snapshot.
        settings: Of the run.
        prepared: The log.
        n: Number of candidates.

    Returns:
        None if nobody does anything.
    """
    valid, binary = prepared.streamed("valid"), [task.kind == "binary" for task in settings.tasks]
    done = (np.nan_to_num(valid.labels[:, binary]) > 0).any(axis=1)
    wanted = np.unique(np.stack([valid.user[done], valid.column("item")[done]]), axis=1)
    users = np.unique(wanted[0])
    if not len(users):
        return None
    users = np.sort(np.random.default_rng(0).permutation(users)[:USERS])
    found, weights = list[dict[str, np.ndarray]](), []
    for user in users.tolist():
        items = wanted[1, slice(*np.searchsorted(wanted[0], [user, user + 1]))]
        lists = retrieval.generate(view, user, n)
        found.append({name: _places(items, one, n) for name, one in lists.items()})
        weights.append(np.full(len(items), 1 / len(items)))
    places = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    least = {name: int(np.ceil(share * n)) for name, share in LEAST.items() if name in retrieval.quotas}
    best = best_quotas(places, np.concatenate(weights), max(n - sum(least.values()), 1))
    return {name: quota + least.get(name, 0) for name, quota in best.items()}


def _places(items: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """Return the place of each item in a list, n for those that are not in it."""
    same = items[:, None] == found
    return np.where(same.any(axis=1), same.argmax(axis=1), n) if len(found) else np.full(len(items), n)
