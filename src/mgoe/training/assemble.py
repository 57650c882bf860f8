"""Examples to model inputs: what a model reads of pairs that share one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from mgoe.data import SideFeatures
    from mgoe.models import FeatureSpec

Arrays = dict[str, np.ndarray]


class Graph(Protocol):
    """A snapshot, or what has become of one."""

    def gather(self, users: np.ndarray, items: np.ndarray, groups: Iterable[str]) -> Arrays: ...


def assemble(
    snapshot: Graph,
    users: np.ndarray,
    items: np.ndarray,
    context: Mapping[str, np.ndarray],
    *,
    needs: frozenset[str],
    spec: FeatureSpec,
    user_side: SideFeatures,
    item_side: SideFeatures,
) -> Arrays:
    """Inputs of pairs that read one snapshot, in training and at prediction alike. No label passes here.

    Args:
        snapshot: The graph before all of these pairs.
        users: User codes, -1 where unseen. Shape (B,).
        items: Item codes, -1 where unseen. Shape (B,).
        context: Encoded context features, each (B, ...).
        needs: Groups the model reads; others are not gathered.
        spec: Says which ids have a row in the tables; the rest share the row of the unseen.
        user_side: Encoded features by user code.
        item_side: Encoded features by item code.

    Returns:
        Arrays by the names of a model's batch, each with B rows.
    """
    inputs: Arrays = snapshot.gather(users, items, needs)
    inputs["user"] = table_rows(users, spec.n_users)
    inputs["item"] = table_rows(items, spec.n_items)
    if "recents" in needs:
        for name, size in (("recent_items", spec.n_items), ("recent_users", spec.n_users)):
            inputs[name] = np.minimum(inputs[name], size)
    if "side" in needs:
        inputs |= _named("user_side", user_side.gather(users)) | _named("item_side", item_side.gather(items))
    if "context" in needs:
        inputs |= _named("context", context)
    return inputs


def table_rows(codes: np.ndarray, size: int) -> np.ndarray:
    """Rows of an embedding table with `size` known nodes; the last row, `size`, is of the unseen. Shape (B,)."""
    return np.where((codes < 0) | (codes >= size), size, codes).astype(np.int64, copy=False)


def _named(prefix: str, features: Mapping[str, Any]) -> Arrays:
    return {
        f"{prefix}_numeric" if name == "numeric" else f"{prefix}.{name}": values
        for name, values in features.items()
    }
