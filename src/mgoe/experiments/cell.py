"""One cell: a model trained with one seed and measured.

Cells know nothing of each other, so they can run side by side.
"""

import platform
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.files import write_json, write_text
from mgoe.bundle.calibration import Calibration, Window, calibrate, calibrated_sample, fit_calibration
from mgoe.bundle.population import POPULATION, population_of
from mgoe.bundle.sampling import Sampling, in_whole_space, prior_of, shift_of, shifted_tasks, undo_sampling
from mgoe.config import ModelSettings, RetrievalSettings, RunSettings, retrieval_of
from mgoe.data import SPLITS, ExampleFile, Examples, Prepared, Split
from mgoe.errors import TrainingError
from mgoe.evaluation import (
    Row,
    make_slices,
    measure,
    measure_calibrated,
    rank_catalog,
    reliability,
    user_influence,
    write_rows,
)
from mgoe.experiments.folder import CALIBRATION, DONE, FIT, INFLUENCE, RELIABILITY
from mgoe.experiments.plan import Cell, training_of
from mgoe.experiments.quotas import chosen_quotas
from mgoe.features import FeatureSpec, View
from mgoe.graph import MacroGraph, Snapshot
from mgoe.models import BoostedTrees, RankingModel, late_tables, make_model
from mgoe.retrieval import Retrieval
from mgoe.training import (
    CHECKPOINTS,
    Feed,
    FitResult,
    Monitor,
    OnProgress,
    PairScorer,
    ProcessGroup,
    fit,
    fit_trees,
    make_spec,
    mixed_negatives,
    predict,
    progress_bar,
    unexposed_negatives,
)

SAMPLE = "sample.parquet"
"""The sampled share of streamed training rows, in the folder of a fit."""
IDS_MIN_POSITIVES = 50
"""Positives of the median training user and item from which `ids: auto` keeps ids (ours).

On a log with 19 and 9 they overfit.
"""


