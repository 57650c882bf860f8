"""Refit: weights learn the newest rows once validation has chosen.

A model has three states. *Chosen* weights have learned the training rows; by their predictions on validation
the epoch, the calibration and the blend of lists are chosen, and trials of a search are compared. *Tested*
weights have learned the validation rows too, and every figure on test is theirs. *Served* weights have
learned the test rows too, and are those of a bundle. Without a refit all three are the chosen ones.
"""

from dataclasses import replace
from pathlib import Path

from mgoe._util.files import read_json, write_text
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.manifest import State
from mgoe.bundle.training_state import start_from
from mgoe.config import ModelSettings, RunSettings, check_settings
from mgoe.data import SPLITS, ExampleFile, Examples, Split
from mgoe.errors import TrainingError
from mgoe.features import FeatureSpec
from mgoe.models import BoostedTrees, RankingModel, late_tables, make_model
from mgoe.pipeline.folder import CALIBRATION
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, is_boosted, retraining_of, training_of
from mgoe.training import (
    OPTIMIZER,
    WEIGHTS,
    Feed,
    FitResult,
    OnProgress,
    ProcessGroup,
    Replay,
    ReplayFeed,
    fit,
    fit_trees,
    load_weights,
    sizes_until,
)
from mgoe.training.boosted import load_trees
from mgoe.training.step import first_not_finite

LEARNED: dict[State, tuple[Split, ...]] = {
    "chosen": ("train",),
    "tested": ("train", "valid"),
    "served": SPLITS,
}
"""The splits that each state has learned."""
SPEC = "spec.json"


def folder_of(cell: Path, state: State) -> Path:
    """Return the folder with the weights of a finished cell in a state."""
    return folder if (folder := cell / state).is_dir() else cell


def refit(
    state: State,
    model: ModelSettings,
    seed: int,
    settings: RunSettings,
    inputs: Inputs,
    cell: Path,
    epochs: int,
    memory: float,
    on_progress: OnProgress | None = None,
    resume: bool = True,
) -> tuple[RankingModel, FitResult]:
    """Train a model on the rows of a state, nothing held out, and write its weights.

    Trained anew, it takes the epochs that validation chose, with the same learning rates, or as many trees,
    and all that belongs to a training part is fitted to the larger one. Continued, it starts from the weights
    and optimisers of the state before.

    Args:
        state: `tested` or `served`.
        model: Resolved settings of the model.
        seed: Seed of the model.
        settings: Settings of the run.
        inputs: The log and the graph.
        cell: Folder of the cell, which holds the states before; this one is written to a folder of its name.
        epochs: The epoch that was chosen.
        memory: GiB that rows may take; more are streamed.
        on_progress: Callback every few steps.
        resume: Resume from the latest checkpoint.

    Raises:
        TrainingError: The training fails.
    """
    out, learned, training = cell / state, LEARNED[state], training_of(settings, model)
    read = inputs.prepared, inputs.graph
    if training.refit == "anew" or is_boosted(model):
        spec, rows = inputs.spec_of(model, learned), inputs.prepared.within(learned, memory)
        return train_anew(model, spec, rows, seed, settings, inputs, cell, out, epochs, on_progress, resume)
    former, ours = cell if state == "tested" else cell / "tested", settings.retrain
    before, rows = _spec(former), inputs.prepared.streamed(learned[-1]).read()
    users, items = sizes_until(inputs.prepared, learned[-1])
    made = _made(model, replace(before, n_users=users, n_items=items), seed, out)
    old = Feed(*read, inputs.prepared.streamed(learned[:-1]), made.needs, before)
    replayed = Replay.of(old, ours.memory, seed).for_spec(before, made.spec, made.needs)
    feed = ReplayFeed(*read, rows, made.needs, made.spec, replayed, round(ours.replay * len(rows)), seed)
    start = start_from(former / WEIGHTS, former / OPTIMIZER)
    untracked = retraining_of(settings, model).model_copy(update={"track": "none"})
    result = fit(made, feed, None, untracked, out, on_progress, seed, resume, start)
    _check_finite(made, out)
    return made, result


def train_anew(
    model: ModelSettings,
    spec: FeatureSpec,
    rows: Examples | ExampleFile,
    seed: int,
    settings: RunSettings,
    inputs: Inputs,
    cell: Path,
    out: Path,
    epochs: int,
    on_progress: OnProgress | None = None,
    resume: bool = True,
) -> tuple[RankingModel, FitResult]:
    """Train fresh weights on some rows, nothing held out, for the epochs or trees that a cell has chosen.

    Args:
        model: Resolved settings of the model.
        spec: Specification of what it reads, fitted to the rows.
        rows: What it learns.
        seed: Seed of the model.
        settings: Settings of the run.
        inputs: The log and the graph.
        cell: Folder of the cell, which has the trees that were chosen.
        out: Folder of the weights.
        epochs: The epoch that was chosen.
        on_progress: Callback every few steps.
        resume: Resume from the latest checkpoint.

    Raises:
        TrainingError: The training fails.
    """
    made = _made(model, spec, seed, out)
    feed = Feed(inputs.prepared, inputs.graph, rows, made.needs, made.spec)
    training = training_of(settings, model).model_copy(update={"track": "none"})
    fitting = feed, None, training, out, on_progress, seed
    if isinstance(made, BoostedTrees):
        load_trees(made, cell)
        trees = [0 if one is None else one.num_trees() for one in made.boosters]
        result = fit_trees(made, *fitting, settings.memory, trees)
    else:
        result = fit(made, *fitting, resume, epochs=epochs)
    _check_finite(made, out)
    return made, result


def _check_finite(made: RankingModel, out: Path) -> None:
    if name := first_not_finite(made):
        raise TrainingError(out, f"weights must be finite, found {name!r}; lower training.learning_rate")


def _spec(folder: Path) -> FeatureSpec:
    return FeatureSpec.from_json((folder / SPEC).read_text(encoding="utf-8"))


def _made(model: ModelSettings, spec: FeatureSpec, seed: int, out: Path) -> RankingModel:
    if ProcessGroup.current().leads:
        write_text(out / SPEC, spec.to_json())
    with late_tables():
        return make_model(model, spec, seed)


def load_model(cell: Cell, inputs: Inputs, state: State = "tested") -> RankingModel:
    """Return the model of a finished cell with its weights in a state."""
    folder = folder_of(cell.folder, state)
    spec = FeatureSpec.from_json((folder / SPEC).read_text(encoding="utf-8"))
    settings = inputs.resolve_ids(cell.model)
    model = make_model(settings, spec, cell.seed)
    if is_boosted(settings):
        assert isinstance(model, BoostedTrees)
        load_trees(model, folder)
    else:
        load_weights(model, folder / WEIGHTS)
    return model.eval()


def load_calibration(cell: Cell, fitted_on: Split) -> Calibration:
    """Return a calibration of a finished cell: that of `valid` knows nothing of the test window."""
    file = cell.folder / CALIBRATION
    return check_settings(Calibration, read_json(file)[fitted_on], file)
