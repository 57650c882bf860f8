"""What the processes of a comparison do: draw a world, prepare a log, build a graph, tune a model, fit a cell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import write_json
from mgoe.config import RunSettings, TuneSettings
from mgoe.data import Prepared
from mgoe.errors import OutputError
from mgoe.evaluation import write_rows
from mgoe.experiments.cell import Inputs, run_cell
from mgoe.experiments.judged_rows import Judged, odd_seed
from mgoe.experiments.model_resolution import decided
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Entry, Log
from mgoe.experiments.references import reference_rows
from mgoe.experiments.stages import prepare_data, source_of
from mgoe.experiments.tuning import best_of, search
from mgoe.graph import build_graph
from mgoe.simulation import simulate


def draw_world(log: Log) -> None:
    """Draw a simulated log, unless it lies there."""
    assert log.world is not None
    if not (log.path / "world").exists():
        simulate(log.world, log.path / "world", form="events")


def prepare_log(log: Log, seed: int, seeds: Sequence[int], cells: Judged) -> dict[str, Any]:
    """Prepare a log with the training negatives of a seed, unless it is.

    Args:
        log: The log.
        seed: Of the negatives.
        seeds: All of the comparison.
        cells: Which are finished, by the rows they were judged on.

    Returns:
        The summary.

    Raises:
        OutputError: Its cells would be judged on other rows than the others of the log.
    """
    settings, folder = log.settings(seed), log.stage(seed)
    prepared = prepare_data(settings, folder)
    if not (folder / EXAMPLES).exists():
        note_examples(folder)
    if odd := odd_seed(log, seed, seeds, cells):
        raise OutputError(folder, odd)
    if not (log.path / REFERENCES).exists():
        write_rows(log.path / REFERENCES, reference_rows(settings, prepared))
    return prepared.summary


def build(settings: RunSettings, stage: Path, graph: Path) -> None:
    """Build a graph, unless it is."""
    if not graph.exists():
        graph.parent.mkdir(parents=True, exist_ok=True)
        build_graph(source_of(settings, Prepared.open(stage / "data")), settings.graph, graph)


def fit_entry(entry: Entry, tuned: Path | None) -> dict[str, Any]:
    """Fit and measure one cell. Returns the facts of the fit."""
    settings, stage = entry.settings, entry.log.stage(entry.seed)
    inputs = Inputs(stage, settings, entry.log.graph(entry.seed, entry.contestant))
    [model] = decided([entry.contestant.settings(best_of(tuned) if tuned else None)], inputs.prepared)
    return run_cell(entry.cell(model), settings, inputs, show_progress=False)


def tune_model(entry: Entry, tune: TuneSettings, out: Path) -> int:
    """Search settings of a model on the log and the seed of an entry, or go on with the search. Returns the number of trials."""
    settings = entry.settings
    inputs = Inputs(entry.log.stage(entry.seed), settings, entry.log.graph(entry.seed))
    [model] = decided([entry.contestant.settings()], inputs.prepared)
    return search(model, entry.seed, settings, tune, inputs, out)


def note_examples(stage: Path) -> None:
    """Note of which rows a prepared log is judged on."""
    prepared = Prepared.open(stage / "data")
    write_json(stage / EXAMPLES, {split: checksum(prepared, split) for split in ("valid", "test")})


def checksum(prepared: Prepared, split: Any) -> str:
    """Of the rows that are judged: the same for every seed and every model of a log."""
    digest = hashlib.sha256()
    for part in prepared.streamed(split).parts():
        for column in (part.user, part.item, part.bucket, part.labels):
            digest.update(column.tobytes())
    return digest.hexdigest()[:16]
