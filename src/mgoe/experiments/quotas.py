"""Quotas of the generators of candidates, chosen on validation."""

import tempfile
from pathlib import Path

import numpy as np

from mgoe.config import RetrievalSettings, RunSettings
from mgoe.data import Prepared
from mgoe.features import View
from mgoe.graph import MacroGraph
from mgoe.retrieval import Retrieval, best_quotas

USERS = 2000
"""Users of the validation window, at most, whose items are to be found."""
LEAST = {"recent": 0.04, "popular": 0.02}
"""Shares of the candidates that are not chosen: new items and unknown users are rare on validation, and
nothing else serves them."""


def with_quotas(
    how: RetrievalSettings, settings: RunSettings, prepared: Prepared, graph: MacroGraph
) -> RetrievalSettings:
    """Return settings whose quotas find most of what users do in the validation window.

    Lists are computed from the snapshot before it. Every user counts the same. Quotas that are given stay.
    """
    valid, binary = prepared.streamed("valid"), [task.kind == "binary" for task in settings.tasks]
    done = (np.nan_to_num(valid.labels[:, binary]) > 0).any(axis=1)
    wanted = np.unique(np.stack([valid.user[done], valid.column("item")[done]]), axis=1)
    users = np.unique(wanted[0])
    if how.quotas is not None or not len(users):
        return how
    users = np.sort(np.random.default_rng(0).permutation(users)[:USERS])
    view, n = View.of(graph.snapshots[prepared.valid_window]), how.candidates
    found, weights = list[dict[str, np.ndarray]](), []
    with tempfile.TemporaryDirectory(prefix="mgoe-") as folder:
        retrieval = Retrieval.build(view, Path(folder) / "retrieval", how)
        for user in users.tolist():
            items = wanted[1, slice(*np.searchsorted(wanted[0], [user, user + 1]))]
            lists = retrieval.generate(view, user, n)
            found.append({name: _places(items, one, n) for name, one in lists.items()})
            weights.append(np.full(len(items), 1 / len(items)))
    places = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    least = {name: int(np.ceil(share * n)) for name, share in LEAST.items()}
    best = best_quotas(places, np.concatenate(weights), max(n - sum(least.values()), 1))
    quotas = {name: quota + least.get(name, 0) for name, quota in best.items()}
    return how.model_copy(update={"quotas": quotas})


def _places(items: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """Return the place of each item in a list, n for those that are not in it."""
    same = items[:, None] == found
    return np.where(same.any(axis=1), same.argmax(axis=1), n) if len(found) else np.full(len(items), n)
