"""One cell: a model trained with one seed and measured.

Cells know nothing of each other, so they can run side by side.
"""

import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.files import read_json, write_text
from mgoe._util.progress import hidden
from mgoe.bundle.manifest import State
from mgoe.bundle.population import POPULATION
from mgoe.config import ModelSettings, RunSettings
from mgoe.data import ExampleFile, Examples, Split
from mgoe.errors import TrainingError
from mgoe.models import BoostedTrees, RankingModel, late_tables, make_model
from mgoe.pipeline.cell_results import write_cell
from mgoe.pipeline.folder import FIT
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, training_of
from mgoe.pipeline.refit import SPEC, refit
from mgoe.training import (
    CHECKPOINTS,
    Feed,
    FitResult,
    Monitor,
    OnProgress,
    ProcessGroup,
    fit,
    fit_trees,
    predict,
    progress_bar,
)

EXAMPLE_SHARES: dict[Split, float] = {"train": 0.5, "valid": 0.1, "test": 0.1}
"""Share of the memory that examples may take; more are streamed. The rest is for the model, its batches and
its optimisers."""
SAMPLE = "sample.parquet"
"""The sampled share of streamed training rows, in the folder of a fit."""


def fit_cell(
    cell: Cell,
    inputs: Inputs | None = None,
    show_progress: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Train, measure and write a cell. Validation picks the epoch, and is then learned if `training.refit`
    says so; test is read once, at the end.

    Args:
        cell: The cell.
        inputs: The log and the graph; opened if not given.
        show_progress: Show bars of training and of ranking all items, on a terminal or in a notebook.
        resume: Resume interrupted training from its latest checkpoint.

    Returns:
        Facts about the training: seconds, samples per second, best epoch, parameters, precision and
            processor.

    Raises:
        TrainingError: Training failed, or a prediction is not finite.
    """
    settings, folder = cell.settings, cell.folder
    inputs = inputs or Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    model = inputs.resolve_ids(cell.model)
    started = time.perf_counter()
    spec, title = inputs.spec, f"{model.name}, seed {cell.seed}"
    monitor = Monitor.parse(training_of(settings, model).monitor, spec.tasks)
    with progress_bar(title, monitor.text) if show_progress else nullcontext() as on_progress:
        fitted_model, feeds, fitted = fit_model(
            model, cell.seed, settings, inputs, folder, on_progress, resume
        )
    scoring, scores, refitted = time.perf_counter(), dict[str, NDArray[np.float32]](), None
    scores["valid"] = predict(fitted_model, feeds["valid"])
    scored_in = time.perf_counter() - scoring
    if training_of(settings, model).refit != "none":
        del fitted_model, feeds["train"]  # free its memory
        fitted_model, refitted = refit_cell("tested", cell, inputs, fitted.best_epoch, show_progress, resume)
        test = feeds["test"].examples
        feeds["test"] = Feed(inputs.prepared, inputs.graph, test, fitted_model.needs, fitted_model.spec)
    scoring = time.perf_counter()
    scores["test"] = predict(fitted_model, feeds["test"])
    scored = sum(map(len, scores.values())) / (scored_in + time.perf_counter() - scoring)
    check_finite(title, scores, [task.name for task in spec.tasks])
    facts = {
        "model": model.name,
        "seed": cell.seed,
        "inputs": list(model.inputs or ()),
        "parameters": fitted_model.size,
        "best_epoch": fitted.best_epoch,
        "best_value": fitted.best_value,
        "lower_is_better": monitor.lower_is_better,
        "monitor": monitor.text,
        "training_seconds": round(fitted.seconds + (refitted.seconds if refitted else 0), 2),
        "cpu_seconds": round(fitted.cpu_seconds + (refitted.cpu_seconds if refitted else 0), 2),
        "seconds": round(time.perf_counter() - started, 2),
        "samples_per_second": round(fitted.samples_per_second),
        "scored_per_second": round(scored),
        "precision": fitted.precision,
        "device": torch.device(fitted.device).type,
        "processor": processor_of(fitted.device),
    }
    if ProcessGroup.current().leads:
        with nullcontext() if show_progress else hidden():
            write_cell(folder, settings, inputs, model, fitted_model, feeds, scores, facts)
    return facts


def lacks_served(cell: Cell) -> bool:
    """Tell whether the weights of the bundle of a finished cell must be trained, see `fit_served`."""
    return cell.refitted and not (cell.folder / "served" / POPULATION).exists()


def fit_served(
    cell: Cell, inputs: Inputs | None = None, show_progress: bool = False, resume: bool = True
) -> None:
    """Train the weights of the bundle of a finished cell that was refitted."""
    served = cell.folder / "served"
    inputs = inputs or Inputs.open(cell.log.stage(cell.seed), cell.settings, cell.graph)
    epoch = read_json(cell.folder / FIT)["best_epoch"]
    refit_cell("served", cell, inputs, epoch, show_progress, resume)
    if ProcessGroup.current().leads:
        shutil.rmtree(served / CHECKPOINTS, ignore_errors=True)
        shutil.copyfile(cell.folder / POPULATION, served / POPULATION)  # says that it is finished


def refit_cell(
    state: State, cell: Cell, inputs: Inputs, epochs: int, show_progress: bool, resume: bool
) -> tuple[RankingModel, FitResult]:
    """Train a cell's model on the rows of a state, see `refit`."""
    model, memory = inputs.resolve_ids(cell.model), cell.settings.memory * EXAMPLE_SHARES["train"]
    title = f"{model.name}, seed {cell.seed}, {state}"
    with progress_bar(title) if show_progress else nullcontext() as on_progress:
        given = cell.seed, cell.settings, inputs, cell.folder, epochs, memory
        return refit(state, model, *given, on_progress, resume)


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
    """Train a model; validation picks the epoch.

    Args:
        model: Resolved settings of the model.
        seed: Seed of initialisation and of the order of examples.
        settings: Settings of the run.
        inputs: The log and the graph.
        out: Folder of the checkpoints and weights.
        on_progress: Callback every few steps.
        resume: Resume from the latest checkpoint.
        share: Train on this share of the training rows only, and the seed that draws it.

    Returns:
        The model with the weights of its best epoch, the feed of each split, and the result of the training.
    """
    spec, training = inputs.spec_of(model), training_of(settings, model)
    with late_tables():
        made = make_model(model, spec, seed)
    parts: dict[str, Examples | ExampleFile] = {
        split: inputs.prepared.within(split, settings.memory * share_of)
        for split, share_of in EXAMPLE_SHARES.items()
    }
    if share is not None and share[0] < 1:
        parts["train"] = sampled(
            parts["train"], *share, out / SAMPLE, settings.memory * EXAMPLE_SHARES["train"]
        )
    boosted = isinstance(made, BoostedTrees)
    feeds = {
        split: Feed(inputs.prepared, inputs.graph, part, made.needs, spec) for split, part in parts.items()
    }
    fitting = feeds["train"], feeds["valid"], training, out, on_progress, seed
    if ProcessGroup.current().leads:
        write_text(out / SPEC, spec.to_json())  # before the others, which train in step, can look for it
    return made, feeds, fit_trees(made, *fitting, settings.memory) if boosted else fit(made, *fitting, resume)


def check_finite(title: str, scores: Mapping[str, NDArray[np.float32]], tasks: Sequence[str]) -> None:
    """Refuse predictions that are not finite, for which a task would drop out of the means over tasks.

    Args:
        title: Title of the cell.
        scores: Predictions by split. Shape (N, T).
        tasks: Names of the tasks.

    Raises:
        TrainingError: A prediction is not finite.
    """
    for split, predictions in scores.items():
        for task, rows in zip(tasks, (~np.isfinite(predictions)).sum(0), strict=True):
            if rows:
                raise TrainingError(
                    title,
                    f"predictions of {task!r} must be finite, found {rows:,} of {len(predictions):,} on "
                    f"{split} that are not; lower training.learning_rate, or set training.precision to "
                    "float32",
                )


def sampled(
    examples: Examples | ExampleFile, share: float, seed: int, file: Path, memory: float
) -> Examples | ExampleFile:
    """Draw a share of the rows and keep their order.

    Args:
        examples: All rows.
        share: Expected share of the rows.
        seed: Seed of the draw.
        file: File for the share of streamed examples.
        memory: GiB that the share may take in memory; it is streamed if it takes more.

    Raises:
        OutputError: The file cannot be written.
    """
    rng = np.random.default_rng(seed)
    if isinstance(examples, Examples):
        return examples.take(rng.random(len(examples)) < share)
    return examples.sampled(share, rng, file).within(memory)


def summary_line(facts: Mapping[str, Any]) -> str:
    """Return the result and the cost of a finished cell as text."""
    return (
        f"{facts['monitor']} {facts['best_value']:.4f} on validation, epoch {facts['best_epoch']}, "
        f"{facts['samples_per_second'] / 1000:,.0f} k samples/s, {facts['seconds']:,.0f} s"
    )


def processor_of(device: str) -> str:
    """Return the name of the GPU, or of the processor if the device is none."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(encoding="utf-8"), re.MULTILINE)
        if cpus.exists()
        else None
    )
    return found[1].strip() if found else platform.processor() or platform.machine()
