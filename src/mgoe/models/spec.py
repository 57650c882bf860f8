"""What a model must know of its data: tasks, sizes and moments, never the data themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from torch import Tensor

from mgoe.features import CategoricalSpec, FeatureSpec, TaskSpec

__all__ = ["DENSE_KEYS", "Batch", "CategoricalSpec", "FeatureSpec", "TaskSpec", "batch_keys"]


Batch: TypeAlias = dict[str, Tensor]

DENSE_KEYS: dict[str, tuple[str, ...]] = {
    "side": ("user_side_numeric", "item_side_numeric"),
    "context": ("context_numeric",),
    "counts": ("counts",),
    "pair": ("pair",),
    "sketch": ("sketch",),
    "edges": ("edges",),
    "aggregates": ("u1", "u2", "i1", "i2"),
}
"""Batch keys of the dense float features of each input group; the other groups have none."""


_RECENTS = tuple(
    f"recent_{nodes}{kind}" for nodes in ("items", "users") for kind in ("", "_task_mask", "_macro")
)
_INDEX_KEYS: dict[str, tuple[str, ...]] = {
    "aggregates": ("table_user", "table_item"),
    "recents": _RECENTS,
}


def batch_keys(spec: FeatureSpec, groups: Collection[str]) -> list[str]:
    """Keys of a batch that holds some input groups; the codes of nodes and of their macro nodes are always there."""
    keys = ["user", "item", "user_macro", "item_macro"]
    for group in groups:
        keys += [key for key in DENSE_KEYS.get(group, ()) if spec.widths.get(key) or group == "aggregates"]
        keys += _INDEX_KEYS.get(group, ())
    if "side" in groups:
        keys += [
            f"{kind}.{feature.name}" for kind in ("user_side", "item_side") for feature in getattr(spec, kind)
        ]
    if "context" in groups:
        keys += [f"context.{feature.name}" for feature in spec.context]
    return keys
