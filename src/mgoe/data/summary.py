"""What prepared data hold, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings
from mgoe.data.examples import Split, Tally
from mgoe.data.schema import Log
from mgoe.data.windows import moment_of


def summarise(
    settings: RunSettings,
    log: Log,
    counted: Mapping[str, Any],
    cuts: NDArray[np.int32],
    tallies: Mapping[Split, Tally],
) -> dict[str, Any]:
    """Counts of the log and of each split; what a recalibration of sampled negatives needs is taken from train.

    `negatives_per_positive`: examples without any task done for each with one.
    `positives_per_user_bucket`: positive examples of a user in a bucket in which there is any.
    """
    train = tallies["train"]
    return {
        "form": settings.form,
        "rows": log.rows,
        "dropped_rows": log.dropped,
        **counted,
        "bucket": settings.data.bucket,
        "cuts": [moment_of(int(cut) + 1, settings.data.bucket) for cut in cuts],
        "splits": {split: _describe(tally, settings) for split, tally in tallies.items()},
        "negatives_per_positive": (train.examples - train.positives) / max(1, train.positives),
        "positives_per_user_bucket": train.positives / max(1, train.user_buckets),
        "warnings": [*_warnings(settings, tallies), *_few_negatives(settings, train)],
    }


def _describe(tally: Tally, settings: RunSettings) -> dict[str, Any]:
    tasks = {
        name: {"labels": int(tally.labels[t]), "positives": int(tally.done[t])}
        for t, name in enumerate(settings.task_names)
    }
    return {
        "examples": tally.examples,
        "positives": tally.positives,
        "negatives": tally.examples - tally.positives,
        "user_buckets": tally.user_buckets,
        "history_age": tally.age / max(1, tally.examples),
        "tasks": tasks,
    }


def _warnings(settings: RunSettings, tallies: Mapping[Split, Tally]) -> list[str]:
    """Tasks that a split cannot teach or measure: its labels are all the same there."""
    found = []
    for split, tally in tallies.items():
        for t, task in enumerate(settings.tasks):
            if task.kind == "binary" and tally.done[t] in (0, tally.labels[t]):
                found.append(
                    f"task {task.name} has {tally.done[t]} positives among {tally.labels[t]} labels in {split}"
                )
    return found


def _few_negatives(settings: RunSettings, train: Tally) -> list[str]:
    """Whether buckets are so short that few of the negatives that are asked for could be drawn from them."""
    wanted, drawn = (
        settings.negatives.of_training.ratio,
        (train.examples - train.positives) / max(1, train.positives),
    )
    if settings.form == "exposures" or drawn >= wanted / 2:
        return []
    return [
        f"only {drawn:.2g} negatives a positive were drawn in train, of {wanted} wanted; a longer data.bucket has more users to draw from"
    ]
