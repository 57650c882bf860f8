"""Cells of another machine: what its `results.jsonl` says of them stands in a comparison as if they had been fitted here.

A line holds the digest of all that decided its cell or its search: settings, seed, the log's files. One of anything else than is asked for
is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Row, unpack, write_rows
from mgoe.files import write_json
from mgoe.pipeline.cells import DONE
from mgoe.pipeline.comparison import kept, records
from mgoe.pipeline.comparison.plan import Entry, Plan
from mgoe.pipeline.comparison.tuning import is_done
from mgoe.pipeline.stages import Say


def take(plan: Plan, files: Iterable[Path], say: Say) -> None:
    """Take over what files tell of cells that are asked for and not there. Of several lines of a cell, the last that fits counts.

    Args:
        plan: Of the comparison.
        files: Each a `results.jsonl`.
        say: Called with a line a file.

    Raises:
        OutputError: A file cannot be read, or a line that fits is damaged.
    """
    parts = {part.path: part for part in kept.parts_of(plan, plan.entries)}
    for file in files:
        lines, taken = list(records.read(file)), 0
        told = {(records.key_of(line), line.get("asked")): line for line in lines}
        try:
            for entry in plan.entries:
                taken += _take_search(plan, entry, parts.get(entry.tuned), told)
                taken += _take_cell(plan, entry, parts[entry.cell().folder], told)
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(file, f"holds a damaged line ({type(error).__name__}: {error}); copy the file again") from None
        say(f"{file}: {taken} of {len(lines)} lines taken; the others are there already, or of other settings or another log")


Told = Mapping[tuple[records.Key, Any], Mapping[str, Any]]


def _take_search(plan: Plan, entry: Entry, part: kept.Part | None, told: Told) -> bool:
    """Whether the search of an entry's model was told of and not there."""
    if part is None or is_done(part.path) or (line := told.get((records.search_key(entry), part.digest))) is None:
        return False
    part.begin()
    write_json(part.path, line["search"])
    records.append(plan.out, line)
    return True


def _take_cell(plan: Plan, entry: Entry, part: kept.Part, told: Told) -> bool:
    """Whether a cell was told of and not there. All cells of a model are fitted with what one search found."""
    if entry.cell().done or (plan.settings.tune is not None and not is_done(entry.tuned)):
        return False
    if (line := told.get((entry.key, part.digest))) is None:
        return False
    influence, rows = unpack(line["influence"]), _rows(entry, line)
    part.begin()
    part.path.mkdir(parents=True, exist_ok=True)
    influence.save(part.path / "test.npz")
    records.append(plan.out, line)
    write_rows(part.path / DONE, rows)
    return True


def _rows(entry: Entry, line: Mapping[str, Any]) -> list[Row]:
    """Of `metrics.json`, from keys `SPLIT.TASK.METRIC`."""
    found = []
    for name, value in line.items():
        split, _, rest = name.partition(".")
        if rest:
            task, _, metric = rest.rpartition(".")
            about = {"model": entry.contestant.name, "seed": entry.seed, "split": split, "slice": ALL, "task": task, "metric": metric}
            found.append(Row(**about, value=math.nan if value is None else float(value)))
    return found
