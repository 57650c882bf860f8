"""What a model must know of its data: tasks, sizes and moments, never the data themselves."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Literal

from pydantic import TypeAdapter

from mgoe.graph.pair_rows import Side


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One task: what its label is, and how much its loss weighs.

    Example:
        >>> TaskSpec("stay", kind="regression", mean=25.0, std=10.0).weight
        1.0
    """

    name: str
    kind: Literal["binary", "regression"] = "binary"
    weight: float = 1.0
    given: int | None = None
    """Number of the task that must be done for this label to count. The labels are NaN elsewhere, so the
    prediction is conditional."""
    mean: float = 0.0
    std: float = 1.0
    """Moments of the label over the training examples."""
    top: float = math.inf
    """Largest label of a regression that counts, see `mgoe._util.arrays.fence`: larger ones are taken for it
    in training, and no prediction exceeds it."""


@dataclasses.dataclass(frozen=True)
class CategoricalSpec:
    """A categorical feature with values `[0, size)`, 0 for the unknown; `multi` holds several per row, padded
    with -1. A `rare` one has few training rows per value, so that its embedding overfits as ids do.

    Example:
        >>> CategoricalSpec("device", size=4).multi
        False
    """

    name: str
    size: int
    multi: bool = False
    rare: bool = False


@dataclasses.dataclass(frozen=True)
class RateSpec:
    """A group of exposures: its name, the name and side of each axis, and whether it has adjusted rates."""

    name: str
    axes: tuple[tuple[str, str], ...]
    adjusted: bool = False

    def width(self, tasks: int) -> int:
        """Return the number of its columns."""
        return 1 + tasks * (1 + self.adjusted)


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Names, sizes and moments of everything that a batch can hold.

    `widths` and `moments` (mean, std) are keyed by the names of dense batch keys. An absent width is 0, and
    absent moments leave values as they are.

    Example:
        >>> FeatureSpec.from_json(spec.to_json()) == spec
        True
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
    rates: tuple[RateSpec, ...] = ()
    """Groups of exposures; none for a log of events."""
    task_mask_scores: tuple[float, ...] = ()
    """Merging score of each task mask. Shape (2^T,)."""

    def size(self, side: Side) -> int:
        """Return the rows of a side's embedding tables, less the one for unknown nodes."""
        return self.n_users if side == "user" else self.n_items

    def to_json(self) -> str:
        """Return the specification as JSON that restores every float exactly."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        """Restore what `to_json` wrote."""
        return TypeAdapter(cls).validate_json(text)