class Inputs:
    """The prepared log and the graph, opened once per process, and what cells derive from them.

    Args:
        settings: Settings of the run.
        prepared: The log.
        graph: Its graph.
    """

    def __init__(self, settings: RunSettings, prepared: Prepared, graph: MacroGraph):
        self.prepared, self.graph = prepared, graph
        self._settings = settings

    @classmethod
    def open(cls, run: Path, settings: RunSettings, graph: Path | None = None) -> Self:
        """Open `run/data` and a graph, `run/graph` by default."""
        return cls(settings, Prepared.open(run / "data"), MacroGraph.open(graph or run / "graph"))

    @cached_property
    def spec(self) -> FeatureSpec:
        """Specification of the features that every model reads."""
        return make_spec(self.prepared, self.graph)

    @cached_property
    def sampling(self) -> Sampling | None:
        """How negatives were drawn; None if none were."""
        if self._settings.form == "exposures":
            return None
        return Sampling.fit(self.prepared, self.graph, self._settings.negatives)

    def prior(self, snapshot: Snapshot) -> NDArray[np.float32]:
        """Return what undoing the sampling adds to the log-odds of each item, see `prior_of`."""
        return prior_of(self.sampling, snapshot)

    @cached_property
    def retrieval(self) -> RetrievalSettings | None:
        """How a bundle retrieves candidates, with quotas chosen on validation; None if it ranks all items."""
        how, before = self._retrieval, self.retrieval_before_validation
        return (
            None if how is None or before is None else how.model_copy(update={"quotas": dict(before.quotas)})
        )

    @cached_property
    def retrieval_before_validation(self) -> Retrieval | None:
        """What candidates are retrieved from at the snapshot before validation, with quotas chosen there."""
        if (how := self._retrieval) is None:
            return None
        self._folder = TemporaryDirectory(prefix="mgoe-")  # removed with these inputs
        view = View.of(self.graph.snapshots[self.prepared.valid_window])
        built = Retrieval.build(view, Path(self._folder.name, "retrieval"), how)
        if how.quotas is not None:
            return built
        quotas = chosen_quotas(built, view, self._settings, self.prepared, how.candidates)
        return built if quotas is None else replace(built, quotas=quotas)

    @property
    def _retrieval(self) -> RetrievalSettings | None:
        return retrieval_of(self._settings.retrieval, self.graph.latest.n_items)

    @cached_property
    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Slices of the test examples that are measured on their own."""
        test = self.prepared.streamed("test")
        return make_slices(
            *(test.column(name) for name in ("user", "item", "bucket", "snapshot")),
            cuts=self.prepared.cuts,
            users_at=self.prepared.users_at,
            items_at=self.prepared.items_at,
            history=self.prepared.history_parts(),
            uniform=test.column("uniform") if self.prepared.settings["data"].get("uniform") else None,
        )

    @cached_property
    def ids_pay(self) -> bool:
        """Whether the median user and item have enough training positives to learn an embedding from."""
        counts = [np.zeros(nodes.size, np.int64) for nodes in (self.prepared.users, self.prepared.items)]
        for train in self.prepared.streamed("train").parts():
            done = (np.nan_to_num(train.labels) > 0).any(axis=1)
            for count, nodes in zip(counts, (train.user, train.item), strict=True):
                count += np.bincount(nodes[done], minlength=len(count))
        return all(count.any() and np.median(count[count > 0]) >= IDS_MIN_POSITIVES for count in counts)

    def decided(self, model: ModelSettings) -> ModelSettings:
        """Return a resolved model with `ids: auto` decided by the log."""
        if model.ids == "on" or (model.ids == "auto" and self.ids_pay):
            return model
        return model.model_copy(update={"inputs": tuple(key for key in model.inputs or () if key != "ids")})


def fit_cell(
    cell: Cell,
    searched: bool = False,
    inputs: Inputs | None = None,
    show_progress: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Train, measure and write a cell. Validation picks the epoch; test is read once, at the end.

    Args:
        cell: The cell.
        searched: Use the settings that the search for its model found.
        inputs: The log and the graph; opened if not given.
        show_progress: Show a progress bar on a terminal or in a notebook.
        resume: Resume interrupted training from its latest checkpoint.

    Returns:
        Facts about the training: seconds, samples per second, best epoch, parameters, precision and
            processor.

    Raises:
        TrainingError: Training failed, or a prediction is not finite.
    """
    settings, folder = cell.settings, cell.folder
    inputs = inputs or Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    model = inputs.decided(cell.model(searched))
    started = time.perf_counter()
    spec, title = inputs.spec, f"{model.name}, seed {cell.seed}"
    monitor = Monitor.parse(training_of(settings, model).monitor, spec.tasks)
    with progress_bar(title, monitor.text) if show_progress else nullcontext() as on_progress:
        fitted_model, feeds, fitted = fit_model(
            model, cell.seed, settings, inputs, folder, on_progress, resume
        )
    fitted_at = time.perf_counter()
    scores = {split: predict(fitted_model, feeds[split]) for split in ("valid", "test")}
    scored = sum(len(values) for values in scores.values()) / (time.perf_counter() - fitted_at)
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
        _write(folder, settings, inputs, fitted_model, feeds, scores, facts)
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
    spec, training = inputs.spec, training_of(settings, model)
    with late_tables():
        made = make_model(model, spec, seed)
    parts: dict[str, Examples | ExampleFile] = {
        split: inputs.prepared.within(split, training.memory) for split in SPLITS
    }
    if share is not None and share[0] < 1:
        parts["train"] = sampled(parts["train"], *share, out / SAMPLE, training.memory)
    boosted = isinstance(made, BoostedTrees)
    if (settings.negatives.uniform or settings.negatives.retrieved) and not boosted:
        parts["train"] = mixed(parts["train"], settings, inputs.graph)
    feeds = {
        split: Feed(inputs.prepared, inputs.graph, part, made.needs, spec) for split, part in parts.items()
    }
    fitting = feeds["train"], feeds["valid"], training, out, on_progress, seed
    return made, feeds, fit_trees(made, *fitting) if boosted else fit(made, *fitting, resume)


def mixed(train: Examples | ExampleFile, settings: RunSettings, graph: MacroGraph) -> Examples:
    """Add uniform and retrieved negatives to training rows: to those of exposures, items not shown.

    Raises:
        TrainingError: The rows are streamed.
    """
    if not isinstance(train, Examples):
        raise TrainingError(
            "training.memory",
            f"training rows with uniform or retrieved negatives must fit into memory, found {len(train):,} "
            f"rows that take more than {settings.training.memory:g} GiB; raise it, or set "
            "negatives.uniform and negatives.retrieved to 0",
        )
    how = retrieval_of(settings.retrieval, graph.latest.n_items) or RetrievalSettings()
    add = mixed_negatives if settings.form == "events" else unexposed_negatives
    return add(train, graph, settings.tasks, settings.negatives, how)


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


