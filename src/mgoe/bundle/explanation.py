"""What carried a score: the weights that the model gave, and what is known of the user and the item.

Axes: `K` macro nodes, `R` recent neighbours, `T` tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.pair_rows import SIDES, Side

GROUPS = ("aggregates", "recents")
"""Input groups that an explanation shows."""
MACRO_NODES = 8
"""Macro nodes that are named per aggregate."""
ORDERS = ("u1", "u2", "i1", "i2")

Ids = Callable[[Side, NDArray[np.int64]], list[Any]]
"""Returns the ids of indices of one side."""


def explain_user(known: Mapping[str, NDArray], tasks: Sequence[str], ids: Ids) -> dict[str, Any]:
    """Return what is known of a user.

    Args:
        known: The row of the user, by key of `GROUPS`.
        tasks: Names of the tasks.
        ids: Ids of indices.
    """
    return {
        "user_macro": int(known["user_macro"]),
        "item_macro": None,
        "tasks": None,
        "item_edges": None,
        "user_edges": _edges(known["u1"]),
        "recents": {"items": _recents(known, tasks, ids, "item", None), "users": []},
    }


def explain_pair(
    known: Mapping[str, NDArray],
    tasks: Sequence[str],
    ids: Ids,
    scores: NDArray[np.floating],
    weights: Mapping[str, NDArray],
) -> dict[str, Any]:
    """Return what carried the score of a pair.

    Args:
        known: The row of the pair, by key of `GROUPS`.
        tasks: Names of the tasks.
        ids: Ids of indices.
        scores: Shape (T,).
        weights: What the model gave, see `RankingModel.explain`.
    """
    gates = weights.get("gates")
    macro = {order: _heaviest(weights[order], known[order]) for order in ORDERS if order in weights}
    return explain_user(known, tasks, ids) | {
        "item_macro": int(known["item_macro"]),
        "tasks": dict(zip(tasks, scores.tolist(), strict=True)),
        "gates": None if gates is None else dict(zip(tasks, map(_by_expert, gates), strict=True)),
        "macro": macro or None,
        "item_edges": _edges(known["i1"]),
        "recents": {
            f"{side}s": _recents(known, tasks, ids, side, weights.get(f"recent_{side}s")) for side in SIDES
        },
    }


def _edges(logs: NDArray) -> list[dict[str, float]]:
    """Return the scores of the edges that exist, strongest first, from log1p (K,)."""
    scores = np.expm1(logs.astype(np.float64))
    order = np.argsort(-scores, kind="stable")
    return [{"node": int(k), "score": round(float(scores[k]), 4)} for k in order if scores[k] > 0]


def _heaviest(weights: NDArray, logs: NDArray) -> list[dict[str, float]]:
    """Return the macro nodes with the largest weights (K,), with their edges from log1p (K,)."""
    order = [int(k) for k in np.argsort(-weights, kind="stable")[:MACRO_NODES] if weights[k] > 0]
    return [{"node": k, "weight": float(weights[k]), "edge": float(np.expm1(logs[k]))} for k in order]


def _by_expert(weights: NDArray) -> dict[str, float]:
    """Return weights by the number of the expert, from 1."""
    return {str(number): weight for number, weight in enumerate(weights.tolist(), 1)}


def _recents(
    known: Mapping[str, NDArray], tasks: Sequence[str], ids: Ids, side: Side, weights: NDArray | None
) -> list[dict[str, Any]]:
    """Return recent neighbours of one side, newest first, with their weights (R,) if the model has any."""
    indices, masks = known[f"recent_{side}s"], known[f"recent_{side}s_task_mask"]
    exist = indices >= 0
    own: Sequence[float | None] = [None] * int(exist.sum()) if weights is None else weights[exist].tolist()
    return [
        {"id": id, "tasks": [task for t, task in enumerate(tasks) if mask >> t & 1], "weight": weight}
        for id, mask, weight in zip(ids(side, indices[exist]), masks[exist].tolist(), own, strict=True)
    ]
