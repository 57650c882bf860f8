"""Is what is stored still what is asked for, and are all cells of a log measured on the same rows?

Cells of different settings never stand in one table, and a difference between cells measured on different
rows means nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, write_json
from mgoe.data import Prepared
from mgoe.errors import OutputError
from mgoe.experiments.parts import DONE, FREE, SOURCE, Part, checksum_of_log, run_settings
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Cell, Log, Plan
from mgoe.experiments.tuning import concerning
from mgoe.graph.build.workplace import building
from mgoe.models import written_out

Measured = Mapping[str, Sequence[str]]
"""Titles of what was measured on the same rows, by the checksums of these rows; the largest group first."""
NAMED = 5
"""Number of titles named in a sentence."""


def parts_of(plan: Plan, cells: Iterable[Cell]) -> list[Part]:
    """Return all parts that cells are made of, and the cells, each once."""
    cells = list(cells)
    sources = {name: source_of_log(log) for name, log in {cell.log.name: cell.log for cell in cells}.items()}
    found: dict[Path, Part] = {}

    def add(path: Path, asked: Mapping[str, Any], done: str = "", follows: Iterable[Path] = ()) -> None:
        found.setdefault(path, Part(path, asked, path / done, tuple(follows)))

    for cell in cells:
        log, stage, source = cell.log, cell.log.stage(cell.seed), {SOURCE: sources[cell.log.name]}
        world = {"world": None if log.world is None else log.world.model_dump(mode="json")}
        plain = run_settings(cell.settings)
        data = {key: plain[key] for key in ("data", "tasks", "split", "negatives")} | world | source
        add(stage / "data", data, follows=(stage / EXAMPLES, log.path / REFERENCES))
        add(cell.graph, data | {"graph": plain["graph"]}, follows=(building(cell.graph),))
        tune = _searched(plan, cell)
        add(cell.folder, _asked(cell) | world | source | {"tune": tune}, DONE)
        if log.world is not None:
            add(log.path / "world", world)
        if tune is not None:
            asked = _asked(plan.searched(cell)) | world | source | {"tune": tune}
            del asked["evaluation"]  # no search reads it
            same = (cell.log.name, cell.contestant.base)
            follows = [one.folder for one in plan.cells if (one.log.name, one.contestant.base) == same]
            add(cell.search, asked, follows=follows)
    return list(found.values())


def check_choice(plan: Plan, cells: Sequence[Cell], outdated: Iterable[Part]) -> None:
    """Refuse to remove results outside the chosen cells.

    They cannot stay either, beside results of other settings.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        outdated: The parts that must be removed.

    Raises:
        OutputError: A finished part must be removed that does not belong to the chosen cells alone.
    """
    chosen = {cell.folder for cell in cells}
    spared = {cell.folder for cell in plan.cells if cell.folder not in chosen and cell.done}
    needed = {part.path for part in parts_of(plan, [*cells, *map(plan.searched, cells)])} - spared
    for part in outdated:
        if spared.intersection(part.paths) or (part.finished and part.path not in needed):
            lost = len(spared.intersection(path for one in outdated for path in one.paths))
            rule = "must be computed again and does not belong to the chosen cells alone"
            fix = "choose another --out, or leave out --models, --seeds and --logs to compute all of it again"
            found = f"found {lost} finished cells of others that would be removed"
            raise OutputError(part.path, f"{rule}, {found}; {fix}")


def source_of_log(log: Log) -> str | None:
    """Return the checksum of a log's files.

    None for a simulated log, for a table in memory, and where the files cannot be read any more.

    Raises:
        OutputError: The stored checksums are damaged.
    """
    if log.world is not None or log.from_table:
        return None
    return checksum_of_log(log.settings(0).data, checksums_at(log))


def checksums_at(log: Log) -> Path:
    """Return the file in which the checksums of a log's files are stored."""
    return log.path / "source.json"


def note_examples(stage: Path) -> None:
    """Store checksums of the rows that a log is measured on: equal for every seed and model."""
    prepared, sums = Prepared.open(stage / "data"), {}
    for split in ("valid", "test"):
        digest = hashlib.sha256()
        for part in prepared.streamed(split).parts():
            for column in (part.user, part.item, part.bucket, part.labels):
                digest.update(column.tobytes())
        sums[split] = digest.hexdigest()[:16]
    write_json(stage / EXAMPLES, sums)


def measured_cells(plan: Plan, log: Log, lines: Mapping[Any, Mapping[str, Any]]) -> Measured:
    """Group the titles of a log's finished cells by the rows that they were measured on.

    Args:
        plan: The comparison.
        log: One of its logs.
        lines: The last line of each cell.
    """
    done = [cell for cell in plan.cells if cell.log == log and cell.done and cell.key in lines]
    return _grouped(
        (text_of(lines[cell.key]["examples"]), cell.title)
        for cell in done
        if lines[cell.key]["state"] == "finished"
    )


def measured_seeds(log: Log, seeds: Iterable[int]) -> Measured:
    """Group the prepared seeds of a log by their rows."""
    there = [seed for seed in seeds if (log.stage(seed) / EXAMPLES).exists()]
    return _grouped((text_of(read_json(log.stage(seed) / EXAMPLES)), f"seed {seed}") for seed in there)


def text_of(examples: Mapping[str, str]) -> str:
    """Write checksums of rows as text."""
    return json.dumps(examples, sort_keys=True)


def odd_cells(cells: Measured) -> str:
    """Say which cells were measured on other rows than most; empty where all agree."""
    others = [title for titles in [*cells.values()][1:] for title in titles]
    if not others:
        return ""
    rule = "cells were measured on different rows, so differences between them mean nothing"
    fix = "remove their folders, and the same command computes them again"
    return f"{rule}: {_named(others)} on others than most; {fix}"


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
    than = _named([title for titles in others.values() for title in titles])
    fix = "remove it, and the same command prepares it again; if it stays different, choose another --out"
    return f"holds other rows to measure on than {than}, so differences would mean nothing; {fix}"


def _searched(plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """Return the search of a cell's model as plain values. Without points of its own, `first` is left out."""
    if plan.comparison.tune is None:
        return None
    asked = concerning(plan.searched(cell).contestant.settings(), plan.comparison.tune)
    return asked.model_dump(mode="json", exclude=None if asked.first else {"first"})


def _asked(cell: Cell) -> dict[str, Any]:
    """Return the settings of a cell with all switches, so that a changed default is another setting."""
    model = written_out(cell.contestant.settings())
    training = {key: value for key, value in model.training.items() if key not in FREE["training"]}
    plain = model.model_dump(mode="json") | {"training": training}
    return run_settings(cell.settings) | {"model": plain, "seed": cell.seed}


def _grouped(pairs: Iterable[tuple[str, str]]) -> Measured:
    found: dict[str, list[str]] = {}
    for rows, title in pairs:
        found.setdefault(rows, []).append(title)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _named(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - NAMED} more" if len(titles) > NAMED else ""
    return "; ".join(titles[:NAMED]) + more
