"""`results.jsonl`: one line per cell that ended, with the command and the revision.

A line holds all that tables need, so that they can be computed far from where a model was fitted.
"""

import json
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe import __version__
from mgoe._util.files import output_errors, read_json
from mgoe.bundle.manifest import now
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Cost, Influence, group_users, pack, read_rows
from mgoe.pipeline.folder import DONE, FIT, INFLUENCE
from mgoe.pipeline.plan import Cell, best_of
from mgoe.pipeline.stages import examples_of
from mgoe.work.node import read_note

RESULTS = "results.jsonl"
SOURCE = Path(__file__).parents[1]
"""Folder of this library's source."""
SERVING = ("serving_ms", "serving_engine")
"""What is known of a cell after its model was timed."""
FACTS = (
    "parameters",
    "best_epoch",
    "training_seconds",
    "cpu_seconds",
    "seconds",
    "samples_per_second",
    "scored_per_second",
    *SERVING,
    "precision",
    "device",
    "processor",
    "inputs",
)
"""What the line of a cell holds of `fit.json`."""
Line = Mapping[str, Any]
Key = tuple[str, str, int]
"""Log, model and seed of a cell."""


@cache
def revision(source: Path = SOURCE) -> str:
    """Return the revision of a package's source, with `+` where files differ from it.

    Without a repository it is the version of this package.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=source, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a repository may hold an ignored environment
        found, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno", ".")
    except (OSError, subprocess.SubprocessError):
        return __version__
    return found[:12] + "+" * bool(changed)


def of_cell(cell: Cell, command: str) -> dict[str, Any]:
    """Return the line of a finished cell: its costs, and every metric as `SPLIT.TASK.METRIC`."""
    facts, note = read_json(cell.folder / FIT), read_note(cell.folder)
    return {
        **line_of(cell, "finished", command),
        "asked": note["digest"],
        "tuned": best_of(cell.search) if "search" in note["before"] else None,
        **{name: facts.get(name) for name in FACTS},
        "examples": examples_of(cell.log.stage(cell.seed)),
        **{
            f"{row['split']}.{row['task']}.{row['metric']}": row["value"]
            if math.isfinite(row["value"])
            else None
            for row in read_rows(cell.folder / DONE)
            if row["slice"] == ALL
        },
        "influence": pack(group_users(Influence.load(cell.folder / INFLUENCE))),
    }


def line_of(cell: Cell, state: str, command: str, **more: Any) -> dict[str, Any]:
    """Return what every line holds, and more.

    Args:
        cell: The cell.
        state: `finished`, `failed`, or `outdated` for a cell that was removed because it was made
            with other settings or damaged.
        command: The command.
        more: Other keys.
    """
    return {
        "log": cell.log.name,
        "model": cell.variant.name,
        "base": cell.variant.base,
        "variant": cell.variant.label,
        "seed": cell.seed,
        "state": state,
        "mgoe": __version__,
        "revision": revision(),
        "command": command,
        "at": now(),
        **more,
    }


def cost_of(lines: Sequence[Line]) -> Cost:
    """Return the mean costs of cells; NaN where a cell does not hold one. Serving is timed once per model, so
    the cells that hold its time are enough."""
    table = pd.DataFrame(lines, columns=[part.name for part in fields(Cost)], dtype=float)
    return Cost(**{**table.mean(skipna=False), "serving_ms": table["serving_ms"].median()})


def note_serving(out: Path, cell: Cell) -> None:
    """Add the line of a finished cell again, with the time of its serving.

    It keeps the revision and the command that trained the cell.

    Raises:
        OutputError: The line cannot be written.
    """
    facts = read_json(cell.folder / FIT)
    append(out, latest(out)[cell.key] | {name: facts[name] for name in SERVING} | {"at": now()})


def append(out: Path, line: Line) -> None:
    """Add a line. A torn last line stays a line of its own.

    Raises:
        OutputError: The line cannot be written.
    """
    path = out / RESULTS
    with output_errors(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


def latest(out: Path) -> dict[Key, dict[str, Any]]:
    """Return the last line of each cell."""
    return {key_of(line): line for line in read(out / RESULTS)} if (out / RESULTS).exists() else {}


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file and skip torn ones.

    Raises:
        OutputError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(path, f"cannot be read: {error.strerror or error}; name a results.jsonl") from None
    for part in text.split("\n"):  # not at other ends of lines, which texts may hold
        try:
            line = json.loads(part)
            key_of(line)
        except (ValueError, KeyError, TypeError):
            continue
        yield line


def key_of(line: Line) -> Key:
    """Return the cell that a line belongs to."""
    return line["log"], line["model"], line["seed"]
