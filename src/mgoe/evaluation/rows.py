"""The rows of `metrics.json`: one number per model, seed, split, slice, task and metric."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from mgoe._util.files import write_text
from mgoe.errors import OutputError

ALL = "all"
"""Name of the slice of all examples, and of the task that stands for the mean over tasks."""


class Row(TypedDict):
    """One measured number. A missing value is NaN here and null in the file."""

    model: str
    seed: int
    split: str
    slice: str
    task: str
    metric: str
    value: float


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write `metrics.json` atomically, one row per line, so that two runs can be compared by line."""
    lines = [
        json.dumps({**row, "value": row["value"] if math.isfinite(row["value"]) else None}) for row in rows
    ]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_rows(path: Path) -> list[Row]:
    """Read `metrics.json`.

    Raises:
        OutputError: The file is missing, or not what `write_rows` writes.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        rows = [{name: row[name] for name in Row.__annotations__} for row in rows]
        return [
            Row(**{**row, "value": math.nan if row["value"] is None else float(row["value"])}) for row in rows
        ]
    except FileNotFoundError:
        raise OutputError(path, "no such file; `mgoe run` writes it") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            path,
            f"holds no metrics ({type(error).__name__}: {error}); run `mgoe run` or `mgoe compare` again",
        ) from None
