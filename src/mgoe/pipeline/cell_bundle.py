"""The bundle of a finished cell."""

from collections.abc import Sequence
from pathlib import Path

from mgoe._util.files import read_json
from mgoe.bundle import write_bundle
from mgoe.bundle.held import read_held
from mgoe.bundle.manifest import State
from mgoe.bundle.training_state import keep_of_cell
from mgoe.evaluation import Estimate, Row
from mgoe.pipeline.blending import fit_blend
from mgoe.pipeline.folder import FIT
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell
from mgoe.pipeline.refit import LEARNED, folder_of, load_calibration, load_model
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
    served = folder_of(cell.folder, "served")
    state: State = "chosen" if served == cell.folder else "served"
    model, calibration = load_model(cell, inputs, state), load_calibration(cell, "test")
    blended = model, calibration
    if (
        state == "served"
    ):  # a blend is fitted by weights that have not learned validation, as for lists on test
        blended = load_model(cell, inputs, "chosen"), load_calibration(cell, "valid")
    write_bundle(
        out,
        settings=cell.settings,
        model=inputs.resolve_ids(cell.model),
        cell=served,
        prepared=inputs.prepared,
        graph=inputs.graph,
        metrics=rows,
        calibration=calibration,
        estimates=estimates,
        cost=read_json(cell.folder / FIT),
        sampling=inputs.sampling,
        retrieval=inputs.retrieval,
        blend=fit_blend(blended[0], inputs, blended[1]),
        held=read_held(inputs.prepared.path.parent),
        state=state,
    )
    learned = inputs.prepared.streamed(LEARNED[state])
    feed = Feed(inputs.prepared, inputs.graph, learned, model.needs, model.spec)
    keep_of_cell(served, feed, cell.settings.retrain.memory, out)
