"""What an earlier process left: kept if it is still what is asked for, removed if not, repaired if damaged.

Cells of different settings never stand in one table, and a difference between cells measured on different
rows means nothing. A failed disk or an incomplete copy damages files; they are found before any work, and
computed again.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, write_text
from mgoe.config import dump_settings
from mgoe.errors import OutputError
from mgoe.evaluation import Influence, read_rows
from mgoe.experiments import records
from mgoe.experiments.asked import parts_of
from mgoe.experiments.folder import CHECKSUMS, DONE, EXAMPLES, FIT, INFLUENCE, read_checksums
from mgoe.experiments.parts import Part, outdated
from mgoe.experiments.plan import NOTICES, REFERENCES, Cell, Log, Plan

logger = logging.getLogger(__name__)

Measured = Mapping[str, Sequence[str]]
"""Titles of what was measured on the same rows, by the checksums of these rows; the largest group first."""
NAMED = 5
"""Number of titles named in a sentence."""


def reconcile(
    plan: Plan, cells: Sequence[Cell], overwrite: bool, settings: str, command: str = ""
) -> list[Part]:
    """Leave in a folder only what is asked for and can be read.

    Args:
        plan: The run or comparison.
        cells: The chosen cells.
        overwrite: Whether finished results of other settings may be removed.
        settings: Name of the file of the settings, written once nothing can be refused any more.
        command: Noted with removed cells.

    Returns:
        All parts that the chosen cells are made of, and searches for their models.

    Raises:
        MgoeError: A finished result would have to be removed and must not be, or a file may not be read.
    """
    for log in plan.logs.values():
        _clear_damaged(log.path / CHECKSUMS, read_checksums)
    searched = map(plan.searched, cells)  # searches are of the first seed
    parts, chosen = parts_of(plan, [*plan.cells, *cells]), parts_of(plan, [*cells, *searched])
    stale = outdated(parts, overwrite)
    check_choice(plan, cells, chosen, stale)
    write_text(plan.out / settings, dump_settings(plan.settings))
    _remove(plan, stale, command)
    for log in plan.logs.values():
        _clear_damaged(log.path / REFERENCES, read_rows)
        _clear_damaged(log.path / NOTICES, read_json)
        for stage in map(log.stage, plan.settings.seeds):
            _clear_damaged(stage / EXAMPLES, read_json)
    _remove(plan, [*damaged_parts(parts, [*plan.cells, *cells], plan.out)], command)
    return chosen


def check_choice(plan: Plan, cells: Sequence[Cell], chosen: Sequence[Part], stale: Sequence[Part]) -> None:
    """Refuse to remove results outside the chosen cells.

    They cannot stay either, beside results of other settings.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        chosen: All that they are made of, and searches for their models.
        stale: The parts that must be removed.

    Raises:
        OutputError: A finished part must be removed that does not belong to the chosen cells alone.
    """
    spared = {cell.folder for cell in plan.cells if cell.done} - {cell.folder for cell in cells}
    needed = {part.path for part in chosen} - spared
    for part in stale:
        if spared.intersection(part.paths) or (part.finished and part.path not in needed):
            lost = len(spared.intersection(path for one in stale for path in one.paths))
            raise OutputError(
                part.path,
                "must be computed again and does not belong to the chosen cells alone, "
                f"found {lost} finished cells of others that would be removed; choose another folder, or "
                "choose all models, seeds and logs to compute all of it again",
            )


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


def _grouped(pairs: Iterable[tuple[str, str]]) -> Measured:
    found: dict[str, list[str]] = {}
    for rows, title in pairs:
        found.setdefault(rows, []).append(title)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _named(titles: Sequence[str]) -> str:
    return "; ".join(titles[:NAMED]) + (f" and {len(titles) - NAMED} more" if len(titles) > NAMED else "")


def damaged_parts(parts: Iterable[Part], cells: Iterable[Cell], out: Path) -> Iterator[Part]:
    """Yield the finished results that must be computed again.

    A file that tables need is damaged, or nothing says any more on which rows a cell was measured. What
    follows from a search goes with it, since another search may choose other settings.

    Args:
        parts: All parts of the results.
        cells: All cells among them.
        out: Folder of the run or comparison.

    Raises:
        OutputError: A file is there and may not be read.
    """
    lines = records.latest(out)
    noted = {cell.folder for cell in cells if lines.get(cell.key, {}).get("state") == "finished"}
    for part in parts:
        if part.kind == "search" and part.finished and _is_damaged(part.path, read_json):
            yield part
        if part.kind not in ("cell", "lists") or not part.done.exists():
            continue
        if any(_holds_damage(place.parent) for place in part.path.rglob(DONE)):
            yield part
        elif part.kind == "cell" and part.path not in noted:
            [data] = part.before[0].before
            stage = data.path.parent
            if (stage / EXAMPLES).exists() or data.path.exists():
                continue
            logger.info(
                f"to be computed again: {part.path}: its line in {records.RESULTS} is missing, and so is the "
                f"data that it was measured on, {stage}"
            )
            yield part


def _clear_damaged(path: Path, read: Callable[[Path], Any]) -> None:
    """Remove a file if it is there and damaged; it is computed again later."""
    if path.exists() and _is_damaged(path, read):
        path.unlink()


def _holds_damage(folder: Path) -> bool:
    """Tell whether a file that tables need of a result is damaged."""
    readers = {DONE: read_rows, INFLUENCE: Influence.load, FIT: read_json}
    return any(_is_damaged(folder / name, read) for name, read in readers.items())


def _is_damaged(path: Path, read: Callable[[Path], Any]) -> bool:
    try:
        read(path)
    except OutputError as error:
        if isinstance(error.__context__, OSError) and path.exists():  # no rights, or a disk that may return
            raise
        logger.info(f"damaged, to be computed again: {error}")
        return True
    return False


def _remove(plan: Plan, parts: Sequence[Part], command: str) -> None:
    """Remove parts, after saying in the lines of their cells that these numbers are outdated."""
    removed, known = {path for part in parts for path in part.paths}, records.latest(plan.out)
    for cell in plan.cells:
        if cell.folder in removed and cell.key in known:
            records.append(plan.out, records.line_of(cell, "outdated", command))
    for part in parts:
        part.remove()
