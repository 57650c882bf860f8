"""Examples: the rows that a model trains on or is evaluated on, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mgoe.config import TaskSettings

Split = Literal["train", "valid", "test"]
"""What examples are for."""
SPLITS: tuple[Split, ...] = get_args(Split)
"""All splits, in the order of time."""
Seed = int | Sequence[int]
_EVERY = ("user", "item", "bucket", "snapshot", "labels", "weight")
"""Columns that all examples have."""
_SOME = ("position", "moment")
"""Columns that not all have."""


@dataclass(frozen=True)
class Examples:
    """Rows of one split, sorted by bucket, user and item, positives first.

    Args:
        user: Indices. Shape (N,).
        item: Indices. Shape (N,).
        bucket: Time buckets. int32, shape (N,).
        snapshot: The snapshot whose history each row reads. int16, shape (N,).
        labels: float32, NaN where missing. Shape (N, T).
        weight: float32. Shape (N,).
        context: Encoded context features by name: indices (N,), padded indices (N, L), or float32 (N,).
        position: Shown position, int64, -1 where it is unknown, shape (N,); None where the log has none.
        moment: What each row is read strictly before, microseconds, int64, shape (N,); None where rows read
            up to the cut of their window.

    Example:
        >>> valid = prepared.examples("valid")
        >>> valid.labels.shape == (len(valid), 2)
        True
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    bucket: NDArray[np.int32]
    snapshot: NDArray[np.int16]
    labels: NDArray[np.float32]
    weight: NDArray[np.float32]
    context: dict[str, NDArray] = field(default_factory=dict)
    position: NDArray[np.int64] | None = None
    moment: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray) -> Examples:
        """Return the rows with the given numbers, or where a mask is true."""
        return self.changed(lambda column: column[rows])

    def changed(self, change: Callable[[NDArray], NDArray]) -> Examples:
        """Return the same columns, each changed by a function."""
        return Examples(
            **{name: change(getattr(self, name)) for name in _EVERY},
            context={name: change(values) for name, values in self.context.items()},
            **{name: change(values) for name, values in self._some()},
        )

    def columns(self) -> list[NDArray]:
        """Return every column that is given, always in the same order."""
        return [
            *(getattr(self, name) for name in _EVERY),
            *self.context.values(),
            *(values for _, values in self._some()),
        ]

    def _some(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Return the columns of `_SOME` that are there."""
        return [(name, values) for name in _SOME if (values := getattr(self, name)) is not None]

    def parts(self) -> Iterator[Examples]:
        """Yield all rows in one part, as an `ExampleFile` yields them in several."""
        yield self

    def ordered(
        self, size: int, seed: Seed | None = None, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Examples]:
        """Yield the rows from place `start` of their order on, those of `size` places at a time: as stored,
        or permuted by a seed.

        Args:
            size: Number of places.
            seed: Seed of the order.
            start: Place of the first row.
            share: Rest and divisor of the places whose rows are wanted; where there are none, nothing is
                yielded.
        """
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for first in range(start, len(self), size):
            rows = order[first + (share[0] - first) % share[1] : first + size : share[1]]
            if len(rows):
                yield self.take(rows)


def join(parts: Sequence[Examples]) -> Examples:
    """Return the rows of several examples, one after the other.

    Example:
        >>> valid = prepared.examples("valid")
        >>> len(join([valid, valid])) == 2 * len(valid)
        True
    """
    if len(parts) == 1:
        return parts[0]
    return Examples(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _EVERY},
        context={name: np.concatenate([part.context[name] for part in parts]) for name in parts[0].context},
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name, _ in parts[0]._some()},
    )


def mask_given(labels: NDArray[np.float32], tasks: Sequence[TaskSettings]) -> NDArray[np.float32]:
    """Return labels with NaN outside their task's sample space: where the label of its `given` task is not 1.

    Args:
        labels: Labels of all tasks. Shape (N, T).
        tasks: The tasks; a `given` task comes before those that name it.
    """
    labels = labels.copy()
    names = [task.name for task in tasks]
    for t, task in enumerate(tasks):
        if task.given is not None:
            labels[labels[:, names.index(task.given)] != 1, t] = np.nan
    return labels
