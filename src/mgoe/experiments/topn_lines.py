"""Lines of `results.jsonl` about top-N lists. They hold all that tables need, so that another machine can
import them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgoe._util.files import atomic_folder, read_json, write_json
from mgoe.evaluation import Influence, Row, group_users, pack, read_rows, unpack, write_rows
from mgoe.experiments import records
from mgoe.experiments.consistency import parts_of
from mgoe.experiments.folder import DONE, FIT, INFLUENCE, Part
from mgoe.experiments.plan import Log, Plan
from mgoe.experiments.topn_model import EXACT, RECALL, SAMPLED
from mgoe.experiments.topn_parts import lists_of

PARTS = (EXACT, SAMPLED, RECALL, "")
"""Folders of a result; its own is the last one, which marks it as finished."""


def key_of(log: Log, name: str, seed: int) -> records.Key:
    """Return the key of a line. No model's name holds a slash."""
    return log.name, f"topn/{name}", seed


def note_lists(plan: Plan, command: str) -> None:
    """Add a line for every finished result that has none of these settings yet."""
    lines, parts = records.latest(plan.out), {part.path: part for part in parts_of(plan, plan.cells)}
    for log, name, seed in lists_of(plan):
        folder, key = log.lists(name, seed), key_of(log, name, seed)
        if (folder / DONE).exists() and lines.get(key, {}).get("asked") != parts[folder].digest:
            held = {part: _held(folder / part) for part in PARTS if (folder / part / DONE).exists()}
            records.append(
                plan.out,
                dict(zip(("log", "model", "seed"), key, strict=True))
                | records.made_by("listed", command)
                | {"asked": parts[folder].digest, "lists": held},
            )


def write_lists(part: Part, line: Mapping[str, Any]) -> None:
    """Write the result that a line holds.

    Raises:
        KeyError, TypeError, ValueError: The line is damaged.
    """
    part.begin()
    with atomic_folder(part.path) as folder:
        for name, held in line["lists"].items():
            place = folder / name
            place.mkdir(exist_ok=True)
            unpack(held["influence"]).save(place / INFLUENCE)
            write_json(place / FIT, held["facts"])
            write_rows(place / DONE, [Row(**row) for row in held["rows"]])


def _held(folder: Path) -> dict[str, Any]:
    influence = group_users(Influence.load(folder / INFLUENCE))
    return {
        "facts": read_json(folder / FIT),
        "rows": read_rows(folder / DONE),
        "influence": pack(influence),
    }
