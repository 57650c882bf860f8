"""Calibration: probabilities that agree with the newest labels, by one map per task (Platt, 1999).

    p' = sigmoid(slope * logit(p) + intercept)

where the sampling of negatives is undone in p. The slope is positive, so the order within a task stays. Both
numbers maximise the likelihood of the newest labels of a window, given predictions from before the window
entered the history. Undoing the sampling moved the log-odds of each example by a known offset, so a label
among the sampled rows has the log-odds of p' less that offset. A task within a sample space (`given`) is
calibrated within it, and a regression is left alone.

Axes: `N` examples, `B` pairs, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, logit

from mgoe import metrics
from mgoe.bundle.sampling import LARGEST, SMALLEST, shifted_tasks, undo_sampling
from mgoe.config import DataSettings, RunSettings, Settings, TaskSettings
from mgoe.data.times import moment_of

FEWEST, ENOUGH = 30, 300
"""Labels of the rarer kind, positive or not. Below `FEWEST` a task keeps its map, since the standard error of
an intercept would exceed 1 / sqrt(30), 18 %. Below `ENOUGH` it keeps its slope. Where the newest time buckets
of a window hold `ENOUGH`, which is an error of 6 %, older ones are left out, so that the map is of today."""
SLOPES = (0.2, 5.0)
"""Range of the slope. Beyond it a window that is not like others would decide how sure the model is."""


class Agreement(Settings):
    """How far predictions agree with labels; None where it does not exist."""

    predicted_over_observed: float | None = Field(default=None, allow_inf_nan=False)
    """Sum of probabilities over number of positives."""
    calibration_error: float | None = Field(default=None, allow_inf_nan=False)
    """Expected calibration error, see `mgoe.metrics.calibration`."""

    @classmethod
    def of(cls, labels: NDArray[np.floating], probabilities: NDArray[np.floating]) -> Self:
        """Measure one task. Shape (N,) each."""
        found = metrics.calibration(labels, probabilities)
        ratio, error = (float(one) if np.isfinite(one) else None for one in (found.ratio, found.error))
        return cls(predicted_over_observed=ratio, calibration_error=error)


class TaskCalibration(Settings):
    """The map of one task, and what it was fitted on."""

    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    intercept: float = Field(default=0.0, allow_inf_nan=False)
    since: str = ""
    """First time bucket of the labels that it was fitted to; empty without any."""
    positives: int = 0
    """Positive ones among these labels."""
    negatives: int = 0
    before: Agreement = Agreement()
    """How uncalibrated predictions agreed with all labels of the window."""
    after: Agreement = Agreement()
    """How predictions did that were calibrated on the window before; the labels of a window never judge the
    map that they fitted."""


class Calibration(Settings):
    """The maps of the binary tasks by name; without any, probabilities stay as they are."""

    window: tuple[str, str] | None = None
    """First and last time bucket of the labels."""
    tasks: dict[str, TaskCalibration] = Field(default={})

    def numbers(self, tasks: Sequence[TaskSettings]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return slopes and intercepts in the order of tasks; 1 and 0 change nothing. Shape (T,) each."""
        maps = [self.tasks.get(task.name, TaskCalibration()) for task in tasks]
        return np.array([one.slope for one in maps]), np.array([one.intercept for one in maps])


@dataclass(frozen=True)
class Window:
    """Predictions of a window that the history did not hold, and its labels.

    Attributes:
        learned: As the model gives them. Shape (N, T).
        undone: The same with the sampling of negatives undone. Shape (N, T).
        labels: NaN where missing. Shape (N, T).
        buckets: Time buckets. Shape (N,).
        data: How buckets count time.
    """

    learned: NDArray[np.float64]
    undone: NDArray[np.float64]
    labels: NDArray[np.float32]
    buckets: NDArray[np.int32]
    data: DataSettings

    @classmethod
    def of(
        cls,
        predictions: NDArray[np.float32],
        shift: NDArray[np.float32],
        labels: NDArray[np.float32],
        buckets: NDArray[np.int32],
        settings: RunSettings,
    ) -> Self:
        """Make a window of predictions (N, T), see `undo_sampling` for the shift (N,)."""
        tasks = settings.tasks
        binary = np.array([task.kind == "binary" for task in tasks])
        learned = np.where(binary, np.clip(predictions, SMALLEST, LARGEST, dtype=np.float64), predictions)
        undone = undo_sampling(learned, shift, shifted_tasks(tasks))
        return cls(learned, undone, labels, buckets, settings.data)

    def answered(self, tasks: Sequence[TaskSettings], calibration: Calibration) -> NDArray[np.float32]:
        """Return what a service with a calibration answers for the rows. Shape (N, T)."""
        return calibrate(self.undone.astype(np.float32), *calibration.numbers(tasks))

    def start_of(self, bucket: int) -> str:
        """Return when a bucket begins, for people."""
        return moment_of(int(bucket), self.data.bucket, self.data.timezone)

    def newest(self, t: int) -> NDArray[np.bool_]:
        """Return where labels of a task are that count: in the newest buckets with `ENOUGH`, else everywhere.

        Shape (N,).
        """
        labels = self.labels[:, t]
        held = ~np.isnan(labels)
        buckets, number = np.unique(self.buckets[held], return_inverse=True)
        positive = np.bincount(number, labels[held] > 0, len(buckets))[::-1].cumsum()
        every = np.bincount(number, minlength=len(buckets))[::-1].cumsum()
        enough = np.flatnonzero(np.minimum(positive, every - positive) >= ENOUGH)
        return held & (self.buckets >= buckets[-1 - enough[0]]) if len(enough) else held


