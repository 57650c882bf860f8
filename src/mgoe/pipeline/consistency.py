"""Whether finished results can be trusted: measured on the same rows, and with files that can be read.

A difference between cells measured on different rows means nothing.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json
from mgoe.evaluation import Influence, read_rows
from mgoe.pipeline import records
from mgoe.pipeline.folder import DONE, EXAMPLES, FIT, INFLUENCE
from mgoe.pipeline.plan import Cell, Log, Plan
from mgoe.work.node import is_damaged

logger = logging.getLogger(__name__)

Measured = Mapping[str, Sequence[str]]
"""Titles of what was measured on the same rows, by the checksums of these rows; the largest group first."""
NAMED = 5
"""Number of titles named in a sentence."""


def measured_cells(plan: Plan, log: Log, lines: Mapping[Any, Mapping[str, Any]]) -> Measured:
    """Group the titles of a log's finished cells by the rows that they were measured on.

    Args:
        plan: The comparison.
        log: One of its logs.
        lines: The last line of each cell.
    """
    return _grouped(
        (text_of(lines[cell.key]["examples"]), cell.title)
        for cell in plan.cells
        if cell.log == log and cell.done and lines.get(cell.key, {}).get("state") == "finished"
    )


def measured_seeds(log: Log, seeds: Iterable[int]) -> Measured:
    """Group the prepared seeds of a log by their rows."""
    files = {seed: log.stage(seed) / EXAMPLES for seed in seeds}
    return _grouped(
        (text_of(read_json(file)), f"seed {seed}") for seed, file in files.items() if file.exists()
    )


def text_of(examples: Mapping[str, str]) -> str:
    """Write checksums of rows as text."""
    return json.dumps(examples, sort_keys=True)


def odd_cells(cells: Measured) -> str:
    """Say which cells were measured on other rows than most; empty where all agree."""
    others = [title for titles in [*cells.values()][1:] for title in titles]
    return (
        "cells were measured on different rows, so differences between them mean nothing: "
        f"{_named(others)} on others than most; "
        "remove their folders, and the same command computes them again"
        if others
        else ""
    )


def odd_seed(log: Log, seed: int, seeds: Iterable[int], cells: Measured) -> str:
    """Say why a prepared seed would be measured on other rows than the rest of the log; empty otherwise.

    Args:
        log: The log.
        seed: A prepared seed.
        seeds: All seeds of the comparison.
        cells: The finished cells by their rows.
    """
    [mine] = measured_seeds(log, [seed])
    if len(cells) > 1:
        return odd_cells(cells)
    others = cells or measured_seeds(log, [other for other in seeds if other != seed])
    if not others or mine in others:
        return ""
    than = [title for titles in others.values() for title in titles]
    return (
        f"holds other rows to measure on than {_named(than)}, so differences would mean nothing; remove it, "
        "and the same command prepares it again; if it stays different, choose another folder"
    )


def odd_rows(plan: Plan, log: Log, seed: int) -> str:
    """Say why cells of a prepared seed would be measured on other rows than the rest; empty otherwise."""
    measured = measured_cells(plan, log, records.latest(plan.out))
    return odd_seed(log, seed, plan.settings.seeds, measured)


def agrees(plan: Plan, log: Log, seed: int) -> bool:
    """Tell whether cells of a prepared seed would be measured on the rows of the others."""
    return not odd_rows(plan, log, seed)


def _grouped(pairs: Iterable[tuple[str, str]]) -> Measured:
    found: dict[str, list[str]] = {}
    for rows, title in pairs:
        found.setdefault(rows, []).append(title)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _named(titles: Sequence[str]) -> str:
    return "; ".join(titles[:NAMED]) + (f" and {len(titles) - NAMED} more" if len(titles) > NAMED else "")


def holds_damage(folder: Path) -> bool:
    """Tell whether a file that tables need of finished results in a folder is damaged."""
    readers = {DONE: read_rows, INFLUENCE: Influence.load, FIT: read_json}
    places = (file.parent for file in folder.rglob(DONE))
    return any(is_damaged(place / name, read) for place in places for name, read in readers.items())


def is_lost(cell: Cell, line: Mapping[str, Any]) -> bool:
    """Tell whether a finished cell must be computed again: a file of it is damaged, or nothing says any more
    on which rows it was measured.

    Args:
        cell: The cell.
        line: Its last line in `results.jsonl`; empty if it has none.
    """
    stage = cell.log.stage(cell.seed)
    if holds_damage(cell.folder):
        return True
    if not cell.done or line.get("state") == "finished":
        return False
    if (stage / EXAMPLES).exists() or (stage / "data").exists():
        return False
    logger.info(
        f"to be computed again: {cell.folder}: its line in {records.RESULTS} is missing, and so is the "
        f"data that it was measured on, {stage}"
    )
    return True
