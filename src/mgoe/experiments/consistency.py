"""What an earlier process left: kept if it is still what is asked for, removed if not, repaired if damaged.

Cells of different settings never stand in one table, and a difference between cells measured on different
rows means nothing. A failed disk or an incomplete copy damages files; they are found before any work, and
computed again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, write_json, write_text
from mgoe.config import dump_settings
from mgoe.data import Prepared
from mgoe.errors import OutputError
from mgoe.evaluation import Influence, read_rows
from mgoe.experiments import records
from mgoe.experiments.folder import (
    CHECKSUMS,
    DONE,
    FIT,
    FREE,
    INFLUENCE,
    SOURCE,
    Part,
    checksum_of_log,
    outdated,
    read_checksums,
    run_settings,
)
from mgoe.experiments.plan import EXAMPLES, NOTICES, REFERENCES, Cell, Log, Plan, applicable_search
from mgoe.experiments.stages import Say
from mgoe.experiments.topn_parts import (
    baselines_of,
    bounds_of,
    lists_of,
    topn_of_baseline,
    topn_of_bound,
    topn_of_model,
)
from mgoe.graph.build.workplace import building
from mgoe.models import written_out
from mgoe.simulation import WorldSettings

Measured = Mapping[str, Sequence[str]]
"""Titles of what was measured on the same rows, by the checksums of these rows; the largest group first."""
NAMED = 5
"""Number of titles named in a sentence."""


def reconcile(
    plan: Plan, cells: Sequence[Cell], overwrite: bool, settings: str, say: Say, command: str = ""
) -> list[Part]:
    """Leave in a folder only what is asked for and can be read.

    Args:
        plan: The run or comparison.
        cells: The chosen cells.
        overwrite: Whether finished results of other settings may be removed.
        settings: Name of the file of the settings, written once nothing can be refused any more.
        say: Callback for lines of progress.
        command: Noted with removed cells.

    Returns:
        All parts of the results.

    Raises:
        MgoeError: A finished result would have to be removed and must not be, or a file may not be read.
    """
    for log in plan.logs.values():
        _clear_damaged(log.path / CHECKSUMS, read_checksums, say)
    parts = parts_of(plan, {cell.key: cell for cell in (*plan.cells, *cells)}.values())
    stale = outdated(parts, overwrite)
    check_choice(plan, cells, stale)
    write_text(plan.out / settings, dump_settings(plan.settings))
    _remove(plan, stale, command)
    for log in plan.logs.values():
        _clear_damaged(log.path / REFERENCES, read_rows, say)
        _clear_damaged(log.path / NOTICES, read_json, say)
        for stage in map(log.stage, plan.settings.seeds):
            if _clear_damaged(stage / EXAMPLES, read_json, say) and (stage / "data").exists():
                note_examples(stage)  # at once, since the lines of finished cells hold them
    damaged = {*damaged_cells(plan, say), *damaged_searches(plan, parts, say), *damaged_lists(plan, say)}
    _remove(plan, [part for part in parts if part.path in damaged], command)
    return parts


def parts_of(plan: Plan, cells: Iterable[Cell]) -> list[Part]:
    """Return all parts that cells are made of, and the cells, each once."""
    cells = list(cells)
    sources = {
        name: None
        if log.world is not None or log.from_table
        else checksum_of_log(log.source.data, log.path / CHECKSUMS)
        for name, log in {cell.log.name: cell.log for cell in cells}.items()
    }
    found: dict[Path, Part] = {}

    def add(path: Path, asked: Mapping[str, Any], done: str = "", follows: Iterable[Path] = ()) -> None:
        found.setdefault(path, Part(path, asked, path / done, tuple(follows)))

    for cell in cells:
        log, stage, source = cell.log, cell.log.stage(cell.seed), {SOURCE: sources[cell.log.name]}
        world = {"world": None if log.world is None else _drawn(log.world)} | _held_out(log)
        plain = run_settings(cell.settings)
        data = {key: plain[key] for key in ("data", "tasks", "split", "negatives")} | world | source
        add(
            stage / "data",
            data,
            follows=(stage / EXAMPLES, *(log.path / name for name in (REFERENCES, NOTICES))),
        )
        add(cell.graph, data | {"graph": plain["graph"]}, follows=(building(cell.graph),))
        tune = _searched(plan, cell)
        fitted = _asked(cell) | world | source | {"tune": tune}
        add(cell.folder, fitted, DONE, follows=(log.lists(cell.variant.name, cell.seed),))
        if (topn := plan.comparison.topn) is not None:
            add(log.lists(cell.variant.name, cell.seed), fitted | topn_of_model(topn), DONE)
            known = {key: plain[key] for key in ("data", "tasks", "split")} | world | source
            for name, seed in baselines_of(plan):
                add(log.lists(name, seed), known | topn_of_baseline(topn, name), DONE)
            for name, seed in bounds_of(plan, log):
                add(log.lists(name, seed), known | topn_of_bound(topn), DONE)
        if log.whole is not None:
            add(log.rest, world | source)
        if log.world is not None:
            add(
                log.path / "world",
                world | ({"form": "exposures"} if log.settings(0).form == "exposures" else {}),
            )
        if tune is not None:
            asked = _asked(plan.searched(cell)) | world | source | {"tune": tune}
            del asked["evaluation"]  # no search reads it
            same = (cell.log.name, cell.variant.base)
            follows = [one.folder for one in plan.cells if (one.log.name, one.variant.base) == same]
            add(cell.search, asked, follows=follows)
    return list(found.values())


def check_choice(plan: Plan, cells: Sequence[Cell], stale: Sequence[Part]) -> None:
    """Refuse to remove results outside the chosen cells.

    They cannot stay either, beside results of other settings.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        stale: The parts that must be removed.

    Raises:
        OutputError: A finished part must be removed that does not belong to the chosen cells alone.
    """
    spared = {cell.folder for cell in plan.cells if cell.done} - {cell.folder for cell in cells}
    needed = {part.path for part in parts_of(plan, [*cells, *map(plan.searched, cells)])} - spared
    for part in stale:
        if spared.intersection(part.paths) or (part.finished and part.path not in needed):
            lost = len(spared.intersection(path for one in stale for path in one.paths))
            raise OutputError(
                part.path,
                "must be computed again and does not belong to the chosen cells alone, "
                f"found {lost} finished cells of others that would be removed; choose another folder, or "
                "choose all models, seeds and logs to compute all of it again",
            )


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
    return _grouped(
        (text_of(lines[cell.key]["examples"]), cell.title)
        for cell in plan.cells
        if cell.log == log and cell.done and records.is_finished(cell, lines)
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


def _held_out(log: Log) -> dict[str, Any]:
    """Return what a log without last items is made of, as plain values; nothing for other logs."""
    if log.whole is None:
        return {}
    whole = run_settings(log.whole)
    return {"hold_out": {"items": "last", "data": whole["data"], "tasks": whole["tasks"]}}


def _searched(plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """Return the search of a cell's model as plain values, without `first` and `budget` where they are not
    given."""
    if plan.comparison.tune is None:
        return None
    asked = applicable_search(plan.searched(cell).variant.settings(), plan.comparison.tune)
    return asked.model_dump(mode="json", exclude={k for k in ("first", "budget") if not getattr(asked, k)})


def _drawn(world: WorldSettings) -> dict[str, Any]:
    """Return the settings of a world as plain values. What a plain policy does not have is left out, so that
    results of worlds that were drawn before it could be set stay valid."""
    policy = ("examination", "popular_first", "uniform")
    return world.model_dump(mode="json", exclude={name for name in policy if not getattr(world, name)})


def _asked(cell: Cell) -> dict[str, Any]:
    """Return the settings of a cell with all switches, so that a changed default is another setting."""
    model = written_out(cell.variant.settings())
    training = {key: value for key, value in model.training.items() if key not in FREE["training"]}
    return run_settings(cell.settings) | {
        "model": model.model_dump(mode="json") | {"training": training},
        "seed": cell.seed,
    }


def _grouped(pairs: Iterable[tuple[str, str]]) -> Measured:
    found: dict[str, list[str]] = {}
    for rows, title in pairs:
        found.setdefault(rows, []).append(title)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _named(titles: Sequence[str]) -> str:
    return "; ".join(titles[:NAMED]) + (f" and {len(titles) - NAMED} more" if len(titles) > NAMED else "")


def damaged_cells(plan: Plan, say: Say) -> Iterator[Path]:
    """Yield the folders of finished cells that must be computed again.

    A file that tables need is damaged, or nothing says any more on which rows the cell was measured.

    Args:
        plan: The comparison.
        say: Callback that receives one line per cell.

    Raises:
        OutputError: A file is there and may not be read.
    """
    lines = records.latest(plan.out)
    for cell in [cell for cell in plan.cells if cell.done]:
        folder, stage = cell.folder, cell.log.stage(cell.seed)
        facts = records.IMPORTED if (folder / records.IMPORTED).exists() else FIT
        known = (
            facts == records.IMPORTED
            or records.is_finished(cell, lines)
            or any((stage / name).exists() for name in (EXAMPLES, "data"))
        )
        if _holds_damage(folder, facts, say):
            yield folder
        elif not known:
            say(
                f"to be computed again: {folder}: its line in {records.RESULTS} is missing, and so is the "
                f"data that it was measured on, {stage}"
            )
            yield folder


def damaged_lists(plan: Plan, say: Say) -> Iterator[Path]:
    """Yield the folders of finished top-N lists of which a file that tables need is damaged.

    Raises:
        OutputError: A file is there and may not be read.
    """
    folders = [log.lists(name, seed) for log, name, seed in lists_of(plan)]
    for folder in [folder for folder in folders if (folder / DONE).exists()]:
        if any(_holds_damage(place.parent, FIT, say) for place in folder.rglob(DONE)):
            yield folder


def damaged_searches(plan: Plan, parts: Iterable[Part], say: Say) -> Iterator[Path]:
    """Yield the files of searches that are damaged and cannot be restored, or missing while cells use them.

    Searches that `results.jsonl` holds are restored. What follows from any other goes with it, since another
    search may choose other settings.

    Args:
        plan: The comparison.
        parts: The parts of all its cells.
        say: Callback that receives one line per file, and one more for each that is restored.

    Raises:
        OutputError: A file is there and may not be read.
    """
    of, lines = {part.path: part for part in parts}, records.latest(plan.out)
    for path, cell in {cell.search: cell for cell in plan.cells if cell.search in of}.items():
        if of[path].finished and _is_damaged(path, read_json, say):
            line = lines.get(records.search_key(cell), {})
            if line.get("asked") == of[path].digest:
                write_json(path, records.search_in(line))
                say(f"  restored from {records.RESULTS}")
            else:
                yield path


def _clear_damaged(path: Path, read: Callable[[Path], Any], say: Say) -> bool:
    """Remove a file if it is there and damaged, and tell whether it was; it is computed again later."""
    cleared = path.exists() and _is_damaged(path, read, say)
    if cleared:
        path.unlink()
    return cleared


def _holds_damage(folder: Path, facts: str, say: Say) -> bool:
    """Tell whether a file that tables need of a result is damaged; `facts` is the name of one."""
    readers = {DONE: read_rows, INFLUENCE: Influence.load, facts: read_json}
    return any(_is_damaged(folder / name, read, say) for name, read in readers.items())


def _is_damaged(path: Path, read: Callable[[Path], Any], say: Say) -> bool:
    try:
        read(path)
    except OutputError as error:
        if isinstance(error.__context__, OSError) and path.exists():  # no rights, or a disk that may return
            raise
        say(f"damaged, to be computed again: {error}")
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
