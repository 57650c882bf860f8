"""The rows that neither of two bundles has learned from, as examples of each: what a release test reads."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe.bundle import Bundle
from mgoe.bundle.lineage import iso_time
from mgoe.data import Examples, place_of
from mgoe.data.log import unreadable
from mgoe.data.waiting import later_rows
from mgoe.errors import ConfigError
from mgoe.experiments.graphs import opened_log, settings_of
from mgoe.experiments.stages import Say
from mgoe.lifecycle.acceptance import missing
from mgoe.lifecycle.new_files import learned_until
from mgoe.lifecycle.new_rows import NewRows
from mgoe.lifecycle.sources import Sources


def window_of(
    candidate: Bundle, current: Bundle, sources: Sources, folder: Path, say: Say = lambda line: None
) -> tuple[Examples, Examples] | None:
    """Return the rows that neither bundle has learned from, as examples of each; None if there are none.

    A candidate with other tasks or inputs, which no window can approve, need not be able to read them: both
    examples are then of the current bundle.

    Args:
        candidate: Made from the current bundle, or later.
        current: What is served.
        sources: Where the rows are.
        folder: An empty folder for the work.
        say: Callback for lines of progress.

    Raises:
        MgoeError: The rows cannot be read, or break a rule.

    Example:
        >>> window_of(bundle, bundle, Sources(str(log)), Path()) is None  # it has learned from all
        True
    """
    reader = current if missing(candidate, current) else candidate
    new = _new_rows(sources, reader, current, folder, say)
    if new is None:
        return None
    ours = new.examples(folder / "ours")
    theirs = replace(new, bundle=current).examples(folder / "theirs")
    return None if ours is None or theirs is None else (ours, theirs)


def _new_rows(sources: Sources, bundle: Bundle, also: Bundle, folder: Path, say: Say) -> NewRows | None:
    """Return the rows that neither of two bundles has learned from; None if there are none.

    Args:
        sources: Where the rows are; those of files that were learned before are left out.
        bundle: Says how the rows are read.
        also: The other bundle; may be the same.
        folder: An existing folder for files, which stay while the rows are read.
        say: Callback for lines of progress.
    """
    if sources.events is not None:
        found = NewRows.of(bundle, sources, say)
        found.fetch(folder / "taken.parquet", say)
        return found if found.parts else None
    file, after = folder / "new.parquet", max(learned_until(one) for one in (bundle, also))
    if not write_later(bundle, sources.files, after, file, say):
        return None
    return NewRows.of(bundle, Sources(str(file)), say)


def write_later(
    bundle: Bundle, log: Sequence[str], after: int, file: Path, say: Say = lambda line: None
) -> int:
    """Write the rows of a log after a moment whose labels are known by now, and return their number.

    Args:
        bundle: Says how the log is read.
        log: Its files.
        after: Microseconds since 1970.
        file: The Parquet file, in an existing folder.
        say: Callback for a line about rows from the future.

    Raises:
        ConfigError: The log names moments at which labels are known.
        DataError: The log cannot be read, or a row breaks a rule.
    """
    settings, place, now = settings_of(bundle.graph, log), place_of(list(log)), time.time_ns() // 1000
    if found := [task.name for task in settings.tasks if task.known_at is not None]:
        raise ConfigError(
            f"tasks.{found[0]}.known_at",
            "does not say when a row of a file has all its labels; name the state of the service instead of "
            "files, or give the task a `delay`",
        )
    with opened_log(settings, list(log), file.parent, None) as table, atomic_file(file) as unfinished:
        try:
            rows, ahead = later_rows(table, settings, place, after, now)
            rows.to_parquet(unfinished)
        except duckdb.Error as error:
            raise unreadable(place, error) from None
    if ahead:
        say(
            f"{ahead:,} rows of the log wait, because they are later than the clock of this machine, "
            f"{iso_time(now)}; is it right?"
        )
    return pq.read_metadata(file).num_rows
