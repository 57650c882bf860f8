"""What a training from scratch holds of the logs of services: the rows that its files say they hold."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mgoe.bundle.held import START, Held
from mgoe.config import RunSettings
from mgoe.data import place_of
from mgoe.data.columns import only_row
from mgoe.data.log import open_log, work_database
from mgoe.data.schema import checked_rows
from mgoe.errors import DataError
from mgoe.serving.events.marked import check_apart, read_marks


def held_by_files(settings: RunSettings) -> dict[str, Held]:
    """Return what a training on the files of a log holds of each log of a service.

    Raises:
        DataError: Rows would count twice or be missing: files of one log do not join, the first of them does
            not begin at its start, or most of their rows are from the time of other files.
    """
    marked, others = read_marks(settings.data.log)
    until = span_of_files(settings, others)[1] if marked and others else None
    found = {}
    for identity, files in marked.items():
        if files.after != START:
            raise DataError(
                files.files[0],
                f"must begin at the start of the log, found the rows after position {files.after.position}; "
                "name the files with the rows before it, too",
            )
        times = files.times(settings.data.time)
        if until is not None:
            check_apart(times, until, files.files[0])
        found[identity] = Held(*files.upto, int(times.max()) if len(times) else None)
    return found


def span_of_files(settings: RunSettings, log: Sequence[str]) -> tuple[int, int]:
    """Return the times of the first and of the last row of files, in microseconds since 1970."""
    data, place = settings.data, place_of(log)
    with (
        TemporaryDirectory() as folder,
        work_database(Path(folder) / "work", place, settings.memory, data.timezone) as con,
    ):
        rows, _ = checked_rows(open_log(con, log, ids=data.ids), settings, place)
        found = only_row(rows.aggregate(first=rows.time.min(), last=rows.time.max()))
        return int(found["first"]), int(found["last"])
