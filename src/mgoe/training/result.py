"""The outcome of a fit and its preconditions, for networks and boosted trees alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mgoe.errors import TrainingError
from mgoe.training.feed import Feed
from mgoe.training.monitor import Monitor, measure

CURVES = "curves.json"


@dataclass(frozen=True)
class FitResult:
    """Outcome of a fit. The model holds the best weights, and so does `model.safetensors`."""

    monitor: str
    best_epoch: int
    """Epoch of the best value, from 1."""
    best_value: float
    epochs: int
    """Epochs done, at most those of the settings."""
    seconds: float
    """Time of the fit, validation included."""
    cpu_seconds: float
    """Processor time of the same, over all threads of this process."""
    samples_per_second: float
    """Rate of training, without validation."""
    precision: str
    device: str
    curves: list[dict[str, Any]]
    """One entry per epoch, as in `curves.json`."""


def check_examples(monitor: Monitor, train: Feed, valid: Feed) -> None:
    """Check before training that there are examples, and that the monitor can be measured.

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
            f"{monitor.text!r} is not defined on validation: no monitored task has both labels there; "
            "choose another or move split.cuts",
        )
