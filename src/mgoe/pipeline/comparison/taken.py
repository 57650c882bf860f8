"""Cells of another machine: what its `results.jsonl` says of them stands in a comparison as if they had been fitted here.

A line holds the digest of all that decided its cell or its search: settings, seed, the log's files. One of anything else than is asked for
is left out, and so is a cell whose settings another search chose, or that was judged on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Row, unpack, write_rows
from mgoe.files import read_json, whole_folder, write_json
from mgoe.pipeline.cells import DONE
from mgoe.pipeline.comparison import kept, records
from mgoe.pipeline.comparison.plan import Entry, Log, Plan
from mgoe.pipeline.comparison.tuning import best_of, is_done
from mgoe.pipeline.comparison.work import EXAMPLES
from mgoe.pipeline.stages import Say

Line = Mapping[str, Any]


def take(plan: Plan, told: Mapping[Path, Sequence[Line]], say: Say) -> None:
    """Take over what files tell of cells that are asked for and not there. Of several lines of a cell, the last that fits counts.

    Args:
        plan: Of the comparison.
        told: The lines of each file, as of a `results.jsonl`.
        say: Called with a line a file.

    Raises:
        OutputError: A line that fits is damaged.
    """
    parts = {part.path: part for part in kept.parts_of(plan, plan.entries)}
    judged = {log.name: _judged(plan, log) for log in plan.logs.values()}
    for file, lines in told.items():
        known = {(records.key_of(line), str(line.get("asked"))): line for line in lines}
        taken = 0
        for entry in plan.entries:
            for key, part in ((records.search_key(entry), parts.get(entry.tuned)), (entry.key, parts[entry.cell().folder])):
                if part is None or (line := known.get((key, part.digest))) is None or not _of_this_log(entry, part):
                    continue
                try:
                    taken += _take_search(plan, part, line) if key[2] is None else _take_cell(plan, entry, part, line, judged)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    rule = f"the line of {entry.title} is damaged ({type(error).__name__}: {error}); copy the file again"
                    raise OutputError(file, rule) from None
        say(f"{file}: {taken} of {len(lines)} lines taken; the others are there already, or of other settings or another log")


def _of_this_log(entry: Entry, part: kept.Part) -> bool:
    """Whether equal digests mean the same log: not where it cannot be read."""
    return entry.log.world is not None or part.asked[kept.SOURCE] is not None


def _judged(plan: Plan, log: Log) -> Any:
    """Checksums of the rows that cells of a log are judged on; None where there are none yet."""
    paths = [log.stage(seed) / EXAMPLES for seed in plan.settings.seeds]
    found = [read_json(path) for path in paths if path.exists()]
    lines = records.latest(plan.out).values()
    found += [line["examples"] for line in lines if (line["log"], line["state"]) == (log.name, "finished")]
    return found[0] if found else None


def _take_search(plan: Plan, part: kept.Part, line: Line) -> bool:
    """Whether the search was not there."""
    if is_done(part.path):
        return False
    search = {name: line["search"][name] for name in ("model", "trials", "best")}
    part.begin()
    write_json(part.path, search)
    records.append(plan.out, line)
    return True


def _take_cell(plan: Plan, entry: Entry, part: kept.Part, line: Line, judged: dict[str, Any]) -> bool:
    """Whether the cell was not there, and can stand beside those that are."""
    searched = best_of(entry.tuned) if is_done(entry.tuned) else None
    waits = plan.settings.tune is not None and searched is None
    if entry.cell().done or waits or line["tuned"] != searched or judged[entry.log.name] not in (None, line["examples"]):
        return False
    influence, rows = unpack(line["influence"]), _rows(entry, line)
    part.begin()
    with whole_folder(part.path) as folder:  # in the place of a fit that was cut off
        influence.save(folder / "test.npz")
        write_json(folder / records.TAKEN, line)
        write_rows(folder / DONE, rows)
    records.append(plan.out, line)
    judged[entry.log.name] = line["examples"]
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
