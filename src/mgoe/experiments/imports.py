"""Cells of another machine: what its `results.jsonl` says of them stands in a comparison as if they had been fitted here.

A line holds the digest of what its cell or its search was made with: settings, seed, the log's files. Code and machine are not in it, and
are told below the tables where they differ. A line of anything else than is asked for is left out, and so is a cell whose settings another
search chose, or that was judged on other rows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mgoe._util.files import atomic_folder, write_json
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Row, unpack, write_rows
from mgoe.experiments import consistency, records
from mgoe.experiments.cell import DONE, INFLUENCE
from mgoe.experiments.judged_rows import judged_cells, judged_seeds, text_of
from mgoe.experiments.plan import Entry, Plan
from mgoe.experiments.stages import Say
from mgoe.experiments.tuning import best_of, is_done

Line = Mapping[str, Any]
TAKEN = "taken"
THERE = "there already, or of other settings or another log"


def take(plan: Plan, told: Mapping[Path, Sequence[Line]], say: Say) -> None:
    """Take over what files tell of cells that are asked for and not there, searches before the cells whose settings they chose.

    Of several lines of a cell or of a search, the latest that fits counts, whichever file it is in.

    Args:
        plan: Of the comparison.
        told: The lines of each file, as of a `results.jsonl`.
        say: Called with a line a file.

    Raises:
        OutputError: A line that fits is damaged.
    """
    parts = {part.path: part for part in consistency.parts_of(plan, plan.entries)}
    of: dict[records.Key, list[tuple[Path, Line]]] = {}
    for file, line in sorted(
        ((file, line) for file, lines in told.items() for line in lines), key=_moment, reverse=True
    ):
        of.setdefault(records.key_of(line), []).append((file, line))
    ends = {file: Counter[str]() for file in told}

    def each(key: records.Key, entry: Entry, part: consistency.Part, take_one: Callable[[Line], str]) -> None:
        digests = part.digests if _of_this_log(entry, part) else ()
        for file, line in [(file, line) for file, line in of.get(key, ()) if line.get("asked") in digests]:
            try:
                ends[file][take_one(line)] += 1
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                rule = f"the line of {entry.title} is damaged ({type(error).__name__}: {error}); copy the file again"
                raise OutputError(file, rule) from None

    for entry in {entry.tuned: entry for entry in plan.entries if entry.tuned in parts}.values():
        part = parts[entry.tuned]
        each(records.search_key(entry), entry, part, partial(_take_search, plan, part))
    lines = records.latest(plan.out)
    judged = {
        name: judged_cells(plan, log, lines) or judged_seeds(log, plan.settings.seeds)
        for name, log in plan.logs.items()
    }
    rows = {name: next(iter(found), None) for name, found in judged.items()}
    for entry in plan.entries:
        part = parts[entry.cell().folder]
        each(entry.key, entry, part, partial(_take_cell, plan, entry, part, rows))
    for file, lines in told.items():
        taken = ends[file].pop(TAKEN, 0)
        ends[file][THERE] = (
            len(lines) - taken - sum(count for end, count in ends[file].items() if end != THERE)
        )
        others = "".join(f"; {count} {end}" for end, count in ends[file].items() if count)
        say(f"{file}: {taken} of {len(lines)} lines taken{others}")


def _moment(one: tuple[Path, Line]) -> tuple[str, str]:
    """When a line was written; of the same moment, in an order that knows no file."""
    return str(one[1].get("at")), json.dumps(one[1], sort_keys=True)


def _of_this_log(entry: Entry, part: consistency.Part) -> bool:
    """Whether equal digests mean the same log: not where it cannot be read."""
    return entry.log.world is not None or part.asked[consistency.SOURCE] is not None


def _take_search(plan: Plan, part: consistency.Part, line: Line) -> str:
    """What came of the line of a search."""
    if is_done(part.path):
        return THERE
    search = records.search_in(line)
    part.begin()
    write_json(part.path, search)
    records.append(plan.out, line)
    return TAKEN


def _take_cell(
    plan: Plan, entry: Entry, part: consistency.Part, judged: dict[str, str | None], line: Line
) -> str:
    """What came of the line of a cell. The first that is taken decides on which rows its log is judged, where nothing did before."""
    if entry.cell().done:
        return THERE
    tuned = plan.settings.tune is not None
    if tuned and not is_done(entry.tuned):
        return "waiting for a search"
    if tuned and line["tuned"] != best_of(entry.tuned):
        return "of another search"
    if judged[entry.log.name] not in (None, text_of(line["examples"])):
        return "judged on other rows"
    influence, rows = unpack(line["influence"]), _rows(entry, line)
    part.begin()
    with atomic_folder(part.path) as folder:  # in the place of a fit that was cut off
        influence.save(folder / INFLUENCE)
        write_json(folder / records.TAKEN, line)
        write_rows(folder / DONE, rows)
    records.append(plan.out, line)
    judged[entry.log.name] = text_of(line["examples"])
    return TAKEN


def _rows(entry: Entry, line: Mapping[str, Any]) -> list[Row]:
    """Of `metrics.json`, from keys `SPLIT.TASK.METRIC`."""
    found = []
    for name, value in line.items():
        split, _, rest = name.partition(".")
        if rest:
            task, _, metric = rest.rpartition(".")
            about = {
                "model": entry.contestant.name,
                "seed": entry.seed,
                "split": split,
                "slice": ALL,
                "task": task,
                "metric": metric,
            }
            found.append(Row(**about, value=math.nan if value is None else float(value)))
    return found
