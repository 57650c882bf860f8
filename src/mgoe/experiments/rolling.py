"""How much a day of age costs: trainings of a model of a run that end at its last windows, each measured on
all later ones.

Every training learns as many rows, the newest before its end, for the epochs that validation chose in the
run. So what an older one lacks is newer rows and nothing else. Each row reads the snapshot before its window,
whatever the age of the weights: the graph of a service is as new.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mgoe._util.files import GIB, exclusive, read_json, write_json
from mgoe.config import load_settings, seconds
from mgoe.data import SPLITS
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import DAY, Influence, estimate_ages, user_influence
from mgoe.evaluation.age import Cells, Place
from mgoe.evaluation.intervals import Number
from mgoe.evaluation.rows import MEAN
from mgoe.features import GROUPS
from mgoe.models import RankingModel
from mgoe.pipeline.cell import EXAMPLE_SHARES
from mgoe.pipeline.cell_results import ordered_only
from mgoe.pipeline.folder import FIT, SETTINGS, is_finished
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, Plan
from mgoe.pipeline.refit import train_anew
from mgoe.training import Feed, predict, progress_bar, some_rows, spec_of_rows

ROLLING = "rolling"
"""Folder of the measured trainings in a run."""
DAY_SECONDS = 86_400
MIN_TRAININGS = 3
"""With two, no interval can be told."""


@dataclass(frozen=True)
class AgeLoss:
    """What weights of some age lose in a metric."""

    windows: Annotated[
        int | None, Field(description="Age in windows; null for the loss per day, over weights of all ages.")
    ]
    days: Annotated[float, Field(description="The same age in days.")]
    task: str
    metric: str
    value: Annotated[Number, Field(description="Mean over seeds; positive is worse.")]
    low: Annotated[
        Number,
        Field(description="95 % interval over users and trainings; none if a single training was so old."),
    ]
    high: Number
    users: Annotated[int, Field(description="Users (or groups of them) that contribute.")]


@dataclass(frozen=True)
class Ageing:
    """How much a day of age costs a model.

    Attributes:
        model: Its name.
        losses: By age, task and metric.
        threshold: Loss of the mean over tasks at which weights are too old.
        update_after: Days after which weights have lost so much; None if that is not measurable.
        trainings: How many were measured per seed.
        seeds: How many.
        rows: Rows that each has learned.
        seconds: What they took.
    """

    model: str
    losses: list[AgeLoss]
    threshold: float
    update_after: float | None
    trainings: int
    seeds: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class _Triangle:
    """The trainings of a run and the rows that they read.

    Attributes:
        inputs: The log and the graph of the run.
        snapshot: Window of each row of all splits, which rises. Shape (N,).
        firsts: The first window that each training has not learned; the windows that are measured.
        rows: How many rows each training learns.
        measured: Rows of a window, at most, that are measured.
    """

    inputs: Inputs
    snapshot: NDArray[np.int16]
    firsts: range
    rows: int
    measured: int

    def learned(self, first: int) -> NDArray[np.int64]:
        """Return the numbers of the rows that a training learns."""
        end = int(np.searchsorted(self.snapshot, first))
        return np.arange(end - self.rows, end)

    def of_window(self, window: int) -> NDArray[np.int64]:
        """Return the numbers of the rows that are measured of a window."""
        start, end = np.searchsorted(self.snapshot, [window, window + 1])
        return start + some_rows(int(end - start), self.measured, 0)


def measure_ageing(
    run: Path | str,
    trainings: int,
    threshold: float = 0.001,
    model: str | None = None,
    show_progress: bool = True,
) -> Ageing:
    """Train a model of a finished run up to each of its last windows, and measure what age costs.

    An interrupted measurement resumes, and a finished one is read. The trainings are those of every seed of
    the run.

    Args:
        run: Its folder, in which measurements are stored.
        trainings: How many, and of how many windows.
        threshold: Loss of the mean over tasks at which weights are too old.
        model: Name of one of the run's models; the first by default.
        show_progress: Show bars of training, on a terminal or in a notebook.

    Raises:
        OutputError: The folder holds no finished run.
        ConfigError: The run has too few windows, or no such model.
        TrainingError: A training fails.
    """
    path = Path(run)
    if not is_finished(path):
        raise OutputError(path, "holds no finished run; name the folder of one, or finish it")
    plan = Plan(settings := load_settings(path / SETTINGS), path)
    cells = plan.chosen([name := plan.comparison.lead if model is None else model])
    with exclusive(path, "a measurement of age"):
        inputs = Inputs.open(path, settings)
        windows = len(inputs.prepared.cuts)
        if not MIN_TRAININGS <= trainings < windows:
            raise ConfigError(
                "--rolling",
                f"must be at least {MIN_TRAININGS} and less than the {windows} windows of the run, found "
                f"{trainings}; for more windows, add `split.cuts`",
            )
        triangle = _triangle(inputs, windows - trainings, settings.memory)
        folder = path / ROLLING / str(trainings) / name
        found = [_measured(cell, triangle, folder, show_progress) for cell in cells]
    cuts = inputs.prepared.cuts.astype(np.int64) * seconds(settings.data.bucket) / DAY_SECONDS
    days = {place: float(cuts[place[1]] - cuts[place[0]]) for place in found[0][0]}
    losses = _losses([cells for cells, _ in found], days)
    return Ageing(
        name,
        losses,
        threshold,
        days_until(losses, threshold),
        trainings,
        len(cells),
        triangle.rows,
        round(sum(took for _, took in found), 1),
    )


def days_until(losses: Sequence[AgeLoss], threshold: float) -> float | None:
    """Return the age at which the loss per day adds up to a threshold on the mean over tasks.

    Returns:
        Days; None if the interval of the loss per day holds zero, or no training was measured at that age.
    """
    oldest = max(one.days for one in losses)
    per_day = [one for one in losses if (one.task, one.metric) == MEAN and one.windows is DAY and one.low > 0]
    return next((threshold / one.value for one in per_day if threshold / one.value <= oldest), None)


def _triangle(inputs: Inputs, first: int, memory: float) -> _Triangle:
    """Return the trainings from a first window on, each of as many rows as the first one has."""
    file = inputs.prepared.streamed(SPLITS)
    snapshot, most = file.column("snapshot"), memory * GIB / file.row_bytes
    rows = min(int(np.searchsorted(snapshot, first)), int(most * EXAMPLE_SHARES["train"]))
    firsts = range(first, len(inputs.prepared.cuts))
    return _Triangle(inputs, snapshot, firsts, rows, int(most * EXAMPLE_SHARES["test"]))


def _measured(cell: Cell, triangle: _Triangle, folder: Path, show_progress: bool) -> tuple[Cells, float]:
    """Return the metrics of each training of a seed on each later window, and the seconds that they took."""
    found, took = dict[Place, Influence](), 0.0
    fit = read_json(cell.folder / FIT)
    asked = {"epochs": fit["best_epoch"], "value": fit["best_value"], "rows": triangle.rows}
    for first in triangle.firsts:
        out = folder / str(cell.seed) / str(first)
        if not (out / FIT).exists() or not asked.items() <= read_json(out / FIT).items():
            model, trained_in = _train(cell, triangle, first, out, asked["epochs"], show_progress)
            started = time.perf_counter()
            for window in range(first, triangle.firsts.stop):
                _measure(model, triangle, window).save(out / f"{window}.safetensors")
            shutil.rmtree(out / "fit")
            took_here = trained_in + time.perf_counter() - started
            write_json(out / FIT, asked | {"seconds": took_here})  # says that it is finished
        took += read_json(out / FIT)["seconds"]
        for window in range(first, triangle.firsts.stop):
            found[first, window] = Influence.load(out / f"{window}.safetensors")
    return found, took


def _train(
    cell: Cell, triangle: _Triangle, first: int, out: Path, epochs: int, show_progress: bool
) -> tuple[RankingModel, float]:
    """Train a model on the rows before a window, and return it with the seconds."""
    inputs, prepared = triangle.inputs, triangle.inputs.prepared
    model, rows = inputs.resolve_ids(cell.model), prepared.streamed(SPLITS).take(triangle.learned(first))
    sizes = int(prepared.users_at[first]), int(prepared.items_at[first])
    spec = spec_of_rows(prepared, inputs.graph, {*GROUPS, *(model.inputs or ())}, rows, *sizes)
    title = f"{model.name}, seed {cell.seed}, until window {first}"
    given = cell.seed, cell.settings, inputs, cell.folder, out / "fit", epochs
    with progress_bar(title) if show_progress else nullcontext() as on_progress:
        made, fitted = train_anew(model, spec, rows, *given, on_progress)
    return made, fitted.seconds


def _measure(model: RankingModel, triangle: _Triangle, window: int) -> Influence:
    """Return the metrics of a model on a window."""
    inputs = triangle.inputs
    rows = inputs.prepared.streamed(SPLITS).take(triangle.of_window(window))
    scores = predict(model, Feed(inputs.prepared, inputs.graph, rows, model.needs, model.spec))
    found = user_influence(scores, rows.labels, rows.user, model.spec.tasks)
    if not model.probabilistic:
        ordered_only([], found)
    return found


def _losses(by_seed: Sequence[Cells], days: Mapping[Place, float]) -> list[AgeLoss]:
    """Return the mean over seeds of what each age loses, with its interval."""
    found = []
    for age, estimates in estimate_ages("", by_seed, days).items():
        of_age = [one for (first, window), one in days.items() if window - first == age]
        long = 1.0 if age is DAY else float(np.mean(of_age))
        for one in estimates:
            values = one.task, one.metric, one.value, one.low, one.high, one.users
            found.append(AgeLoss(age, long, *values))
    return found
