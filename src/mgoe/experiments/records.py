"""`results.jsonl`: a line a cell or a search of settings that ended, with the command and the revision that made it."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from mgoe import __version__
from mgoe._util.files import output_errors, read_json
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, Influence, group_users, pack, read_rows
from mgoe.experiments.cell import DONE, FIT, INFLUENCE
from mgoe.experiments.consistency import UNREAD, digest_of, note_of, without
from mgoe.experiments.plan import EXAMPLES, Entry
from mgoe.experiments.tuning import best_of

RESULTS = "results.jsonl"
SOURCE = Path(__file__).parents[1]
"""Where this library lies."""
TAKEN = "taken.json"
"""In the folder of a cell that was fitted elsewhere: its line."""
FACTS = (
    "parameters",
    "best_epoch",
    "training_seconds",
    "cpu_seconds",
    "seconds",
    "samples_per_second",
    "scored_per_second",
    "precision",
    "device",
    "processor",
    "inputs",
)
"""What the line of a cell has of `fit.json`; null where an earlier version did not note it."""
Key = tuple[str, str, int | None]
"""Log, model and seed of a cell; without a seed, the search of a model's settings."""


@cache
def revision(source: Path = SOURCE) -> str:
    """The revision of a package's source where a repository keeps it, with `+` where files differ from it; else the version of this one."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=source, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", "__init__.py"
        )  # a repository may hold an environment that it ignores
        found, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno", ".")
    except (OSError, subprocess.SubprocessError):
        return __version__
    return found[:12] + "+" * bool(changed)


def of_cell(entry: Entry, command: str) -> dict[str, Any]:
    """The line of a finished cell: who, how long, and every metric as `SPLIT.TASK.METRIC`; of one taken over, what it came with."""
    folder = entry.cell().folder
    if (folder / TAKEN).exists():
        return read_json(folder / TAKEN)
    facts = read_json(folder / FIT)
    examples = read_json(entry.log.stage(entry.seed) / EXAMPLES)
    rows = [row for row in read_rows(folder / DONE) if row["slice"] == ALL]
    values = {f"{row['split']}.{row['task']}.{row['metric']}": row["value"] for row in rows}
    asked = read_json(note_of(folder))
    return {
        **_who(entry, "finished", command),
        "asked": digest_of(asked),
        "tuned": best_of(entry.tuned) if asked.get("tune") is not None else None,
        **{name: facts.get(name) for name in FACTS},
        "examples": examples,
        **{name: value if math.isfinite(value) else None for name, value in values.items()},
        "influence": pack(group_users(Influence.load(folder / INFLUENCE))),
    }


def of_search(entry: Entry, command: str) -> dict[str, Any]:
    """The line of a finished search of the settings of an entry's model: its trials, and the best of them."""
    who = _who(entry, "searched", command) | {"model": entry.contestant.base, "variant": "", "seed": None}
    asked = without(read_json(note_of(entry.tuned)), UNREAD)
    return {**who, "asked": digest_of(asked), "search": read_json(entry.tuned)}


def of_failure(entry: Entry, reason: str, command: str) -> dict[str, Any]:
    """The line of a cell that failed."""
    return {**_who(entry, "failed", command), "reason": reason}


def of_outdated(entry: Entry, command: str) -> dict[str, Any]:
    """The line of a cell that was taken away: other settings are asked for, or it was damaged."""
    return _who(entry, "outdated", command)


def append(out: Path, line: Mapping[str, Any]) -> None:
    """Add a line; a last one that was cut off stays a line of its own.

    Raises:
        OutputError: It cannot be written.
    """
    path = out / RESULTS
    with output_errors(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


def latest(out: Path) -> dict[Key, dict[str, Any]]:
    """The last line of each cell and search."""
    path = out / RESULTS
    return {key_of(line): line for line in read(path)} if path.exists() else {}


def is_finished(entry: Entry, lines: Mapping[Key, Mapping[str, Any]]) -> bool:
    """Whether the last line of a cell says that it is."""
    return lines.get(entry.key, {}).get("state") == "finished"


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file. One that was cut off is none.

    Raises:
        OutputError: The file cannot be read.
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").split(
            "\n"
        )  # not at other ends of lines, which texts may hold
    except OSError as error:
        raise OutputError(path, f"cannot be read: {error.strerror or error}; name a results.jsonl") from None
    for text in texts:
        try:
            line = json.loads(text)
            key_of(line)
        except (ValueError, KeyError, TypeError):
            continue
        yield line


def key_of(line: Mapping[str, Any]) -> Key:
    """Whose line it is."""
    return line["log"], line["model"], line["seed"]


def search_in(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the line of a search tells of its file, which is all of it."""
    return {name: line["search"][name] for name in ("model", "trials", "best")}


def search_key(entry: Entry) -> Key:
    """Of the search of an entry's model."""
    return entry.log.name, entry.contestant.base, None


def _who(entry: Entry, state: str, command: str) -> dict[str, Any]:
    who = {
        "log": entry.log.name,
        "model": entry.contestant.name,
        "base": entry.contestant.base,
        "variant": entry.contestant.variant,
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        **who,
        "seed": entry.seed,
        "state": state,
        "mgoe": __version__,
        "revision": revision(),
        "command": command,
        "at": now,
    }
