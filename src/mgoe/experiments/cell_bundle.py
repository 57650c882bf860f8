"""The bundle of a finished cell."""

from collections.abc import Sequence
from pathlib import Path

from mgoe._util.files import read_json
from mgoe.bundle import write_bundle
from mgoe.bundle.held import read_held
from mgoe.bundle.training_state import keep_of_cell
from mgoe.evaluation import Estimate, Row
from mgoe.experiments.blending import fit_blend
from mgoe.experiments.fitted import load_calibration, load_model
from mgoe.experiments.folder import FIT
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell
from mgoe.training import Feed


def write_cell_bundle(
    out: Path,
    cell: Cell,
    inputs: Inputs,
    rows: Sequence[Row] = (),
    estimates: Sequence[Estimate] = (),
) -> None:
    """Write the bundle of a cell atomically, and what a retraining needs beside it.

    Args:
        out: Folder to write; an existing one is replaced.
        cell: A finished cell with its weights.
        inputs: The log and the graph that it was trained on.
        rows: Metrics to store with it.
        estimates: Test metrics with their intervals, for the model card.
    """
    model, calibration = load_model(cell, inputs), load_calibration(cell, "test")
    write_bundle(
        out,
        settings=cell.settings,
        model=inputs.resolve_ids(cell.model),
        cell=cell.folder,
        prepared=inputs.prepared,
        graph=inputs.graph,
        metrics=rows,
        calibration=calibration,
        estimates=estimates,
        cost=read_json(cell.folder / FIT),
        sampling=inputs.sampling,
        retrieval=inputs.retrieval,
        blend=fit_blend(model, inputs, calibration),
        held=read_held(inputs.prepared.path.parent),
    )
    train = inputs.prepared.streamed("train")
    feed = Feed(inputs.prepared, inputs.graph, train, model.needs, model.spec)
    keep_of_cell(cell.folder, feed, cell.settings.retrain.memory, out)
