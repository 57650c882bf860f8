"""What all metrics share: the task they measure, rows that have a label, ranks, and means of what exists."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Task(Protocol):
    """A task by its name and its kind, `binary` or `regression`.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> task: Task = TaskSettings(name="buy")
        >>> task.kind
        'binary'
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


def labelled(labels: ArrayLike, *columns: ArrayLike) -> list[NDArray]:
    """Return the labels and further columns of the rows that have a label. Shape (N,) each."""
    keep = ~np.isnan(np.asarray(labels))
    return [np.asarray(column)[keep] for column in (labels, *columns)]


def mean_ranks(values: NDArray) -> NDArray[np.float64]:
    """Return the rank of each value, from 1; equal ones share their mean rank. Shape (N,)."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are numbers; NaN if none is (ours).

    Example:
        >>> mean_defined([1.0, float("nan"), 2.0])
        1.5
    """
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else np.nan
