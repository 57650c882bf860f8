"""Whose an output folder is: a new one, an unfinished one of the same settings to go on with, or one to keep hands off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mgoe import __version__
from mgoe.config import RunSettings, dump_settings
from mgoe.errors import OutputError
from mgoe.files import clear_unfinished, write_json, write_text

STATE = "run.json"
SETTINGS = "settings.yaml"
FREE = {"training": ("threads", "device", "checkpoint", "keep", "compile", "track", "tables"), "graph": ("memory", "engine", "spark")}
"""Settings that may change when an unfinished run is gone on with. Not `training.memory`, which decides the order of examples."""


@contextmanager
def claim(out: Path, settings: RunSettings, overwrite: bool) -> Iterator[bool]:
    """Take an output folder for a run. Prepare the log inside: if that fails, a run that was to be replaced is still there.

    Args:
        out: The folder.
        settings: Resolved; an unfinished run goes on only under the same ones (jobs and `FREE` aside), unless nothing of it is
            finished yet.
        overwrite: Start anew over whatever run lies there.

    Yields:
        Whether an unfinished run is resumed.

    Raises:
        OutputError: The folder cannot be written, holds something else, or a run that is finished or of other settings.
    """
    replaced = out.resolve().parent / f".{out.resolve().name}.replaced"
    if replaced.exists():  # a process was killed below
        _move(replaced, out)
    there = _check(out, settings, overwrite)
    if there and overwrite:
        _move(out, replaced)
    try:
        _open(out, settings)
        yield there and not overwrite and (out / "data").exists()
    except BaseException:
        if replaced.exists():
            _move(replaced, out)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _check(out: Path, settings: RunSettings, overwrite: bool) -> bool:
    """Refuse a folder that is not free. Returns whether a run lies there."""
    if out.exists() and not out.is_dir():
        raise OutputError(out, "must be a folder, found a file; choose another --out")
    try:
        if not out.exists() or not any(out.iterdir()):
            return False
    except OSError as error:
        raise OutputError(out, f"cannot be read: {error.strerror or error}; choose a folder you may read and write") from None
    if not (out / STATE).exists():
        raise OutputError(out, "holds files that no run of mgoe wrote; choose an empty folder")
    if overwrite:
        return True
    if _state(out) == "finished":
        raise OutputError(out, "holds a finished run; choose another --out, or --overwrite to replace it")
    if any((out / part).exists() for part in ("data", "graph")) and _saved(out) != _comparable(settings):
        raise OutputError(out, "holds an unfinished run or a graph of other settings; choose another --out, or --overwrite to replace it")
    return True


def _open(out: Path, settings: RunSettings) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(out, f"cannot be made: {error.strerror or error}; choose a folder you may write") from None
    clear_unfinished(out)
    write_text(out / SETTINGS, dump_settings(settings))
    mark(out, "unfinished")


def _move(source: Path, target: Path) -> None:
    try:
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
    except OSError as error:
        raise OutputError(target, f"cannot be replaced: {error.strerror or error}; choose a folder you may write") from None


def mark(out: Path, state: str, **facts: object) -> None:
    """Record how far a run is."""
    write_json(out / STATE, {"state": state, "mgoe": __version__, **facts})


def _state(out: Path) -> str:
    try:
        return str(json.loads((out / STATE).read_text()).get("state"))
    except (OSError, ValueError):
        return "unreadable"


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
