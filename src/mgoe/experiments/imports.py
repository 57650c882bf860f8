"""Import cells that were fitted on another machine from its `results.jsonl`, as if they had been fitted here.

A line holds the digest of what its cell or search was made with: settings, seed and the log's files. Code and
machine are not part of it; where they differ, a note below the tables says so. A line of other settings is
left out, and so is a cell whose settings another search chose or that was measured on other rows.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mgoe._util.files import atomic_folder, write_json
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Row, unpack, write_rows
from mgoe.experiments import records
from mgoe.experiments.consistency import measured_cells, measured_seeds, parts_of, text_of
from mgoe.experiments.folder import DONE, INFLUENCE, SOURCE, Part
from mgoe.experiments.plan import Cell, Log, Plan, best_of, is_done
from mgoe.experiments.records import Line
from mgoe.experiments.stages import Say
from mgoe.experiments.topn_lines import key_of, write_lists
from mgoe.experiments.topn_parts import lists_of

TAKEN = "taken"
THERE = "there already, or of other settings or another log"


def take(plan: Plan, files: Mapping[Path, Sequence[Line]], say: Say) -> None:
    """Import the cells that are asked for and not there; searches before the cells whose settings they chose.

    Of several lines about a cell or a search, the latest that fits counts, whichever file it is in.

    Args:
        plan: The comparison.
        files: The lines of each `results.jsonl`.
        say: Callback that receives one line per file.

    Raises:
        OutputError: A line that fits is damaged.
    """
    parts = {part.path: part for part in parts_of(plan, plan.cells)}
    lines = sorted(
        ((file, line) for file in files for line in files[file]),
        key=lambda one: (str(one[1].get("at")), json.dumps(one[1], sort_keys=True)),  # never by the file
        reverse=True,
    )
    ends = {file: Counter[str]() for file in files}

    def each(key: records.Key, log: Log, title: str, part: Part, take_one: Callable[[Line], str]) -> None:
        if log.world is None and part.asked[SOURCE] is None:
            return  # the log cannot be read, so equal digests do not mean the same log
        for file, line in lines:
            if records.key_of(line) == key and line.get("asked") == part.digest:
                try:
                    ends[file][take_one(line)] += 1
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise OutputError(
                        file,
                        f"the line of {title} is damaged ({type(error).__name__}: {error})"
                        "; copy the file again",
                    ) from None

    for path, cell in {cell.search: cell for cell in plan.cells if cell.search in parts}.items():
        each(
            records.search_key(cell),
            cell.log,
            cell.title,
            parts[path],
            partial(_take_search, plan, parts[path]),
        )
    known = records.latest(plan.out)
    rows = {
        name: next(iter(measured_cells(plan, log, known) or measured_seeds(log, plan.settings.seeds)), None)
        for name, log in plan.logs.items()
    }
    for cell in plan.cells:
        part = parts[cell.folder]
        each(cell.key, cell.log, cell.title, part, partial(_take_cell, plan, cell, part, rows))
    for log, name, seed in lists_of(plan):
        part = parts[log.lists(name, seed)]
        key = key_of(log, name, seed)
        each(key, log, f"lists of {name}, seed {seed}", part, partial(_take_lists, plan, part))
    for file in files:
        taken = ends[file].pop(TAKEN, 0)
        del ends[file][THERE]
        ends[file][THERE] = len(files[file]) - taken - ends[file].total()
        rest = "".join(f"; {count} {end}" for end, count in ends[file].items() if count)
        say(f"{file}: {taken} of {len(files[file])} lines imported{rest}")


def _take_search(plan: Plan, part: Part, line: Line) -> str:
    """Import a search and return what happened to its line."""
    if is_done(part.path):
        return THERE
    search = records.search_in(line)
    part.begin()
    write_json(part.path, search)
    records.append(plan.out, line)
    return TAKEN


def _take_cell(plan: Plan, cell: Cell, part: Part, measured: dict[str, str | None], line: Line) -> str:
    """Import a cell and return what happened to its line.

    If nothing decided before on which rows the log is measured, the first cell that is imported does.
    """
    if cell.done:
        return THERE
    if plan.comparison.tune is not None and not is_done(cell.search):
        return "waiting for a search"
    if plan.comparison.tune is not None and line["tuned"] != best_of(cell.search):
        return "of another search"
    if measured[cell.log.name] not in (None, text_of(line["examples"])):
        return "measured on other rows"
    influence, rows = unpack(line["influence"]), list(_rows(cell, line))
    part.begin()
    with atomic_folder(part.path) as folder:  # replaces interrupted training
        influence.save(folder / INFLUENCE)
        write_json(folder / records.IMPORTED, line)
        write_rows(folder / DONE, rows)
    records.append(plan.out, line)
    measured[cell.log.name] = text_of(line["examples"])
    return TAKEN


def _take_lists(plan: Plan, part: Part, line: Line) -> str:
    """Import what top-N lists are worth."""
    if part.finished:
        return THERE
    write_lists(part, line)
    records.append(plan.out, line)
    return TAKEN


def _rows(cell: Cell, line: Line) -> Iterator[Row]:
    """Yield the rows of `metrics.json` from keys `SPLIT.TASK.METRIC`."""
    for name, value in line.items():
        split, _, rest = name.partition(".")
        if rest:
            task, _, metric = rest.rpartition(".")
            yield Row(
                model=cell.variant.name,
                seed=cell.seed,
                split=split,
                slice=ALL,
                task=task,
                metric=metric,
                value=math.nan if value is None else float(value),
            )
