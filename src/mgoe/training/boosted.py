"""Fit boosted trees: one ensemble per task, grown by LightGBM on rows in memory, stopped by validation.

Axes: `N` examples, `T` tasks, `F` columns.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.extras import install, load
from mgoe._util.files import write_json, write_text
from mgoe.config import MEMORY, TrainingSettings
from mgoe.errors import TrainingError
from mgoe.models import BoostedTrees, TaskSpec
from mgoe.training.feed import BLOCK_ROWS, Feed
from mgoe.training.monitor import Monitor, Scores, check_examples, measure
from mgoe.training.progress import CURVES, FitProgress, FitResult, OnProgress

EVERY = 10
"""Rounds between validations: GAUC on a large split takes longer than a tree."""


@dataclass(frozen=True)
class SplitRows:
    """A split in memory: 4 F bytes of features per row."""

    features: NDArray[np.float32]
    """Shape (N, F)."""
    labels: NDArray[np.float32]
    """NaN where missing. Shape (N, T)."""
    weight: NDArray[np.float32]
    user: NDArray[np.int64]


def fit_trees(
    model: BoostedTrees,
    train: Feed,
    valid: Feed | None,
    settings: TrainingSettings,
    out: Path,
    on_progress: OnProgress | None = None,
    seed: int = 0,
    memory: float = MEMORY,
    trees: Sequence[int] = (),
) -> FitResult:
    """Grow each task's ensemble, and leave it in the model.

    Reads `monitor` and `threads` of the settings; the model's options say how trees are grown. The
    number of trees is chosen by the monitored metric of the task alone, or by its loss if the metric is for
    another kind of task. Writes `trees.TASK.txt`, LightGBM's own text, and `curves.json`. The same seed and
    number of threads give the same trees. An interrupted fit keeps nothing.

    Args:
        model: Freshly made.
        train, valid: Gathered into memory, in blocks. Without validation, the trees of each task are given.
        settings: Settings of training.
        out: Folder of the results; made if missing.
        on_progress: Progress callback, called every few trees.
        seed: Seed of the rows and columns that each tree sees.
        memory: GiB that the rows may take.
        trees: Number of each task, if there is no validation.

    Raises:
        MissingExtra: LightGBM is not installed.
        TrainingError: There are no examples, the monitor is undefined, or the rows exceed the memory.
        OutputError: The folder cannot be written.

    Example:
        >>> from mgoe.config import TrainingSettings
        >>> from mgoe.models import make_model, resolve
        >>> from mgoe.training import Feed
        >>> model = make_model(resolve("lightgbm"), spec, seed=0)
        >>> splits = [prepared.examples(split) for split in ("train", "valid")]
        >>> train, valid = (Feed(prepared, graph, examples, model.needs, spec) for examples in splits)
        >>> fit_trees(model, train, valid, TrainingSettings(), Path("cell")).device
        'cpu'
    """
    started, cpu_started, tasks = time.perf_counter(), time.process_time(), model.spec.tasks
    lightgbm = load_lightgbm()
    monitor = Monitor.parse(settings.monitor, tasks)
    check_examples(monitor, train, valid)
    columns = len(model.columns)
    # Bytes per value: 5 of training (raw and binned), 8 of validation (all, and one task's).
    needed = columns * (5 * len(train) + 8 * len(valid or ())) / 2**30
    if needed > memory:
        raise TrainingError(
            "memory",
            f"boosted trees hold every row: {len(train):,} and {len(valid or ()):,} rows of {columns} "
            f"columns take {needed:.1f} GiB, found a limit of {memory:g} GiB; raise it, or take fewer inputs",
        )
    curves = {"monitor": monitor.text, "best_epoch": 0, "epochs": []}
    write_json(out / CURVES, curves)  # refuses an unwritable folder before training
    torch.set_num_threads(settings.threads)
    held_out = None if valid is None else gather(model, valid)
    grower = _Grower(lightgbm, model, gather(model, train), held_out, settings, seed, on_progress)
    growing = time.perf_counter()
    model.boosters = [grower.grow(t, monitor, trees[t] if trees else None) for t in range(len(tasks))]
    spent = time.perf_counter() - growing
    for name, text in model.texts().items():
        write_text(_trees(out, name), text)
    scores = _measured(model, held_out)
    curve = {
        "epoch": 1,
        "step": grower.trees,
        "losses": grower.losses,
        "validation": scores,
        "monitor": monitor.value(scores) if scores else math.nan,
        "seconds": spent,
        "samples_per_second": len(train) / spent,
    }
    write_json(out / CURVES, curves | {"best_epoch": 1, "epochs": [curve]})
    return FitResult(
        monitor=monitor.text,
        best_epoch=1,
        best_value=curve["monitor"],
        epochs=1,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu_started,
        samples_per_second=curve["samples_per_second"],
        precision="float32",
        device="cpu",
        curves=[curve],
    )


def _measured(model: BoostedTrees, rows: SplitRows | None) -> Scores:
    if rows is None:
        return {}
    predictions = model.in_units(model.grown(rows.features)).numpy()
    return measure(model.spec.tasks, rows.labels, predictions, rows.user)


def load_trees(model: BoostedTrees, folder: Path) -> None:
    """Load the ensembles that `fit_trees` wrote into a folder; a task without any label has none.

    Raises:
        MissingExtra: LightGBM is not installed.
    """
    lightgbm = load_lightgbm()
    for t, task in enumerate(model.spec.tasks):
        if (file := _trees(folder, task.name)).exists():
            model.boosters[t] = lightgbm.Booster(model_file=str(file))


def _trees(folder: Path, task: str) -> Path:
    return folder / f"trees.{task}.txt"


def gather(model: BoostedTrees, feed: Feed) -> SplitRows:
    """Return a split as a matrix, filled block by block: 4 N F bytes, and a block."""
    features = np.empty((len(feed), len(model.columns)), np.float32)
    labels = np.empty((len(feed), len(model.spec.tasks)), np.float32)
    weight = np.empty(len(feed), np.float32)
    start = 0
    for batch in feed.batches(BLOCK_ROWS):
        part = slice(start, start + len(batch["labels"]))
        features[part] = model.features(batch)
        labels[part], weight[part] = batch["labels"].numpy(), batch["weight"].numpy()
        start = part.stop
    return SplitRows(features, labels, weight, feed.examples.user)


def load_lightgbm() -> Any:
    """Return the library.

    Raises:
        MissingExtra: It is not installed.

    Example:
        >>> load_lightgbm().__name__
        'lightgbm'
    """
    return load("lightgbm", "models.lightgbm", "LightGBM", install("gbm"))


class _Grower:
    """Grow the ensembles of all tasks on one binned matrix of one byte per value."""

    def __init__(
        self,
        lightgbm: Any,
        model: BoostedTrees,
        rows: SplitRows,
        held_out: SplitRows | None,
        settings: TrainingSettings,
        seed: int,
        report: OnProgress | None,
    ):
        o = model.options
        self.lightgbm, self.model, self.held_out, self.report = lightgbm, model, held_out, report
        self.labels, self.weight = rows.labels, rows.weight
        self.losses: dict[str, float] = {}
        self.trees = 0
        self.parameters = {
            "learning_rate": o.learning_rate,
            "num_leaves": o.leaves,
            "min_data_in_leaf": o.leaf_rows,
            "bagging_freq": 1,
            "feature_fraction": o.share,
            "seed": seed,
            "num_threads": settings.threads,
            "deterministic": True,
            "force_row_wise": True,
            "metric": "None",
            "verbosity": -1,
        }
        self.binned = lightgbm.Dataset(
            rows.features,
            np.zeros(len(rows.weight)),  # replaced by the labels of each task
            # By number: LightGBM does not accept every name.
            categorical_feature=[*range(len(model.columns) - len(model.categories), len(model.columns))],
            params=self.parameters,
        ).construct()

    def grow(self, t: int, monitor: Monitor, trees: int | None = None) -> Any:
        """Return the ensemble of one task, or None if it has no label.

        Rows without a label or of weight 0 take no part. Without validation the number of trees is given.
        """
        task, o, held_out = self.model.spec.tasks[t], self.model.options, self.held_out
        rows = np.flatnonzero(~np.isnan(self.labels[:, t]) & (self.weight > 0))
        if not len(rows) or trees == 0:
            return None
        data = self.binned if len(rows) == len(self.labels) else self.binned.subset(rows).construct()
        data.set_label(_standardized(self.labels[rows, t], task))
        data.set_weight(self.weight[rows])
        watch, seen = list[_Watch](), []
        if held_out is not None and (held := np.flatnonzero(~np.isnan(held_out.labels[:, t]))).size:
            labels, users = held_out.labels[held, t], held_out.user[held]
            watch = [_Watch(self, t, monitor.of_task(task, labels, users), labels, users)]
            values = held_out.features[held], _standardized(labels, task)
            seen = [self.lightgbm.Dataset(*values, reference=self.binned)]
        share = o.share if o.share * len(rows) >= 1 else 1.0  # LightGBM refuses a tree without rows
        booster = self.lightgbm.train(
            self.parameters
            | {"objective": "binary" if task.kind == "binary" else "regression", "bagging_fraction": share},
            data,
            trees or o.rounds,
            valid_sets=seen,
            callbacks=watch,
            keep_training_booster=True,
        )
        if watch and watch[0].best is not None:
            for _ in range(booster.num_trees() - watch[0].best_trees):
                booster.rollback_one_iter()
        self.losses[task.name] = booster.eval_train(_loss_of(task))[0][2]
        self.trees += booster.num_trees()
        return self.lightgbm.Booster(model_str=booster.model_to_string())


class _Watch:
    """Callback of LightGBM after each round: validates, and stops when patience ends.

    A round without a split adds no tree.
    """

    def __init__(
        self, grower: _Grower, t: int, monitor: Monitor, labels: NDArray[np.float32], users: NDArray[np.int64]
    ):
        self.grower, self.t, self.monitor, self.labels, self.users = grower, t, monitor, labels, users
        self.task = grower.model.spec.tasks[t]
        self.best: float | None = None
        self.best_round = self.best_trees = 0
        self.scores: Scores = {}
        self.started = time.perf_counter()

    def __call__(self, state: Any) -> None:
        done = state.iteration + 1
        if done % EVERY and done != state.end_iteration:
            return
        value = state.model.eval_valid(self._measure)[0][2]
        if self.monitor.better(value, self.best):
            self.best, self.best_round, self.best_trees = value, done, state.model.num_trees()
        if self.grower.report is not None:
            rounds, tasks = self.grower.model.options.rounds, len(self.grower.model.spec.tasks)
            rate = len(self.grower.weight) * done / (time.perf_counter() - self.started)
            loss = self.scores[self.task.name]["logloss" if self.task.kind == "binary" else "rmse"]
            # A task counts as an epoch and a round as a step; the loss is that of validation.
            step, steps = self.t * rounds + done, tasks * rounds
            self.grower.report(FitProgress(self.t + 1, tasks, step, steps, rate, loss, value))
        if done - self.best_round >= self.grower.model.options.patience:
            raise self.grower.lightgbm.callback.EarlyStopException(self.best_round - 1, [])

    def _measure(self, predictions: NDArray[np.float64], _: Any) -> tuple[str, float, bool]:
        values = predictions if self.task.kind == "binary" else predictions * self.task.std + self.task.mean
        self.scores = measure([self.task], self.labels[:, None], values[:, None], self.users)
        return self.monitor.text, self.monitor.value(self.scores), not self.monitor.lower_is_better


def _standardized(labels: NDArray[np.float32], task: TaskSpec) -> NDArray[np.float32]:
    return (
        labels
        if task.kind == "binary"
        else (np.minimum(labels, np.float32(task.top)) - np.float32(task.mean)) / np.float32(task.std)
    )


def _loss_of(task: TaskSpec) -> Any:
    """Return the training loss in LightGBM's form: weighted cross entropy, or squared error of the
    standardised label."""

    def loss(predictions: NDArray[np.float64], data: Any) -> tuple[str, float, bool]:
        labels = data.get_label()
        each = (
            -np.log(np.clip(np.where(labels == 1, predictions, 1 - predictions), 1e-15, None))
            if task.kind == "binary"
            else (predictions - labels) ** 2
        )
        return "loss", float(np.average(each, weights=data.get_weight())), False

    return loss
