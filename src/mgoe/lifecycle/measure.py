"""A bundle measured on later rows of its log."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.progress import hidden
from mgoe.bundle import Bundle
from mgoe.bundle.manifest import iso_time
from mgoe.config import seconds
from mgoe.data import Examples, Prepared
from mgoe.data.columns import Table, only_row
from mgoe.errors import DataError
from mgoe.evaluation import Row, measure
from mgoe.lifecycle.new_rows import NewRows, Sources, learned_until
from mgoe.pipeline.stages import build
from mgoe.training import Feed, predict

LATER = "later"
"""Name of the split of rows that came after a bundle was made."""


def measure_log(bundle: Bundle, log: list[str], run: Path | None = None) -> list[Row]:
    """Measure a bundle on rows of its log that its weights have not learned, read as the log was.

    Positives of an event log get negatives as the test split does, and the model's own probabilities are
    measured on them, so that results compare with those on test. An exposure log is measured with the
    probabilities that the bundle gives.

    Rows later than all that the bundle holds are read as of now. Earlier ones are the outcomes that its graph
    knows. They are measured only if the run of the bundle is there and all of them are later than its
    training windows: each then reads the snapshot before its window, with the model's own probabilities.
    Served weights have learned every earlier row, and are measured on none.

    Args:
        bundle: The bundle.
        log: Files of such rows.
        run: Folder of the run that wrote the bundle, if there is one.

    Raises:
        MgoeError: The log cannot be read, a row breaks a rule or was learned, or no row does a task.
    """
    with tempfile.TemporaryDirectory(prefix="mgoe-") as folder:
        new = NewRows.of(bundle, Sources(log), Path(folder))
        [part] = new.parts
        first = part.span[0]
        past = first <= learned_until(bundle)
        if past:
            _check_not_learned(bundle, first, run, part.place)
        prepared = Prepared.open(run / "data") if past and run is not None else None
        examples = new.examples(items=None if prepared is None else _items_before(prepared, first))
    assert examples is not None  # they are of files
    if prepared is not None:
        scores = _as_of_windows(bundle, examples, prepared)
    else:
        scores = bundle.learned(examples)
        if bundle.settings.form == "exposures":
            scores = bundle.recalibrate(scores, examples.item)
    return measure(
        scores,
        examples.labels,
        examples.user,
        bundle.settings.tasks,
        model=bundle.manifest.model.name,
        seed=0,
        split=LATER,
    )


def _check_not_learned(bundle: Bundle, first: int, run: Path | None, place: str) -> None:
    """Refuse rows that the weights have learned, or whose outcomes the graph knows."""
    until, served = learned_until(bundle), bundle.manifest.weights == "served"
    if run is not None and not served:
        prepared = Prepared.open(run / "data")
        last = int(prepared.cuts[prepared.valid_window])
        until = (last + 1) * seconds(bundle.settings.data.bucket) * 1_000_000 - 1
        if first > until:
            return
    known = "the model has learned" if served or run is not None else "the graph of the bundle holds"
    raise DataError(
        place,
        f"rows to measure on must come after those that {known}, until {iso_time(until)}, found the first "
        f"at {iso_time(first)}: their outcomes are known to it; fit on the earlier part of the log and "
        "evaluate on the later one, or leave the rows out for what was measured on test in training",
    )


def _items_before(prepared: Prepared, moment: int) -> int:
    """Return how many items of a log had an event before a moment; they have the smallest indices."""
    history: Table = prepared.history
    last = only_row(history.filter(history.time < moment).aggregate(last=history.item.max()))["last"]
    return 0 if last is None else last + 1


def _as_of_windows(bundle: Bundle, examples: Examples, prepared: Prepared) -> NDArray[np.float32]:
    """Return predictions of rows of the windows of a run, which read what its own rows do. Shape (N, T)."""
    model = bundle.model
    before = np.searchsorted(prepared.cuts, examples.bucket, side="left") - 1
    dated = replace(examples, snapshot=before.astype(np.int16))
    with hidden():
        graph = build(bundle.settings, prepared, prepared.path.with_name("graph"))
    feed = Feed(prepared, graph, dated, model.needs, model.spec)
    return predict(model, feed)
