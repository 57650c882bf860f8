"""One cell of a run: a model, fitted with a seed and measured. Cells know nothing of each other, so they can run side by side."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.files import write_json, write_text
from mgoe.bundle.calibration import in_whole_space, recalibrate, sampling_prior, shifted_tasks
from mgoe.config import ModelSettings, RunSettings, TrainingSettings, check_settings
from mgoe.data import SPLITS, ExampleFile, Examples, Prepared
from mgoe.errors import ConfigError, TrainingError
from mgoe.evaluation import Row, make_slices, measure, rank_catalogue, reliability, user_influence, write_rows
from mgoe.experiments.machine import processor_of
from mgoe.experiments.model_resolution import is_boosted
from mgoe.features import FeatureSpec, View
from mgoe.graph import MacroGraph
from mgoe.models import BoostedTrees, RankingModel, late_tables, make_model
from mgoe.training import (
    CHECKPOINTS,
    Feed,
    FitResult,
    Monitor,
    OnProgress,
    ProcessGroup,
    check_available,
    fit,
    fit_trees,
    load_lightgbm,
    make_spec,
    predict,
    progress_bar,
)
from mgoe.training.pairs import PairScorer

DONE = "metrics.json"
FIT = "fit.json"
INFLUENCE = "influence.safetensors"
"""Files of a finished cell: its measures, written last; what the fit was and took; what each test user does to each measure."""

SAMPLE = "sample.parquet"
"""In the folder of a fit on a share of streamed training rows: these."""


@dataclass(frozen=True)
class Cell:
    """A model and a seed of a run."""

    run: Path
    model: ModelSettings
    seed: int

    @property
    def folder(self) -> Path:
        return self.run / "cells" / self.model.name / str(self.seed)

    @property
    def done(self) -> bool:
        """Whether the cell is finished: its metrics are written last."""
        return (self.folder / DONE).exists()

    @property
    def standing(self) -> float:
        """What validation says of the finished cell, higher is better."""
        fit = json.loads((self.folder / FIT).read_text(encoding="utf-8"))
        return float(fit["best_value"]) * (-1 if fit["lower_is_better"] else 1)

    @property
    def title(self) -> str:
        return f"{self.model.name}, seed {self.seed}"


class Inputs:
    """What every cell of a run reads: opened once a process."""

    def __init__(self, run: Path, settings: RunSettings, graph: Path | None = None):
        self.form, self.negatives = settings.form, settings.negatives
        self.prepared = Prepared.open(run / "data")
        self.graph = MacroGraph.open(graph or run / "graph")

    @cached_property
    def spec(self) -> FeatureSpec:
        """What every model of the run is made for."""
        return make_spec(self.prepared, self.graph)

    @cached_property
    def prior(self) -> NDArray[np.float32]:
        """Log-odds of the negative sampling, an item."""
        return sampling_prior(self.prepared, self.form, self.negatives)

    @cached_property
    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Parts of the test examples that are measured apart."""
        test = self.prepared.streamed("test")
        return make_slices(
            *(test.column(name) for name in ("user", "item", "bucket", "snapshot")),
            cuts=self.prepared.cuts,
            users_at=self.prepared.users_at,
            items_at=self.prepared.items_at,
            history=self.prepared.history_parts(),
        )


