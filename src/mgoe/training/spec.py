"""What a model must know of its data before it is made: sizes, and the moments of every dense input."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mgoe.config import TaskSettings
from mgoe.errors import TrainingError
from mgoe.features import GROUPS, CategoricalSpec, FeatureSpec, TaskSpec
from mgoe.training.feed import Feed, some_rows

if TYPE_CHECKING:
    from mgoe.data import ExampleFile, FeatureEncoders, Prepared
    from mgoe.graph import MacroGraph

MOMENT_ROWS = 200_000
"""Training examples that means and deviations are estimated from."""


def make_spec(prepared: Prepared, graph: MacroGraph, needs: Collection[str] = GROUPS) -> FeatureSpec:
    """The specification of data that models are made for.

    Moments come from training examples alone. A user or item that the log holds only after them has no row
    of its own in the embedding
    tables: it reads the row of the unseen, in evaluation as in service. One of the history alone has a row,
        which no example moves.

    Args:
        prepared: Examples, side features and sizes.
        graph: Snapshots of the same data.
        needs: Input groups whose widths and moments are wanted; all that have any by default.

    Raises:
        TrainingError: There is no training example.
    """
    examples = prepared.streamed("train")
    if len(examples) == 0:
        raise TrainingError(
            "training examples",
            "there must be at least one, found none; widen the time range or move split.cuts",
        )
    labels, positions = _scan(examples)
    known = len(prepared.cuts) - 2  # the snapshot that holds every training window
    latest = graph.snapshots[-1]
    spec = FeatureSpec(
        tasks=_tasks(prepared, labels),
        n_users=int(prepared.users_at[known]),
        n_items=int(prepared.items_at[known]),
        macro_users=latest.macro_users,
        macro_items=latest.macro_items,
        recents=graph.meta["settings"]["recents"],
        widths={},
        moments={},
        user_side=_categories(prepared.user_side.encoders),
        item_side=_categories(prepared.item_side.encoders),
        context=_categories(prepared.context_features),
        positions=positions,
        task_mask_scores=tuple(graph.task_mask_scores),
    )
    rows = some_rows(len(examples), MOMENT_ROWS, 0)
    keys = {name: [key.name for key in GROUPS[name].keys(spec) if key.kind == "dense"] for name in GROUPS}
    read = frozenset(name for name in needs if keys[name])
    sample = Feed(prepared, graph, examples, read, spec).block(rows)
    dense = {key: sample[key].double() for name in GROUPS for key in keys[name] if key in sample}
    return replace(
        spec,
        widths={key: values.shape[1] for key, values in dense.items()},
        moments={
            key: (tuple(values.mean(0).tolist()), tuple(values.std(0, correction=0).tolist()))
            for key, values in dense.items()
        },
    )


def _scan(examples: ExampleFile) -> tuple[Moments, int]:
    """Moments of the labels, and how many positions there are (0 where the log has none), in one pass."""
    moments, positions = Moments(), 0
    for part in examples.parts():
        moments.add(part.labels)
        if part.position is not None and len(part):
            positions = max(positions, int(part.position.max()) + 1)
    return moments, positions


def _tasks(prepared: Prepared, labels: Moments) -> tuple[TaskSpec, ...]:
    settings = [TaskSettings.model_validate(task) for task in prepared.settings["tasks"]]
    names = [task.name for task in settings]
    return tuple(
        TaskSpec(
            name=task.name,
            kind=task.kind,
            weight=task.weight,
            given=None if task.given is None else names.index(task.given),
            **(labels.of(t) if task.kind == "regression" else {}),
        )
        for t, task in enumerate(settings)
    )


class Moments:
    """Mean and deviation of columns that come in parts, missing values aside."""

    def __init__(self) -> None:
        self._count: np.ndarray | float = 0.0
        self._mean: np.ndarray | float = 0.0
        self._square: np.ndarray | float = 0.0

    def add(self, rows: np.ndarray) -> None:
        """Take further rows, (n, T), into account (Chan's update)."""
        known = ~np.isnan(rows)
        count = known.sum(0)
        values = np.where(known, rows, 0).astype(np.float64)
        mean = values.sum(0) / np.maximum(count, 1)
        square = (np.where(known, values - mean, 0) ** 2).sum(0)
        whole = np.maximum(self._count + count, 1)
        shift = mean - self._mean
        self._square = self._square + square + shift**2 * self._count * count / whole
        self._mean = self._mean + shift * count / whole
        self._count = self._count + count

    def of(self, column: int) -> dict[str, float]:
        """`mean` and `std`; nothing where every value is missing."""
        count, mean, square = (np.asarray(part)[column] for part in (self._count, self._mean, self._square))
        return {"mean": float(mean), "std": float(np.sqrt(square / count)) or 1.0} if count else {}


def _categories(encoders: FeatureEncoders) -> tuple[CategoricalSpec, ...]:
    return tuple(
        CategoricalSpec(feature.name, encoders.sizes[feature.name], multi=feature.kind == "multi")
        for feature in encoders.features
        if feature.kind != "numeric"
    )
