"""Metrics per task on validation, and the monitor: the one number that picks the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mgoe import metrics
from mgoe.config import did_you_mean
from mgoe.errors import TrainingError
from mgoe.metrics import Task
from mgoe.training.feed import Feed

RANKING = "all.ranking"
"""The default monitor; it stands for `all.rmse` if every task is a regression."""
Scores = dict[str, dict[str, float]]
"""Task -> metric -> value; NaN if a metric is not defined, such as AUC on one class."""

_MEASURES: dict[str, dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]]] = {
    "binary": {
        "auc": lambda labels, values, users: metrics.auc(labels, values),
        "gauc": lambda labels, values, users: metrics.gauc(labels, values, users).value,
        "logloss": lambda labels, values, users: metrics.log_loss(labels, values),
    },
    "regression": {
        "rmse": lambda labels, values, users: metrics.rmse(labels, values),
        "mae": lambda labels, values, users: metrics.mae(labels, values),
    },
}
_NAMES = {"binary": ["auc", "gauc", "ranking", "logloss"], "regression": ["rmse", "mae"]}
_LOSS = {"binary": "logloss", "regression": "rmse"}
_LOWER_IS_BETTER = frozenset({"logloss", "rmse", "mae"})


@dataclass(frozen=True)
class Monitor:
    """`task.metric`, or `all.metric`: the mean over the tasks that have the metric.

    Example:
        >>> from mgoe.config import TaskSettings
        >>> Monitor.parse("all.auc", [TaskSettings(name="click"), TaskSettings(name="buy")]).tasks
        ('click', 'buy')
    """

    tasks: tuple[str, ...]
    metric: str
    text: str

    @classmethod
    def parse(cls, text: str, tasks: Sequence[Task]) -> Monitor:
        """Parse a monitor.

        Raises:
            TrainingError: There is no such task or metric; the message names the nearest.
        """
        who, _, metric = text.partition(".")
        valid = {f"{task.name}.{name}" for task in tasks for name in _NAMES[task.kind]}
        valid |= {f"all.{name}" for kind in {task.kind for task in tasks} for name in _NAMES[kind]}
        if text not in valid:
            if text == RANKING:
                return cls(tuple(task.name for task in tasks), "rmse", "all.rmse")
            raise TrainingError(
                "training.monitor",
                f"must be task.metric or all.metric, found {text!r}{did_you_mean(text, sorted(valid))}",
            )
        return cls(
            tuple(task.name for task in tasks if who in ("all", task.name) and metric in _NAMES[task.kind]),
            metric,
            text,
        )

    def of_task(self, task: Task, labels: np.ndarray, users: np.ndarray) -> Monitor:
        """Return the same metric for one task, or its loss if the task lacks the metric or it is undefined on
        these labels, (N,)."""
        same = Monitor((task.name,), self.metric, f"{task.name}.{self.metric}")
        if self.metric in _NAMES[task.kind] and same.is_defined([task], labels[:, None], users):
            return same
        return Monitor((task.name,), _LOSS[task.kind], f"{task.name}.{_LOSS[task.kind]}")

    def is_defined(self, tasks: Sequence[Task], labels: np.ndarray, users: np.ndarray) -> bool:
        """Return whether there is a value on these labels, (N, T)."""
        return not np.isnan(self.value(measure(tasks, labels, np.full_like(labels, 0.5), users)))

    @property
    def lower_is_better(self) -> bool:
        return self.metric in _LOWER_IS_BETTER

    @property
    def parts(self) -> tuple[str, ...]:
        """The metrics whose mean it is."""
        return ("auc", "gauc") if self.metric == "ranking" else (self.metric,)

    def value(self, scores: Scores) -> float:
        """Return the monitored number: the mean over the tasks for which it is defined; NaN if there are
        none."""
        return metrics.mean_defined(
            metrics.mean_defined(scores[task][part] for part in self.parts) for task in self.tasks
        )

    def better(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far."""
        return best is None or (value < best if self.lower_is_better else value > best)


def measure(tasks: Sequence[Task], labels: np.ndarray, predictions: np.ndarray, users: np.ndarray) -> Scores:
    """Return every metric of every task, over the labels that are not missing.

    Args:
        tasks: Tasks, in the order of the columns.
        labels: Labels, NaN where missing. Shape (N, T).
        predictions: Probabilities or values. Shape (N, T).
        users: User of each example, the groups of GAUC. Shape (N,).

    Example:
        >>> from mgoe.config import TaskSettings
        >>> labels, scores = np.array([[0.0], [1.0], [1.0]]), np.array([[0.2], [0.6], [0.5]])
        >>> measure([TaskSettings(name="click")], labels, scores, np.array([1, 1, 2]))["click"]["auc"]
        1.0
    """
    return {
        task.name: {
            name: float(function(labels[:, t], predictions[:, t], users))
            for name, function in _MEASURES[task.kind].items()
        }
        for t, task in enumerate(tasks)
    }


def check_examples(monitor: Monitor, train: Feed, valid: Feed | None) -> None:
    """Check before training that there are examples, and that the monitor can be measured.

    Raises:
        TrainingError: There are no examples, or the monitor is not defined on validation.
    """
    for place, feed in (("training examples", train), ("validation examples", valid)):
        if feed is not None and len(feed) == 0:
            raise TrainingError(
                place, "there must be at least one, found none; widen the time range or move split.cuts"
            )
    if valid and not monitor.is_defined(valid.spec.tasks, valid.examples.labels, valid.examples.user):
        raise TrainingError(
            "training.monitor",
            f"{monitor.text!r} is not defined on validation: no monitored task has both labels there; "
            "choose another or move split.cuts",
        )
