"""The bundle of a finished cell."""

from collections.abc import Sequence
from pathlib import Path

from mgoe._util.files import read_json
from mgoe.bundle import Bundle, write_bundle
from mgoe.bundle.calibration import Calibration
from mgoe.config import check_settings
from mgoe.evaluation import Estimate, Row
from mgoe.experiments.cell import Inputs
from mgoe.experiments.folder import CALIBRATION, FIT
from mgoe.experiments.plan import Cell
from mgoe.experiments.training_state import keep_of_cell


def write_cell_bundle(
    out: Path,
    cell: Cell,
    inputs: Inputs,
    rows: Sequence[Row] = (),
    estimates: Sequence[Estimate] = (),
    searched: bool = False,
) -> None:
    """Write the bundle of a cell atomically, and what a retraining needs beside it.

    Args:
        out: Folder to write; an existing one is replaced.
        cell: A finished cell with its weights.
        inputs: The log and the graph that it was trained on.
        rows: Metrics to store with it.
        estimates: Test metrics with their intervals, for the model card.
        searched: The model has the settings that its search found.
    """
    file = cell.folder / CALIBRATION
    calibration = read_json(file) if file.exists() else {}  # cells of earlier versions have none
    write_bundle(
        out,
        settings=cell.settings,
        model=inputs.decided(cell.model(searched)),
        cell=cell.folder,
        prepared=inputs.prepared,
        graph=inputs.graph,
        metrics=rows,
        calibration=check_settings(Calibration, calibration, file),
        estimates=estimates,
        cost=read_json(cell.folder / FIT),
        sampling=inputs.sampling,
        retrieval=inputs.retrieval,
    )
    keep_of_cell(cell.folder, inputs.prepared, inputs.graph, Bundle.open(out, verify=False))
