"""Later rows of a bundle's log as labelled examples: to calibrate it and to measure it."""

import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import ibis.expr.types as ir

from mgoe.bundle import Bundle
from mgoe.config import RunSettings
from mgoe.data import Encoders, Examples, newest_window, place_of
from mgoe.data.log import unreadable
from mgoe.evaluation import Row, measure
from mgoe.experiments.graphs import opened_log, settings_of

LATER = "later"
"""Name of the split of rows that came after a bundle was made."""


def measure_log(bundle: Bundle, log: list[str]) -> list[Row]:
    """Measure a bundle on later rows of its log, read as the log was.

    Positives of an event log get negatives as the test split does, and the model's own probabilities are
    measured on them, so that results compare with those on test. An exposure log is measured with the
    probabilities that the bundle gives.

    Args:
        bundle: It reads the snapshot that it holds for every row.
        log: Files that hold only later rows.

    Raises:
        MgoeError: The log cannot be read, a row breaks a rule, or no row does a task.
    """
    with tempfile.TemporaryDirectory(prefix="mgoe-") as folder:
        examples = new_examples(bundle, settings_of(bundle.graph, log), log, Path(folder, "window"))
    shown = bundle.settings.form == "exposures"
    scores = bundle.score_indices(examples.user, examples.item, examples.context, recalibrated=shown)
    return measure(
        scores,
        examples.labels,
        examples.user,
        bundle.settings.tasks,
        model=bundle.manifest["model"]["name"],
        seed=0,
        split=LATER,
    )


def new_examples(
    bundle: Bundle,
    settings: RunSettings,
    log: list[str],
    folder: Path,
    table: ir.Table | None = None,
    training: Encoders | None = None,
) -> Examples:
    """Return new rows as examples, see `newest_window`.

    Args:
        bundle: Gives sample spaces and the sampling of negatives.
        settings: How the rows are read.
        log: Their files.
        folder: A folder to make for the work, and to remove.
        table: Read instead of the files.
        training: Gives the indices of ids of rows that are trained on, with their weights. By default rows
            are measured, and ids are those of the bundle.

    Raises:
        DataError: The rows cannot be read, break a rule, or do no task.
    """
    place = "the live events" if table is not None else place_of(log)
    spaces = {task.name: task.given for task in bundle.settings.tasks}
    tasks = [task.model_copy(update={"given": spaces[task.name]}) for task in settings.tasks]
    weight = bundle.settings.data.weight if training else None
    data = settings.data.model_copy(update={"weight": weight})
    negatives = bundle.settings.negatives.of_training if training else bundle.settings.negatives
    settings = settings.model_copy(update={"tasks": tasks, "negatives": negatives, "data": data})
    folder.mkdir()
    try:
        with opened_log(settings, log, folder, table) as source:
            return newest_window(source, settings, training or bundle.encoders, place, time.time_ns() // 1000)
    except duckdb.Error as error:
        raise unreadable(place, error) from None
    finally:
        shutil.rmtree(folder)
