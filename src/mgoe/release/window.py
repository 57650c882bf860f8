"""The rows that neither of two bundles has learned from, as examples of each: what a release test reads."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from mgoe._util.files import atomic_file
from mgoe.bundle import Bundle
from mgoe.data import Examples, place_of
from mgoe.data.times import read_time
from mgoe.errors import ConfigError, DataError
from mgoe.experiments.graphs import opened_log, settings_of
from mgoe.experiments.new_rows import NewRows
from mgoe.experiments.stages import Say
from mgoe.serving.events.exposure import longest_delay


@dataclass(frozen=True)
class Sources:
    """Where new rows come from: files of the log, or the live events and exposures of a service.

    Attributes:
        log: Parquet or CSV files, folders or globs; rows that were learned before are left out.
        events: State folder or Redis server of a service, if there are no files.

    Example:
        >>> Sources(events="bundles/current.state").log
        ()
    """

    log: tuple[str, ...] = ()
    events: str | None = None

    def new_rows(self, bundle: Bundle, also: Bundle, folder: Path, say: Say) -> NewRows | None:
        """Return the rows that neither of two bundles has learned from; None if there are none.

        Args:
            bundle: Says how the rows are read.
            also: The other bundle; may be the same.
            folder: An existing folder for files, which stay while the rows are read.
            say: Callback for lines of progress.
        """
        if self.events is not None:
            found = NewRows.of(bundle, self.events, (), trim=False, say=say)
            found.fetch(folder / "taken.parquet", say)
            return found if found.parts else None
        file, after = folder / "new.parquet", max(learned_until(one) for one in (bundle, also))
        if not write_later(bundle, self.log, after, file):
            return None
        return NewRows.of(bundle, None, [str(file)], trim=False, say=say)


def window_of(
    candidate: Bundle, current: Bundle, sources: Sources, say: Say = lambda line: None
) -> tuple[Examples, Examples] | None:
    """Return the rows that neither bundle has learned from, as examples of each; None if there are none.

    Args:
        candidate: Made from the current bundle, or later.
        current: What is served.
        sources: Where the rows are.
        say: Callback for lines of progress.

    Raises:
        MgoeError: The rows cannot be read, or break a rule.
    """
    with tempfile.TemporaryDirectory(prefix="mgoe-") as temporary:
        folder = Path(temporary)
        new = sources.new_rows(candidate, current, folder, say)
        if new is None:
            return None
        ours = new.examples(folder / "ours")
        theirs = replace(new, bundle=current).examples(folder / "theirs")
        return None if ours is None or theirs is None else (ours, theirs)


def write_later(bundle: Bundle, log: Sequence[str], after: int, file: Path) -> int:
    """Write the rows of a log after a moment whose labels are known by now, and return their number.

    Args:
        bundle: Says how the log is read.
        log: Its files.
        after: Microseconds since 1970.
        file: The Parquet file.

    Raises:
        DataError: The log cannot be read, or has no column of times.
    """
    settings, place = settings_of(bundle.graph, log), place_of(list(log))
    data = settings.data
    if found := [task.name for task in settings.tasks if task.known_at is not None]:
        raise ConfigError(
            f"tasks.{found[0]}.known_at",
            "does not say when a row of a file has all its labels; name the state of the service instead of "
            "files, or give the task a `delay`",
        )
    known = time.time_ns() // 1000 - longest_delay(settings.tasks)
    with (
        tempfile.TemporaryDirectory(prefix="mgoe-") as folder,
        opened_log(settings, list(log), Path(folder), None) as table,
    ):
        if data.time not in table.columns:
            raise DataError(place, f"needs a column {data.time!r}, as the bundle's log had; name its files")
        moment = read_time(table[data.time], data.time, data.time_unit, place)
        rows = table.filter(moment > after, moment <= known)
        with atomic_file(file) as unfinished:
            rows.to_parquet(unfinished)
    return pq.read_metadata(file).num_rows


def learned_until(bundle: Bundle) -> int:
    """Return the time of the newest row that a bundle has learned from, in microseconds since 1970.

    A graph counts a label when it is known, so it ends later by the delay of the labels.
    """
    return int(bundle.graph.meta["last"]) - longest_delay(bundle.settings.tasks)
