"""What a comparison has made already, and whether it still is what is asked for: cells of other settings never stand in one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgoe.errors import OutputError
from mgoe.files import write_json
from mgoe.pipeline.cells import DONE
from mgoe.pipeline.comparison.plan import Entry, Plan
from mgoe.pipeline.output import FREE


@dataclass(frozen=True)
class Part:
    """A file or folder of the results, and all that decides what it holds.

    Attributes:
        path: Where it lies; what was asked for lies beside it.
        asked: Plain values.
        done: Exists once it is finished.
    """

    path: Path
    asked: Mapping[str, Any]
    done: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.asked.json")

    @property
    def differs(self) -> str:
        """The first key under which it was made with another value; nothing where there is none."""
        if not self.note.exists():
            return "all" if self.path.exists() else ""
        try:
            before = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "all"
        return _difference(before, json.loads(json.dumps(self.asked)))

    def remove(self) -> None:
        """Take it away."""
        shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self) -> None:
        """Note what it is made with from here on."""
        if not self.note.exists():
            write_json(self.note, self.asked)


def claim(parts: Iterable[Part], overwrite: bool) -> None:
    """See that what was made is what is asked for; what is unfinished and of other settings is taken away.

    Args:
        parts: Of the comparison.
        overwrite: Take away what was made with other settings.

    Raises:
        OutputError: Something was, and is not to be overwritten.
    """
    parts = list(parts)
    for part in parts:
        key = part.differs
        if key and not overwrite and part.done.exists():
            rule = "choose another --out, or --overwrite to make anew what differs"
            raise OutputError(part.path, f"was made with another `{key}`; {rule}")
    for part in parts:
        if part.differs:
            part.remove()


def parts_of(plan: Plan, entries: Iterable[Entry]) -> list[Part]:
    """Everything that cells are made of, and the cells, each once."""
    tune = None if plan.settings.tune is None else plan.settings.tune.model_dump(mode="json")
    found: dict[Path, Part] = {}
    for entry in entries:
        log, stage, data = entry.log, entry.log.stage(entry.seed), _data(entry)
        graph = data | {"graph": _plain(entry)["graph"]}
        cell = entry.cell()
        named = [(stage / "data", data), (log.graph(entry.seed, entry.contestant), graph), (cell.folder, _all(entry) | {"tune": tune})]
        if log.world is not None:
            named.append((log.path / "world", {"world": log.world.model_dump(mode="json")}))
        if tune is not None:
            first = plan.untouched(entry)
            named.append((log.tuned(entry.contestant.base), _all(first) | {"tune": tune}))
        found |= {path: Part(path, asked, path / DONE if path == cell.folder else path) for path, asked in named if path not in found}
    return list(found.values())


def _plain(entry: Entry) -> dict[str, Any]:
    """Settings of the run, but for what may change between two of them that are the same."""
    settings = entry.settings.model_dump(mode="json", exclude={"models", "jobs", "seeds"})
    for section, names in FREE.items():
        for name in names:
            settings[section].pop(name)
    if entry.log.world is not None:
        settings["data"] |= {"log": "world", "truth": "world"}  # where the results lie is no setting
    return settings


def _data(entry: Entry) -> dict[str, Any]:
    plain = _plain(entry)
    world = None if entry.log.world is None else entry.log.world.model_dump(mode="json")
    return {key: plain[key] for key in ("data", "tasks", "split", "negatives")} | {"world": world}


def _all(entry: Entry) -> dict[str, Any]:
    model = entry.contestant.settings().model_dump(mode="json")
    return _data(entry) | _plain(entry) | {"model": model, "seed": entry.seed}


def _difference(before: Any, asked: Any) -> str:
    """Dotted key of the first difference."""
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return "" if before == asked else "value"
    for key in [*asked, *(key for key in before if key not in asked)]:
        if before.get(key) != asked.get(key):
            inner = _difference(before.get(key), asked.get(key))
            return key if inner in ("", "value") else f"{key}.{inner}"
    return ""
