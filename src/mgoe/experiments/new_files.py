"""New files of a bundle's log, before its weights learn from them: checked, and without rows that wait for
labels."""

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from mgoe.bundle import Bundle
from mgoe.bundle.lineage import iso_time
from mgoe.config import seconds
from mgoe.data import place_of
from mgoe.data.log import unreadable
from mgoe.data.waiting import span, split_by_labels, waits
from mgoe.errors import DataError
from mgoe.experiments.graphs import opened_log, settings_of
from mgoe.experiments.stages import Say
from mgoe.serving.events.exposure import longest_delay

GAP = 2
"""Time buckets without a row from which a gap is reported."""


def check_new(bundle: Bundle, log: list[str], folder: Path, say: Say) -> None:
    """Check that the rows of files come after those of a bundle, and report a gap between them.

    Args:
        bundle: The bundle.
        log: The files.
        folder: An existing folder for the work.
        say: Callback for lines of progress.

    Raises:
        DataError: Some rows do not come after, or break another rule.
    """
    settings, place = settings_of(bundle.graph, log), place_of(log)
    with opened_log(settings, log, folder, None) as source:
        try:
            first, _ = span(source, settings, place)
        except duckdb.Error as error:
            raise unreadable(place, error) from None
    last = bundle.graph.meta["last"]
    late = longest_delay(settings.tasks)  # a label is history when it is known
    if any(task.known_at is not None for task in settings.tasks):
        return
    if first <= last - late:
        raise DataError(
            place,
            f"new rows must come after those that the bundle holds, until {iso_time(last - late)}, found the "
            f"first at {iso_time(first)}; leave out what it holds, or add late rows by mgoe refresh",
        )
    missing = (first - last) // (seconds(settings.data.bucket) * 1_000_000)
    if missing >= GAP:
        say(f"no row is between {iso_time(last)} and {iso_time(first)}; is a file missing?")


def known_rows(bundle: Bundle, files: Iterable[str], folder: Path, now: int, say: Say) -> list[str]:
    """Return files with the rows whose labels are all known. The others are written as `waiting-*.parquet`.

    Args:
        bundle: The bundle.
        files: New files, and those that have waited.
        folder: An existing folder, of this work alone.
        now: The present in microseconds since 1970.
        say: Callback for lines of progress.

    Raises:
        DataError: A row breaks a rule.
    """
    settings = settings_of(bundle.graph, [])
    if not waits(settings):
        return [*files]
    found, waiting = list[str](), 0
    for number, file in enumerate(files):
        with opened_log(settings, [file], folder, None) as source:
            try:
                parts = split_by_labels(source, settings, file, now)
                for name, rows in zip(("known", "waiting"), parts, strict=True):
                    rows.to_parquet(folder / f"{name}-{number}.parquet")
            except duckdb.Error as error:
                raise unreadable(file, error) from None
        rows = [
            pq.read_metadata(folder / f"{name}-{number}.parquet").num_rows for name in ("known", "waiting")
        ]
        found += [str(folder / f"known-{number}.parquet")] * bool(rows[0])
        waiting += rows[1]
    if waiting:
        say(f"{waiting:,} exposures wait for their labels, and are read with the next log")
    return found
