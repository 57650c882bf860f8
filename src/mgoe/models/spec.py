"""What a model must know of its data: tasks, sizes and moments, never the data themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any, Literal, TypeAlias

from torch import Tensor

from mgoe.config import InputGroup

Batch: TypeAlias = dict[str, Tensor]

DENSE_KEYS: dict[InputGroup, tuple[str, ...]] = {
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
_INDEX_KEYS: dict[InputGroup, tuple[str, ...]] = {
    "aggregates": ("table_user", "table_item"),
    "recents": _RECENTS,
}


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One task: what its label is, and how much its loss weighs."""

    name: str
    kind: Literal["binary", "regression"] = "binary"
    weight: float = 1.0
    given: int | None = None
    """Number of the task that must be done for this label to count; its labels are NaN elsewhere, so its prediction is conditional."""
    mean: float = 0.0
    std: float = 1.0
    """Moments of a regression label over training examples."""


@dataclasses.dataclass(frozen=True)
class CategoricalSpec:
    """A categorical feature with codes `[0, size)`, 0 for the unknown; `multi` holds several a row, padded with -1."""

    name: str
    size: int
    multi: bool = False


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Names, sizes and moments of everything a batch can hold.

    `widths` and `moments` (mean, std) are keyed by the names in `DENSE_KEYS`; an absent width is 0, and absent moments leave values
    as they are.
    """

    tasks: tuple[TaskSpec, ...]
    n_users: int
    n_items: int
    macro_users: int
    macro_items: int
    recents: int
    widths: dict[str, int]
    moments: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    user_side: tuple[CategoricalSpec, ...] = ()
    item_side: tuple[CategoricalSpec, ...] = ()
    context: tuple[CategoricalSpec, ...] = ()
    positions: int = 0
    """Shown positions `[0, positions)`; 0 where none is recorded."""
    task_mask_scores: tuple[float, ...] = ()
    """Merging score by task code. Shape (2^T,)."""

    def to_json(self) -> str:
        """As JSON; floats are written so that they come back the same."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        """The inverse of `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        raw["tasks"] = tuple(TaskSpec(**task) for task in raw["tasks"])
        for kind in ("user_side", "item_side", "context"):
            raw[kind] = tuple(CategoricalSpec(**feature) for feature in raw[kind])
        raw["moments"] = {key: (tuple(mean), tuple(std)) for key, (mean, std) in raw["moments"].items()}
        raw["task_mask_scores"] = tuple(raw["task_mask_scores"])
        return cls(**raw)


def batch_keys(spec: FeatureSpec, groups: Collection[InputGroup]) -> list[str]:
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