def calibrate(
    probabilities: NDArray[np.float32], slopes: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Map probabilities (B, T) by task; where slope and intercept are 1 and 0, values stay bit for bit.

    Example:
        >>> calibrate(np.array([[0.5, 0.5]], np.float32), np.array([1.0, 1.0]), np.array([0.0, np.log(3)]))
        array([[0.5 , 0.75]], dtype=float32)
    """
    changed = (slopes != 1) | (intercepts != 0)
    if not changed.any():
        return probabilities
    found = probabilities.copy()
    log_odds = logit(probabilities[:, changed].astype(np.float64))
    found[:, changed] = expit(slopes[changed] * log_odds + intercepts[changed])
    return found


def calibrated_sample(
    window: Window, tasks: Sequence[TaskSettings], calibration: Calibration
) -> NDArray[np.float64]:
    """Return what a calibration predicts for the sampled rows of a window: calibrated, and sampled again.

    Shape (N, T).
    """
    found = window.learned.copy()
    for t, (slope, intercept) in enumerate(zip(*calibration.numbers(tasks), strict=True)):
        if tasks[t].kind == "binary":
            log_odds, offset = _log_odds(window, t)
            found[:, t] = expit(slope * log_odds + intercept - offset)
    return found


def carried_over_losses(
    window: Window, tasks: Sequence[TaskSettings], calibration: Calibration
) -> dict[str, float]:
    """Return what a calibration of other weights or rows costs on a window, by binary task.

    This is the log loss per label that maps of the same form, fitted to all labels of the window itself,
    would save: 0 where the calibration fits as well as any. NaN where labels are too few to tell.
    """
    found = dict[str, float]()
    for t, task in enumerate(tasks):
        if task.kind == "binary":
            labels = window.labels[:, t]
            there = ~np.isnan(labels)
            positive = labels[there] > 0
            log_odds, offset = (values[there] for values in _log_odds(window, t))
            carried = calibration.tasks.get(task.name, TaskCalibration())
            best = _fit(log_odds, offset, positive, carried)
            losses = [
                (np.logaddexp(0, logits) - positive * logits).mean()
                for slope, intercept in ((carried.slope, carried.intercept), best)
                for logits in [slope * log_odds + intercept - offset]
            ]
            rarer = min(positive.sum(), (~positive).sum())
            found[task.name] = float(losses[0] - losses[1]) if rarer >= FEWEST else np.nan
    return found


def fit_calibration(window: Window, tasks: Sequence[TaskSettings], former: Calibration) -> Calibration:
    """Fit the map of each binary task, and measure the former calibration on the same window.

    Args:
        window: Predictions and labels of at least one row.
        tasks: T of them.
        former: What the window before gave; where labels are few its maps stay, or their slopes.
    """
    after, found = calibrated_sample(window, tasks, former), {}
    for t, task in enumerate(tasks):
        if task.kind == "binary":
            labels, newest = window.labels[:, t], window.newest(t)
            positive = labels[newest] > 0
            log_odds, offset = (values[newest] for values in _log_odds(window, t))
            slope, intercept = _fit(
                log_odds, offset, positive, former.tasks.get(task.name, TaskCalibration())
            )
            found[task.name] = TaskCalibration(
                slope=slope,
                intercept=intercept,
                since=window.start_of(window.buckets[newest].min()) if newest.any() else "",
                positives=int(positive.sum()),
                negatives=int((~positive).sum()),
                before=Agreement.of(labels, window.learned[:, t]),
                after=Agreement.of(labels, after[:, t]),
            )
    return Calibration(
        window=(window.start_of(window.buckets.min()), window.start_of(window.buckets.max())), tasks=found
    )


def _log_odds(window: Window, t: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the log-odds of a task with the sampling undone, and what the undoing added. Shape (N,) each."""
    log_odds = logit(window.undone[:, t])
    return log_odds, log_odds - logit(window.learned[:, t])


def _fit(
    log_odds: NDArray[np.float64],
    offset: NDArray[np.float64],
    positive: NDArray[np.bool_],
    former: TaskCalibration,
) -> tuple[float, float]:
    """Return slope and intercept. scikit-learn's logistic regression takes no offset, SciPy's optimiser
    does."""
    rarer = min(int(positive.sum()), int((~positive).sum()))
    if rarer < FEWEST:
        return former.slope, former.intercept
    center = log_odds.mean()  # so that the two numbers hardly depend on each other
    centered = log_odds - center

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, level = numbers
        logits = slope * centered + level - offset
        error = expit(logits) - positive
        value = (np.logaddexp(0, logits) - positive * logits).sum()
        return value / rarer, np.array([error @ centered, error.sum()]) / rarer

    from scipy.optimize import minimize  # slow to import, and a service does not need it

    found = minimize(
        loss,
        [former.slope, former.intercept + former.slope * center],
        jac=True,
        method="L-BFGS-B",
        bounds=[SLOPES if rarer >= ENOUGH else (former.slope, former.slope), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-8},
    )
    slope, level = found.x.tolist()
    return slope, level - slope * center
