"""What a fit comes to, and what it cannot do without: said alike of networks and of boosted trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mgoe.errors import TrainingError
from mgoe.training.feed import Feed
from mgoe.training.monitor import Monitor, measure

CURVES = "curves.json"


@dataclass(frozen=True)
class FitResult:
    """What a fit came to. The model itself holds the best weights, and so does `model.safetensors`."""

    monitor: str
    best_epoch: int
    """From 1."""
    best_value: float
    epochs: int
    """Done, of those in the settings."""
    seconds: float
    """All of it, validation included."""
    cpu_seconds: float
    """Processor time of the same, over all threads of this process."""
    samples_per_second: float
    """Training alone."""
    precision: str
    device: str
    curves: list[dict[str, Any]]
    """One entry an epoch, as in `curves.json`."""


def check_examples(monitor: Monitor, train: Feed, valid: Feed) -> None:
    """Refuse before training what could not be trained on, or not be measured after it.

    Raises:
        TrainingError: There are no examples, or the monitor is not defined on validation.
    """
    for place, feed in (("training examples", train), ("validation examples", valid)):
        if len(feed) == 0:
            raise TrainingError(
                place, "there must be at least one, found none; widen the time range or move split.cuts"
            )
    labels = valid.examples.labels
    if np.isnan(
        monitor.value(measure(valid.spec.tasks, labels, np.full_like(labels, 0.5), valid.examples.user))
    ):
        raise TrainingError(
            "training.monitor",
            f"{monitor.text!r} is not defined on validation: no monitored task has both labels there; choose another or move split.cuts",
        )
