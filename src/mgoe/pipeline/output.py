"""Whose an output folder is: a new one, an unfinished one of the same settings to go on with, or one to keep hands off."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import yaml

from mgoe import __version__
from mgoe.config import RunSettings, dump_settings
from mgoe.errors import OutputError
from mgoe.files import write_json, write_text

STATE = "run.json"
SETTINGS = "settings.yaml"


def claim(out: Path, settings: RunSettings, overwrite: bool) -> bool:
    """Take an output folder for a run.

    Args:
        out: The folder.
        settings: Resolved; an unfinished run goes on only under the same ones (the number of jobs and threads aside).
        overwrite: Start anew over whatever run lies there.

    Returns:
        Whether an unfinished run is resumed.

    Raises:
        OutputError: The folder cannot be written, holds something else, or a run that is finished or of other settings.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(out, "must be a folder, found a file; choose another --out")
    resumed = False
    if out.exists() and any(out.iterdir()):
        if not (out / STATE).exists():
            raise OutputError(out, "holds files that no run of mgoe wrote; choose an empty folder")
        if overwrite:
            shutil.rmtree(out)
        elif _state(out) == "finished":
            raise OutputError(out, "holds a finished run; choose another --out, or --overwrite to replace it")
        elif _saved(out) != _comparable(settings):
            raise OutputError(out, "holds an unfinished run of other settings; choose another --out, or --overwrite to replace it")
        else:
            resumed = True
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(out, f"cannot be made: {error.strerror or error}; choose a folder you may write") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError(out, "cannot be written: permission denied; choose a folder you may write")
    write_text(out / SETTINGS, dump_settings(settings))
    mark(out, "unfinished")
    return resumed


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
    raw["training"].pop("threads")
    return raw