def _write(
    folder: Path,
    settings: RunSettings,
    inputs: Inputs,
    model: RankingModel,
    feeds: Mapping[str, Feed],
    scores: Mapping[str, NDArray[np.float32]],
    facts: dict[str, Any],
) -> None:
    """Measure the predictions and write the cell, its metrics last."""
    rows: list[Row] = []
    tasks, about = inputs.spec.tasks, {"model": facts["model"], "seed": facts["seed"]}
    for split, predictions in scores.items():
        examples = feeds[split].examples
        slices = inputs.slices if settings.evaluation.slices and split == "test" else None
        rows += measure(predictions, examples.labels, examples.user, tasks, slices, **about, split=split)
    calibration, calibrated, served = calibrate_cell(scores, settings, inputs)
    test = feeds["test"].examples
    rows += measure_calibrated(calibrated, test.labels, tasks, **about, split="test")
    write_json(folder / CALIBRATION, calibration.model_dump(mode="json"))
    write_json(folder / POPULATION, population_of(feeds["test"], served).model_dump(mode="json"))
    user_influence(scores["test"], test.labels, test.user, tasks).save(folder / INFLUENCE)
    write_json(folder / RELIABILITY, reliability(scores["test"], test.labels, tasks))
    if settings.evaluation.ranking_queries:
        rows += catalog(model, settings, inputs, **about)
    write_text(folder / "spec.json", inputs.spec.to_json())
    write_json(folder / FIT, facts)
    write_rows(folder / DONE, rows)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def calibrate_cell(
    scores: Mapping[str, NDArray[np.float32]], settings: RunSettings, inputs: Inputs
) -> tuple[Calibration, NDArray[np.float64], NDArray[np.float32]]:
    """Calibrate on validation and predict test; then calibrate on test, whose labels are the newest.

    Test examples read a snapshot from before the test window, so both calibrations come from predictions that
    did not know their labels.

    Returns:
        The calibration for a bundle, fitted on test; the calibrated predictions of the test examples, fitted
        on validation; and what a service of the bundle would answer for them. Shape (N, T) each.
    """

    def window(split: Split) -> Window:
        examples = inputs.prepared.streamed(split)
        items, snapshots = examples.column("item"), examples.column("snapshot")
        shift = np.empty(len(items), np.float32)
        for number in np.unique(snapshots):
            rows = snapshots == number
            shift[rows] = shift_of(inputs.prior(inputs.graph.snapshots[number]), items[rows])
        return Window.of(scores[split], shift, examples.labels, examples.column("bucket"), settings)

    test = window("test")
    of_valid = fit_calibration(window("valid"), settings.tasks, Calibration())
    of_test = fit_calibration(test, settings.tasks, of_valid)
    served = calibrate(test.undone.astype(np.float32), *of_test.numbers(settings.tasks))
    return of_test, calibrated_sample(test, settings.tasks, of_valid), served


def catalog(
    fitted: RankingModel, settings: RunSettings, inputs: Inputs, *, model: str, seed: int
) -> list[Row]:
    """Return HR@k and NDCG@k on test over the whole catalogue.

    A query is a user in a test window, which reads the snapshot before it. The catalogue is the items that
    all of these snapshots know. They are scored as a bundle scores them: with the sampling of negatives
    undone. A task within a sample space ranks items by the probability that the task is done at all.
    """
    prepared, first = inputs.prepared, inputs.prepared.valid_window + 1
    test, unknown = prepared.streamed("test"), prepared.context_features
    snapshots = inputs.graph.snapshots[first : len(prepared.cuts)]
    scorers = [
        PairScorer(fitted, View.of(snapshot, prepared.user_side, prepared.item_side))
        for snapshot in snapshots
    ]
    priors = [inputs.prior(snapshot) for snapshot in snapshots]
    users = int(prepared.users_at[-1])
    query = test.user + users * (test.column("snapshot").astype(np.int64) - first)

    def score(queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        window, user = np.divmod(queries, users)  # windows rise, as queries do
        parts = []
        for number in np.unique(window):
            of = window == number
            learned = scorers[number](user[of], items[of], unknown.encode({}, int(of.sum())))
            shift = shift_of(priors[number], items[of])
            parts.append(undo_sampling(learned, shift, shifted_tasks(settings.tasks)))
        return in_whole_space(np.concatenate(parts), settings.tasks)

    return rank_catalog(
        score,
        test.labels,
        query,
        test.column("item"),
        fitted.spec.tasks,
        catalog=int(prepared.items_at[first]),
        queries=settings.evaluation.ranking_queries,
        k=settings.evaluation.k,
        model=model,
        seed=seed,
        split="test",
        query_seed=settings.evaluation.seed,
    )


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
