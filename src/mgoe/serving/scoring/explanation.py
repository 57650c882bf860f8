"""What carried a score: the weights that the model gave, and what is known of the user and the item.

Axes: `K` macro nodes, `R` recent neighbours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.features import View, read
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.serving.events.event import Id
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.scoring.engine import Engine

MACRO_NODES = 8
"""Macro nodes that are named per aggregate."""
NEIGHBOURS = 20
"""Live neighbours that are named."""
ORDERS = ("u1", "u2", "i1", "i2")


def explain(engine: Engine, user: Id, item: Id | None, context: Mapping[str, Any]) -> dict[str, Any]:
    """Explain the score of a pair.

    Args:
        engine: What scores.
        user, item: Ids; without an item, what is known of the user is returned.
        context: As for `encode_context`.

    Returns:
        An `Explanation`.

    Raises:
        RequestError, DataError: The context is wrong.
    """
    live, encoded = engine.live, engine.context(context)
    user_index = int(live.look_up("user", [user])[0])
    item_index = -1 if item is None else int(live.look_up("item", [item])[0])
    with LiveView(View.of(live.snapshot), live).reading() as view:  # what is shown is what is scored
        arrays = read(view, np.array([user_index]), np.array([item_index]), ["aggregates", "recents"])
        known = {name: values[0] for name, values in arrays.items()}
        found: dict[str, Any] = {
            "user": user, "item": item, "bundle": engine.name,
            "user_macro": int(known["user_macro"]), "item_macro": None, "tasks": None, "item_edges": None,
            "user_edges": _edges(known["u1"]),
            "recents": {"items": _recents(engine, known, "item", None), "users": []},
            "live": {"user": _changes(engine, "user", user_index)},
        }  # fmt: skip
        if item is None:
            return found
        scores = engine.scorer.score(user_index, np.array([item_index]), encoded)[0]
        weights = engine.scorer.weights(user_index, item_index, encoded)
        gates = weights.get("gates")
        macro = {order: _heaviest(weights[order], known[order]) for order in ORDERS if order in weights}
        return found | {
            "item_macro": int(known["item_macro"]),
            "tasks": dict(zip(engine.tasks, scores.tolist(), strict=True)),
            "gates": None if gates is None else dict(zip(engine.tasks, map(_by_expert, gates), strict=True)),
            "macro": macro or None,
            "item_edges": _edges(known["i1"]),
            "recents": {
                f"{side}s": _recents(engine, known, side, weights.get(f"recent_{side}s")) for side in SIDES
            },
            "live": found["live"] | {"item": _changes(engine, "item", item_index)},
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
    engine: Engine, known: Mapping[str, NDArray], side: Side, weights: NDArray | None
) -> list[dict[str, Any]]:
    """Return recent neighbours of one side, newest first, with their weights (R,) if the model has any."""
    indices, masks = known[f"recent_{side}s"], known[f"recent_{side}s_task_mask"]
    exist = indices >= 0
    own: Sequence[float | None] = [None] * int(exist.sum()) if weights is None else weights[exist].tolist()
    return [
        {"id": id, "tasks": [task for t, task in enumerate(engine.tasks) if mask >> t & 1], "weight": weight}
        for id, mask, weight in zip(
            engine.live.ids(side, indices[exist]), masks[exist].tolist(), own, strict=True
        )
    ]


def _changes(engine: Engine, side: Side, index: int) -> dict[str, Any] | None:
    """Return a node's counts before and after live events, edges that moved, and live neighbours; or None."""
    found = engine.live.changes(side, index)
    if not found:
        return None
    before, now = found["edges"]
    edges = [
        {"node": int(k), "before": round(float(before[k]), 4), "now": round(float(now[k]), 4)}
        for k in np.flatnonzero(before != now)
    ]
    numbers = {name: [float(value) for value in found[name]] for name in ("pairs", "events", "score")}
    neighbours = found[f"{OTHER[side]}s"][:NEIGHBOURS]
    return {"new": found["new"], **numbers, "edges": edges, "neighbours": neighbours}