def run_cell(
    cell: Cell, settings: RunSettings, inputs: Inputs, show_progress: bool = True, resume: bool = True
) -> dict[str, Any]:
    """Fit, measure and write one cell. Validation picks the epoch; test is read once, at the end.

    A fit that was cut off goes on from its latest checkpoint, unless `resume` is false.

    Returns:
        Facts about the fit: seconds, samples a second, best epoch, parameters, precision and processor.

    Raises:
        TrainingError: The fit came to nothing, or what the model predicts is not finite.
    """
    started = time.perf_counter()
    spec = inputs.spec
    monitor = Monitor.parse(training_of(settings.training, cell.model).monitor, spec.tasks)
    with progress_bar(cell.title, monitor.text) if show_progress else nullcontext() as on_progress:
        model, feeds, fitted = fit_model(
            cell.model, cell.seed, settings, inputs, cell.folder, on_progress, resume
        )
    fitted_at = time.perf_counter()
    scores = {split: predict(model, feeds[split]) for split in ("valid", "test")}
    scored = sum(len(values) for values in scores.values()) / (time.perf_counter() - fitted_at)
    check_finite(cell.title, scores, [task.name for task in spec.tasks])
    facts = {
        "model": cell.model.name,
        "seed": cell.seed,
        "inputs": list(cell.model.inputs or ()),
        "parameters": model.size,
        "best_epoch": fitted.best_epoch,
        "best_value": fitted.best_value,
        "lower_is_better": monitor.lower_is_better,
        "monitor": monitor.text,
        "training_seconds": round(fitted.seconds, 2),
        "cpu_seconds": round(fitted.cpu_seconds, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "samples_per_second": round(fitted.samples_per_second),
        "scored_per_second": round(scored),
        "precision": fitted.precision,
        "device": torch.device(fitted.device).type,
        "processor": processor_of(fitted.device),
    }
    if ProcessGroup.current().leads:
        _write(cell, settings, inputs, model, feeds, scores, facts)
    return facts


def fit_model(
    model: ModelSettings,
    seed: int,
    settings: RunSettings,
    inputs: Inputs,
    out: Path,
    on_progress: OnProgress | None = None,
    resume: bool = True,
    share: tuple[float, int] | None = None,
) -> tuple[RankingModel, dict[str, Feed], FitResult]:
    """Make a model and fit it; validation picks the epoch.

    Args:
        model: Resolved.
        seed: Of initialisation and of the order of examples.
        settings: Of the run.
        inputs: What it reads.
        out: Folder of the fit.
        on_progress: Called every few steps.
        resume: Go on from the latest checkpoint.
        share: Train on this share of the training rows alone, drawn by this seed.

    Returns:
        The model with the weights of its best epoch, the feed of each split, and what the fit came to.
    """
    spec, training = inputs.spec, training_of(settings.training, model)
    with late_tables():
        made = make_model(model, spec, seed)
    parts: dict[str, Examples | ExampleFile] = {
        split: inputs.prepared.within(split, training.memory) for split in SPLITS
    }
    if share is not None and share[0] < 1:
        parts["train"] = sampled(parts["train"], *share, out / SAMPLE, training.memory)
    feeds = {
        split: Feed(inputs.prepared, inputs.graph, part, made.needs, spec) for split, part in parts.items()
    }
    fitting = feeds["train"], feeds["valid"], training, out, on_progress, seed
    return (
        made,
        feeds,
        fit_trees(made, *fitting) if isinstance(made, BoostedTrees) else fit(made, *fitting, resume),
    )


def check_finite(title: str, scores: Mapping[str, NDArray[np.float32]], tasks: Sequence[str]) -> None:
    """See that a task cannot drop out of means over tasks for want of predictions.

    Args:
        title: Of the cell.
        scores: Of each split. Shape (N, T).
        tasks: Their names.

    Raises:
        TrainingError: A prediction is not finite.
    """
    for split, predictions in scores.items():
        wrong = (~np.isfinite(predictions)).sum(0)  # (T,)
        for task, rows in zip(tasks, wrong, strict=True):
            if rows:
                rule = f"predictions of {task!r} must be finite, found {rows:,} of {len(predictions):,} on {split} that are not"
                raise TrainingError(
                    title, f"{rule}; lower training.learning_rate, or set training.precision to float32"
                )


def sampled(
    examples: Examples | ExampleFile, share: float, seed: int, file: Path, memory: float
) -> Examples | ExampleFile:
    """A seeded share of rows, in their order.

    Args:
        examples: All rows.
        share: About so many of them.
        seed: Of the draw.
        file: Where the share of streamed examples is written.
        memory: GiB that it may take; streamed where it takes more.

    Raises:
        OutputError: The file cannot be written.
    """
    rng = np.random.default_rng(seed)
    if isinstance(examples, Examples):
        return examples.take(rng.random(len(examples)) < share)
    return examples.sampled(share, rng, file).within(memory)


def _write(
    cell: Cell,
    settings: RunSettings,
    inputs: Inputs,
    model: RankingModel,
    feeds: Mapping[str, Feed],
    scores: Mapping[str, NDArray[np.float32]],
    facts: dict[str, Any],
) -> None:
    """Measure predictions and write the cell; its metrics last."""
    rows: list[Row] = []
    tasks = inputs.spec.tasks
    for split, predictions in scores.items():
        examples = feeds[split].examples
        slices = inputs.slices if settings.evaluation.slices and split == "test" else None
        rows += measure(
            predictions,
            examples.labels,
            examples.user,
            tasks,
            slices,
            model=cell.model.name,
            seed=cell.seed,
            split=split,
        )
    test = feeds["test"].examples
    user_influence(scores["test"], test.labels, test.user, tasks).save(cell.folder / INFLUENCE)
    write_json(cell.folder / "reliability.json", reliability(scores["test"], test.labels, tasks))
    if settings.evaluation.ranking_queries:
        rows += catalogue(cell, settings, inputs, model)
    write_text(cell.folder / "spec.json", inputs.spec.to_json())
    write_json(cell.folder / FIT, facts)
    write_rows(cell.folder / DONE, rows)
    shutil.rmtree(cell.folder / CHECKPOINTS, ignore_errors=True)


def catalogue(cell: Cell, settings: RunSettings, inputs: Inputs, model: RankingModel) -> list[Row]:
    """HR@k and NDCG@k on test over the whole catalogue, scored as a bundle scores: with the sampling of negatives undone. A task within a
    sample space is ordered by how likely it is done at all."""
    prepared, test, snapshot = (
        inputs.prepared,
        inputs.prepared.streamed("test"),
        len(inputs.prepared.cuts) - 1,
    )
    view = View.of(inputs.graph.snapshots[snapshot], prepared.user_side, prepared.item_side)
    scorer = PairScorer(model, view)
    unknown = prepared.context_features

    def score(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        probabilities = scorer(users, items, unknown.encode({}, len(users)))
        return in_whole_space(
            recalibrate(probabilities, inputs.prior[items], shifted_tasks(settings.tasks)), settings.tasks
        )

    return rank_catalogue(
        score,
        test.labels,
        test.user,
        test.column("item"),
        model.spec.tasks,
        catalogue=int(prepared.items_at[snapshot]),
        queries=settings.evaluation.ranking_queries,
        k=settings.evaluation.k,
        model=cell.model.name,
        seed=cell.seed,
        split="test",
        query_seed=settings.evaluation.seed,
    )


def told(facts: Mapping[str, Any]) -> str:
    """A finished cell in a line."""
    return (
        f"{facts['model']}, seed {facts['seed']}: {facts['monitor']} {facts['best_value']:.4f} on validation, epoch {facts['best_epoch']}, "
        f"{facts['samples_per_second'] / 1000:,.0f} k samples/s, {facts['seconds']:,.0f} s"
    )


def check_fit(settings: RunSettings, model: ModelSettings) -> None:
    """Refuse before any work what a fit would refuse on every machine.

    Args:
        settings: Of the run.
        model: Resolved.

    Raises:
        MgoeError: There would be no snapshot to train on, or the monitor is none.
    """
    if settings.graph.snapshots == "last":
        raise ConfigError(
            "graph.snapshots", "`last` leaves training nothing to read; set it to `all` to train"
        )
    Monitor.parse(training_of(settings.training, model).monitor, settings.tasks)


def check_installed(settings: RunSettings, model: ModelSettings) -> None:
    """Refuse before any work what a fit would refuse on this machine.

    Args:
        settings: Of the run.
        model: Resolved.

    Raises:
        MgoeError: A library, a compiler or a device that is needed is not here.
    """
    check_available(training_of(settings.training, model))
    if is_boosted(model):
        load_lightgbm()


def training_of(settings: TrainingSettings, model: ModelSettings) -> TrainingSettings:
    """Training settings with what differs for a model."""
    return check_settings(
        TrainingSettings, settings.model_dump() | model.training, f"models.{model.name}.training"
    )
