"""What carried a score of the service: a bundle's explanation, and what live events have changed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mgoe.bundle.explanation import GROUPS, explain_pair, explain_user
from mgoe.features import View, read
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.serving.events.event import Id
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.scoring.engine import Engine

NEIGHBORS = 20
"""Live neighbours that are named."""


def explain(engine: Engine, user: Id, item: Id | None, context: Mapping[str, Any]) -> dict[str, Any]:
    """Explain the score of a pair.

    Args:
        engine: What scores.
        user, item: Ids; without an item, what is known of the user is returned.
        context: As for `encode_json`.

    Returns:
        An `Explanation`.

    Raises:
        BundleError, DataError: The context is wrong.
    """
    live, encoded = engine.live, engine.context(context)
    user_index = int(live.look_up("user", [user])[0])
    item_index = -1 if item is None else int(live.look_up("item", [item])[0])
    with LiveView(View.of(live.snapshot), live).reading() as view:  # what is shown is what is scored
        arrays = read(view, np.array([user_index]), np.array([item_index]), GROUPS)
        known = {name: values[0] for name, values in arrays.items()}
        named = {"user": user, "item": item, "bundle": engine.name}
        changes = {"user": _changes(engine, "user", user_index)}
        if item is None:
            return named | explain_user(known, engine.tasks, live.ids) | {"live": changes}
        scores = engine.scorer.score(user_index, np.array([item_index]), encoded)[0]
        weights = engine.scorer.weights(user_index, item_index, encoded)
        changes["item"] = _changes(engine, "item", item_index)
        return named | explain_pair(known, engine.tasks, live.ids, scores, weights) | {"live": changes}


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
    neighbors = found[f"{OTHER[side]}s"][:NEIGHBORS]
    return {"new": found["new"], **numbers, "edges": edges, "neighbors": neighbors}
