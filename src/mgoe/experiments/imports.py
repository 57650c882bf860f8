"""Import cells that were fitted on another machine from its `results.jsonl`, as if they had been fitted here.

A line holds the digest of what its cell or search was made with: settings, seed and the log's files. Code and
machine are not part of it; where they differ, a note below the tables says so. A line of other settings is
left out, and so is a cell whose settings another search chose or that was measured on other rows.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mgoe._util.files import atomic_folder, write_json
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Row, unpack, write_rows
from mgoe.experiments import records
from mgoe.experiments.consistency import measured_cells, measured_seeds, text_of
from mgoe.experiments.folder import DONE, INFLUENCE
from mgoe.experiments.parts import Part
from mgoe.experiments.plan import Cell, Plan, best_of, is_done
from mgoe.experiments.records import Line

logger = logging.getLogger(__name__)

TAKEN = "taken"
THERE = "there already, or of other settings or another log"


def take(plan: Plan, parts: Iterable[Part], files: Mapping[Path, Sequence[Line]]) -> None:
    """Import the results that are asked for and not there; searches before the cells that they decide.

    Of several lines about a result, the latest that fits counts, whichever file it is in. None fits a log
    that cannot be read, since equal digests then do not mean the same log.

    Args:
        plan: The comparison.
        parts: All parts of the results.
        files: The lines of each `results.jsonl`.

    Raises:
        OutputError: A line that fits is damaged.
    """
    lines = sorted(
        ((file, line) for file in files for line in files[file]),
        key=lambda one: (str(one[1].get("at")), json.dumps(one[1], sort_keys=True)),  # never by the file
        reverse=True,
    )
    ends = {file: Counter[str]() for file in files}
    cells, known = {cell.folder: cell for cell in plan.cells}, records.latest(plan.out)
    rows = {
        name: next(iter(measured_cells(plan, log, known) or measured_seeds(log, plan.settings.seeds)), None)
        for name, log in plan.logs.items()
    }
    for part in [part for part in parts if part.key is not None and part.log is not None]:
        cell, digest = cells.get(part.path), part.digest
        title = part.path if cell is None else cell.title
        for file, line in lines:
            if records.key_of(line) == part.key and line.get("asked") == digest:
                try:
                    end = _take(plan, part, cell, rows, line)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise OutputError(
                        file,
                        f"the line of {title} is damaged ({type(error).__name__}: {error})"
                        "; copy the file again",
                    ) from None
                ends[file][end] += 1
    for file in files:
        taken = ends[file].pop(TAKEN, 0)
        del ends[file][THERE]
        ends[file][THERE] = len(files[file]) - taken - ends[file].total()
        rest = "".join(f"; {count} {end}" for end, count in ends[file].items() if count)
        logger.info(f"{file}: {taken} of {len(files[file])} lines imported{rest}")


def _take(plan: Plan, part: Part, cell: Cell | None, measured: dict[str, str | None], line: Line) -> str:
    """Import a result and return what happened to its line.

    If nothing decided before on which rows the log is measured, the first cell that is imported does.
    """
    if is_done(part.path) if part.kind == "search" else part.done.exists():
        return THERE
    if cell is not None:
        if cell.waits:
            return "waiting for a search"
        if cell.tuned and line["tuned"] != best_of(cell.search):
            return "of another search"
        if measured[cell.log.name] not in (None, text_of(line["examples"])):
            return "measured on other rows"
        measured[cell.log.name] = text_of(line["examples"])
    part.begin()
    if cell is not None:
        _write_cell(cell, line)
    elif part.kind == "search":
        write_json(part.path, records.search_in(line))
    else:
        records.write_lists(part.path, line)
    records.append(plan.out, line)
    return TAKEN


def _write_cell(cell: Cell, line: Line) -> None:
    """Write the cell that a line holds, in place of interrupted training."""
    influence, rows = unpack(line["influence"]), list(_rows(cell, line))
    with atomic_folder(cell.folder) as folder:
        influence.save(folder / INFLUENCE)
        write_json(folder / records.IMPORTED, line)
        write_rows(folder / DONE, rows)


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
