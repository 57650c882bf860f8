"""The output folder of a run or a comparison: taken by one process, and never taken from others' files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgoe import __version__
from mgoe._util.files import (
    clear_partial,
    clear_unfinished,
    output_errors,
    read_json,
    recover,
    set_aside,
    was_set_aside,
    write_json,
)
from mgoe.errors import OutputError

STATE = "run.json"
"""State of a run: unfinished, or finished with version, command and seconds."""
SETTINGS = "settings.yaml"


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
            raise OutputError(out, "must be a folder, found a file; choose another --out")
        if out.exists() and any(out.iterdir()) and not (out / marker).exists():
            raise OutputError(out, f"holds files that no {what} wrote; choose an empty folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            out, f"cannot be created or read: {error.strerror or error}; choose a folder you may write"
        ) from None
    clear_unfinished(out)


@contextmanager
def run_folder(out: Path, overwrite: bool) -> Iterator[bool]:
    """Take the folder of a run. If the block fails, a run that was to be replaced is still there.

    Args:
        out: The folder; hold it by `exclusive`.
        overwrite: Replace the run that it holds.

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
    elif _state(out) == "finished":
        raise OutputError(out, "holds a finished run; choose another --out, or --overwrite to replace it")
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


def mark(out: Path, state: str, **facts: object) -> None:
    """Record the state of a run."""
    write_json(out / STATE, {"state": state, "mgoe": __version__, **facts})


def _state(out: Path) -> object:
    """Return the recorded state; None if none can be read."""
    try:
        return read_json(out / STATE).get("state")
    except OutputError:
        return None
