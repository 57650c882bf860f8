"""Whose an output folder is: a new one, an unfinished one of the same settings to go on with, or one to keep hands off."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mgoe import __version__
from mgoe._util.files import clear_partial, clear_unfinished, fingerprint_of_ends, write_json, write_text
from mgoe.config import DataSettings, RunSettings, dump_settings
from mgoe.data.paths import files_of
from mgoe.errors import DataError, OutputError

STATE = "run.json"
SETTINGS = "settings.yaml"
FREE = {
    "training": ("threads", "device", "checkpoint", "keep", "compile", "track", "tables"),
    "graph": ("memory", "engine", "spark"),
}
"""Settings that may change when an unfinished run is gone on with. Not `training.memory`, which decides the order of examples."""

PARTS = ("data", "graph", "graph.building", "cells")
"""What follows from settings, and must not stand beside others."""


@contextmanager
def claim(out: Path, settings: RunSettings, overwrite: bool, log: str | None = None) -> Iterator[bool]:
    """Take an output folder for a run. Prepare the log inside: if that fails, a run that was to be replaced is still there.

    Args:
        out: The folder.
        settings: Resolved; an unfinished run goes on only under the same ones (jobs and `FREE` aside), unless nothing of it is
            finished yet.
        overwrite: Start anew over whatever run lies there.
        log: What stands for the log's files, see `ends_of`; None: nothing is known of them.

    Yields:
        Whether an unfinished run is resumed.

    Raises:
        OutputError: The folder cannot be written, holds something else, or a run that is finished, of other settings or of another log.
    """
    place = out.resolve()
    replaced = place.with_name(f".{place.name}.replaced")
    clear_partial(place)
    if replaced.exists():  # a process was killed below
        _move(replaced, out)
    there = _check(out, settings, overwrite, log)
    before = _noted(out).get("log") if there and not overwrite else None
    if there and overwrite:
        _move(out, replaced)
    try:
        _open(out, settings, log or before)
        yield there and not overwrite and (out / "data").exists()
    except BaseException:
        if replaced.exists():
            _move(replaced, out)
        raise
    if replaced.exists():
        gone = place.with_name(
            f".{place.name}.{os.getpid()}.partial"
        )  # a name that nothing is brought back from: it goes file by file
        _move(replaced, gone)
        shutil.rmtree(gone, ignore_errors=True)


def files_read(data: DataSettings) -> list[Path]:
    """Files of a log and of its side tables, in order.

    Raises:
        DataError: One is not there.
    """
    named = [*data.log, *(side.path for side in (data.users, data.items) if side is not None)]
    return [file for path in named for file in files_of(path, "data")]


def ends_of(settings: RunSettings) -> str | None:
    """Checksum of both ends of every file that a log is read from, and of their sizes: cheap, and another one for nearly every change.
    None where they cannot be read any more, from which nothing follows."""
    try:
        found = b"".join(fingerprint_of_ends(file) for file in files_read(settings.data))
    except (DataError, OSError):
        return None
    return hashlib.sha256(found).hexdigest()[:16]


def _check(out: Path, settings: RunSettings, overwrite: bool, log: str | None) -> bool:
    """Refuse a folder that is not free. Returns whether a run lies there."""
    if out.exists() and not out.is_dir():
        raise OutputError(out, "must be a folder, found a file; choose another --out")
    try:
        if not out.exists() or not any(out.iterdir()):
            return False
    except OSError as error:
        raise OutputError(
            out, f"cannot be read: {error.strerror or error}; choose a folder you may read and write"
        ) from None
    if not (out / STATE).exists():
        raise OutputError(out, "holds files that no run of mgoe wrote; choose an empty folder")
    if overwrite:
        from mgoe.serving import check_no_events  # late: with it comes PyTorch

        check_no_events(out)
        return True
    noted = _noted(out)
    if noted.get("state") == "finished":
        raise OutputError(out, "holds a finished run; choose another --out, or --overwrite to replace it")
    if any((out / part).exists() for part in PARTS):
        for differs, what in (
            (_saved(out) != _comparable(settings), "other settings"),
            (_differ(noted.get("log"), log), "another log"),
        ):
            if differs:
                raise OutputError(
                    out,
                    f"holds an unfinished run or a graph of {what}; choose another --out, or --overwrite to replace it",
                )
    return True


def _differ(before: object, now: object) -> bool:
    return None not in (before, now) and before != now


def _open(out: Path, settings: RunSettings, log: object) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            out, f"cannot be made: {error.strerror or error}; choose a folder you may write"
        ) from None
    clear_unfinished(out)
    mark(out, "unfinished", log=log)
    write_text(out / SETTINGS, dump_settings(settings))


def _move(source: Path, target: Path) -> None:
    try:
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
    except OSError as error:
        raise OutputError(
            target, f"cannot be replaced: {error.strerror or error}; choose a folder you may write"
        ) from None


def mark(out: Path, state: str, **facts: object) -> None:
    """Record how far a run is."""
    write_json(out / STATE, {"state": state, "mgoe": __version__, **facts})


def _noted(out: Path) -> dict[str, Any]:
    """What `mark` recorded; nothing where it cannot be read."""
    try:
        found = json.loads((out / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _saved(out: Path) -> object:
    try:
        return _comparable(RunSettings.model_validate(yaml.safe_load((out / SETTINGS).read_text())))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _comparable(settings: RunSettings) -> object:
    raw = settings.model_dump(mode="json")
    raw.pop("jobs")
    for section, names in FREE.items():
        for name in names:
            raw[section].pop(name)
    return raw
