"""New files of a bundle's log, before its weights learn from them: checked, and without rows that wait for
labels."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from mgoe._util.files import as_pattern
from mgoe.bundle import Bundle
from mgoe.bundle.lineage import iso_time
from mgoe.config import RunSettings, seconds
from mgoe.data import place_of
from mgoe.data.log import unreadable
from mgoe.data.waiting import longest_delay, span, split_by_labels, waits
from mgoe.errors import DataError
from mgoe.experiments.graphs import opened_log, settings_of
from mgoe.experiments.stages import Say

GAP = 2
"""Time buckets without a row from which a gap is reported."""


def with_files(settings: RunSettings, log: Sequence[str]) -> RunSettings:
    """Return settings whose log has further files, each named once: a full training reads all of them."""
    data = settings.data
    files = list(dict.fromkeys([*data.log, *map(os.path.abspath, log)]))
    return settings.model_copy(update={"data": data.model_copy(update={"log": files})})


def span_of(settings: RunSettings, log: list[str], folder: Path) -> tuple[int, int]:
    """Return the times of the first and of the last row of files, in microseconds since 1970.

    Args:
        settings: How they are read.
        log: The files.
        folder: An existing folder for the work.

    Raises:
        DataError: A row breaks a rule, or there is none.
    """
    with (
        tempfile.TemporaryDirectory(dir=folder) as work,
        opened_log(settings, log, Path(work), None) as source,
    ):
        try:
            return span(source, settings, place_of(log))
        except duckdb.Error as error:
            raise unreadable(place_of(log), error) from None


def learned_until(bundle: Bundle) -> int:
    """Return the time of the newest row that a bundle has learned from, in microseconds since 1970.

    A graph says when its newest label was known, by the delay of the labels after its row. The manifest also
    counts rows on which nothing was done.
    """
    of_graph = int(bundle.graph.meta["last"]) - longest_delay(bundle.settings.tasks)
    return max(of_graph, bundle.manifest.get("rows_until") or of_graph)


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
    settings, last = settings_of(bundle.graph, log), learned_until(bundle)
    first, _ = span_of(settings, log, folder)
    if any(task.known_at is not None for task in settings.tasks):
        return
    if first <= last:
        raise DataError(
            place_of(log),
            f"new rows must come after those that the bundle holds, until {iso_time(last)}, found the first "
            f"at {iso_time(first)}; leave out what it holds, or keep the"
            " weights, which takes late rows",
        )
    missing = (first - last) // (seconds(settings.data.bucket) * 1_000_000)
    if missing >= GAP:
        say(f"no row is between {iso_time(last)} and {iso_time(first)}; is a file missing?")


def known_rows(
    bundle: Bundle, log: list[str], waiting: list[Path], folder: Path, now: int
) -> tuple[list[str], list[Path]]:
    """Return files with the rows whose labels are all known, and files with the others.

    Args:
        bundle: The bundle.
        log: New files. A row in them replaces the same exposure that waits: its labels are newer.
        waiting: Files of exposures that have waited.
        folder: An existing folder, of this work alone.
        now: The present in microseconds since 1970.

    Raises:
        DataError: A row breaks a rule.
    """
    settings, found = settings_of(bundle.graph, log), dict[str, list[Path]](known=[], waiting=[])
    data = settings.data
    if not waits(settings):
        return log, []
    same = [name for name in (data.user, data.item, data.time, data.request) if name is not None]
    with opened_log(settings, log, folder, None) as source:
        con = source.get_backend()
        held = [con.read_parquet(as_pattern(file)).anti_join(source, same) for file in waiting]
        for number, rows in enumerate([source, *held]):
            try:
                parts = split_by_labels(rows, settings, place_of(log), now)
                for name, part in zip(found, parts, strict=True):
                    file = folder / f"{name}-{number}.parquet"
                    part.to_parquet(file)
                    found[name] += [file] * bool(pq.read_metadata(file).num_rows)
            except duckdb.Error as error:
                raise unreadable(place_of(log), error) from None
    return [str(file) for file in found["known"]], found["waiting"]
