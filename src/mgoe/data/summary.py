"""Counts of prepared data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings
from mgoe.data.examples import Split
from mgoe.data.windows import moment_of


@dataclass
class Tally:
    """Running counts of the rows of one split.

    Args:
        labels: Labels that are not missing. Shape (T,).
        done: Labels above 0. Shape (T,).
        examples: Rows.
        positives: Rows with a task done.
        user_buckets: Distinct pairs of user and bucket among the positives.
        age: Sum over rows of the buckets between a row and the end of the history that it reads.
    """

    labels: NDArray[np.int64]
    done: NDArray[np.int64]
    examples: int = 0
    positives: int = 0
    user_buckets: int = 0
    age: int = 0
    _last: tuple[int, int] | None = None

    def add(
        self, user: NDArray, bucket: NDArray, labels: NDArray[np.float32], age: NDArray[np.int64]
    ) -> None:
        """Count rows, which are sorted by bucket and user and follow those counted before."""
        self.examples += len(user)
        self.age += int(age.sum())
        self.labels += (~np.isnan(labels)).sum(axis=0)
        self.done += (labels > 0).sum(axis=0)
        positive = (labels > 0).any(axis=1)
        user, bucket = user[positive], bucket[positive]
        if not len(user):
            return
        self.positives += len(user)
        changes = int(((np.diff(user) != 0) | (np.diff(bucket) != 0)).sum())
        self.user_buckets += changes + (self._last != (int(user[0]), int(bucket[0])))
        self._last = int(user[-1]), int(bucket[-1])

    @property
    def negatives(self) -> int:
        """Rows without any task done."""
        return self.examples - self.positives

    def describe(self, tasks: tuple[str, ...]) -> dict[str, Any]:
        """Return the counts by name."""
        return {
            "examples": self.examples,
            "positives": self.positives,
            "negatives": self.negatives,
            "user_buckets": self.user_buckets,
            "history_age": self.age / max(1, self.examples),
            "tasks": {
                name: {"labels": int(self.labels[t]), "positives": int(self.done[t])}
                for t, name in enumerate(tasks)
            },
        }


def summarise(
    settings: RunSettings,
    counted: Mapping[str, Any],
    cuts: NDArray[np.int32],
    tallies: Mapping[Split, Tally],
) -> dict[str, Any]:
    """Return counts of the log and of each split.

    What a recalibration of sampled negatives needs comes from train: `negatives_per_positive`, examples
    without any task done for each with one, and `positives_per_user_bucket`, positive examples of a user in a
    bucket that has any.

    Args:
        settings: Settings of the run.
        counted: Counts of the log.
        cuts: Bucket number of each cut. Shape (n,).
        tallies: Counts of each split.
    """
    train = tallies["train"]
    return {
        "form": settings.form,
        **counted,
        "bucket": settings.data.bucket,
        "cuts": [moment_of(int(cut) + 1, settings.data.bucket) for cut in cuts],
        "splits": {split: tally.describe(settings.task_names) for split, tally in tallies.items()},
        "negatives_per_positive": train.negatives / max(1, train.positives),
        "positives_per_user_bucket": train.positives / max(1, train.user_buckets),
        "warnings": _warnings(settings, tallies),
    }


def _warnings(settings: RunSettings, tallies: Mapping[Split, Tally]) -> list[str]:
    """Name tasks whose labels are all the same in a split, and training data with few negatives."""
    found = [
        f"task {task.name} has {tally.done[t]} positives among {tally.labels[t]} labels in {split}"
        for split, tally in tallies.items()
        for t, task in enumerate(settings.tasks)
        if task.kind == "binary" and tally.done[t] in (0, tally.labels[t])
    ]
    wanted, train = settings.negatives.of_training.ratio, tallies["train"]
    drawn = train.negatives / max(1, train.positives)
    if settings.form == "events" and drawn < wanted / 2:
        found.append(
            f"only {drawn:.2g} negatives per positive were drawn in train, of {wanted} wanted; "
            "a longer data.bucket has more users to draw from"
        )
    return found
