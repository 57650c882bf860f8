"""The output folder of a run or a comparison: held by one process, never taken from others' files.

It consists of `parts`, such as a graph or a cell.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgoe import __version__
from mgoe._util.files import (
    clear_partial,
    clear_unfinished,
    output_errors,
    read_json,
    recover,
    set_aside,
    sha256,
    was_set_aside,
    write_json,
)
from mgoe.config import DataSettings
from mgoe.data.log_files import files_of
from mgoe.errors import MgoeError, OutputError

STATE = "run.json"
"""State of a run: unfinished, or finished with version, command and seconds."""
SETTINGS = "settings.yaml"
CHECKSUMS = "source.json"
"""Checksums of a log's files, stored in the folder of the log."""
EXAMPLES = "examples.json"
"""Checksums of the test and validation rows of a prepared log, stored beside it."""
DONE = "metrics.json"
"""In the folder of a cell; written last, so a cell with this file is finished."""
FIT = "fit.json"
"""Result and cost of the training of a cell."""
INFLUENCE = "influence.safetensors"
"""Influence of each test user on each metric of a cell."""
VALID_INFLUENCE = "influence-valid.safetensors"
"""The same on validation, of random groups of users; by it a run chooses what is served."""
SERVED = "served.json"
"""Which model the bundle of a run holds, and why."""
RELIABILITY = "reliability.json"
"""Observed against predicted rates of a cell on test."""
CALIBRATION = "calibration.json"
"""Calibrations of a cell, fitted on validation and on test."""


def take_folder(out: Path, marker: str, what: str) -> None:
    """Create a folder, or check that the same command wrote it and clear what killed processes left.

    Args:
        out: The folder; hold it by `exclusive`.
        marker: The file that marks it.
        what: What the command writes, for the message.

    Raises:
        OutputError: It holds other files, or cannot be written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(out, "must be a folder, found a file; choose another path")
        if out.exists() and any(out.iterdir()) and not (out / marker).exists():
            raise OutputError(out, f"holds files that no {what} wrote; choose an empty folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            out, f"cannot be created or read: {error.strerror or error}; choose a folder you may write"
        ) from None
    clear_unfinished(out)


@contextmanager
def run_folder(out: Path, overwrite: bool, extend: bool = False) -> Iterator[bool]:
    """Take the folder of a run. If the block fails, a run that was to be replaced is still there.

    Args:
        out: The folder; hold it by `exclusive`.
        overwrite: Replace the run that it holds.
        extend: Resume it even if it is finished.

    Yields:
        Whether an unfinished run resumes.

    Raises:
        OutputError: The folder holds something else or a finished run, or cannot be written.
    """
    place = out.resolve()
    clear_partial(place)
    recover(place)  # a process was killed below
    take_folder(out, STATE, "run of mgoe")
    if overwrite and (out / STATE).exists():
        from mgoe.serving import check_no_events  # late: it imports torch

        check_no_events(out)
        with output_errors(out):
            set_aside(place)
            place.mkdir()
    elif is_finished(out) and not extend:
        raise OutputError(out, "holds a finished run; choose another folder, or overwrite it")
    try:
        resumed = (out / "data").exists()
        mark(out, "unfinished")
        yield resumed
    except BaseException:
        if was_set_aside(place):
            shutil.rmtree(place, ignore_errors=True)
            recover(place)
        raise
    recover(place)  # removes the run that was replaced
    clear_unfinished(out)  # Spark may write for a moment after the process that started it was killed


def mark(out: Path, state: str, **facts: object) -> None:
    """Record the state of a run."""
    write_json(out / STATE, {"state": state, "mgoe": __version__, **facts})


def is_finished(out: Path) -> bool:
    """Tell whether a folder holds a finished run."""
    try:
        return read_json(out / STATE).get("state") == "finished"
    except OutputError:
        return False


def checksum_of_log(data: DataSettings, kept: Path) -> str | None:
    """Return a checksum of the files that a log is read from; None where they cannot be read any more.

    Every byte is read once: the checksum of each file is stored, and reused while the file's size and time
    stay the same.

    Args:
        data: Names the files.
        kept: The file that checksums are stored in.

    Raises:
        OutputError: `kept` is damaged.
    """
    before, now = read_checksums(kept) if kept.exists() else {}, {}
    named = list(data.log)
    for side in (data.users, data.items):
        if side is not None:
            beside = [Path(side.path).parent / one.path for one in side.features if one.path is not None]
            named += [side.path, *map(str, beside)]
    try:
        files = [file for path in named for file in files_of(path, "data")]
        files += sorted(file for file in Path(data.truth).rglob("*") if file.is_file()) if data.truth else []
        for file in files:
            known, stat = before.get(str(file), {}), file.stat()
            facts = {"bytes": stat.st_size, "time_ns": stat.st_mtime_ns}
            now[str(file)] = known if facts.items() <= known.items() else facts | {"sha256": sha256(file)}
    except (MgoeError, OSError):
        return None
    if now != before:
        write_json(kept, now)
    return hashlib.sha256("".join(now[str(file)]["sha256"] for file in files).encode()).hexdigest()[:16]


def read_checksums(path: Path) -> dict[str, Any]:
    """Read size, time and checksum of each file of a log.

    Raises:
        OutputError: The file is damaged.
    """
    found = read_json(path)
    if not all(
        isinstance(one, dict) and {"bytes", "time_ns", "sha256"} <= one.keys() for one in found.values()
    ):
        raise OutputError(
            path, "holds no checksums of files; remove it, and the same command writes it again"
        )
    return found
