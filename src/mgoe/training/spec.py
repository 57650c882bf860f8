"""What a model must know of its data before it is made: sizes, and the moments of every dense input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mgoe.config import InputGroup, TaskSettings
from mgoe.errors import TrainingError
from mgoe.models import DENSE_KEYS, CategoricalSpec, FeatureSpec, TaskSpec
from mgoe.training.feed import Feed

if TYPE_CHECKING:
    from mgoe.data import Examples, FeatureEncoders, Prepared
    from mgoe.graph import MacroGraph

MOMENT_ROWS = 200_000
"""Training examples that means and deviations are estimated from."""


def make_spec(prepared: Prepared, graph: MacroGraph, needs: frozenset[InputGroup] = frozenset(DENSE_KEYS), seed: int = 0) -> FeatureSpec:
    """The specification of data that models are made for.

    Moments and sizes come from training examples alone. A user or item that appears only after them has no row of its own in the
    embedding tables: it reads the row of the unseen, in evaluation as in service.

    Args:
        prepared: Examples, side features and sizes.
        graph: Snapshots of the same data.
        needs: Input groups whose widths and moments are wanted; all that have any by default.
        seed: Of the sample of training examples.

    Raises:
        TrainingError: There is no training example.
    """
    examples = prepared.examples("train")
    if len(examples) == 0:
        raise TrainingError("training examples", "there must be at least one, found none; widen the time range or move split.cuts")
    known = len(prepared.cuts) - 2  # the snapshot that holds every training window
    latest = graph.snapshots[-1]
    spec = FeatureSpec(
        tasks=_tasks(prepared, examples),
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
        positions=0 if examples.position is None else int(examples.position.max()) + 1,
        code_scores=tuple(graph.code_scores),
    )
    rows = np.sort(np.random.default_rng(seed).permutation(len(examples))[:MOMENT_ROWS])
    sample = Feed(prepared, graph, examples, needs & DENSE_KEYS.keys(), spec).block(rows)
    dense = {key: sample[key].double() for keys in DENSE_KEYS.values() for key in keys if key in sample}
    return replace(
        spec,
        widths={key: values.shape[1] for key, values in dense.items()},
        moments={key: (tuple(values.mean(0).tolist()), tuple(values.std(0, correction=0).tolist())) for key, values in dense.items()},
    )


def _tasks(prepared: Prepared, examples: Examples) -> tuple[TaskSpec, ...]:
    settings = [TaskSettings.model_validate(task) for task in prepared.settings["tasks"]]
    names = [task.name for task in settings]
    return tuple(
        TaskSpec(
            name=task.name,
            kind=task.kind,
            weight=task.weight,
            given=None if task.given is None else names.index(task.given),
            **(_label_moments(examples.labels[:, t]) if task.kind == "regression" else {}),
        )
        for t, task in enumerate(settings)
    )


def _label_moments(labels: np.ndarray) -> dict[str, float]:
    known = labels[~np.isnan(labels)].astype(np.float64)
    return {"mean": float(known.mean()), "std": float(known.std()) or 1.0} if len(known) else {}


def _categories(encoders: FeatureEncoders) -> tuple[CategoricalSpec, ...]:
    return tuple(
        CategoricalSpec(feature.name, encoders.sizes[feature.name], multi=feature.kind == "multi")
        for feature in encoders.features
        if feature.kind != "numeric"
    )
