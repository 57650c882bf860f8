"""A part of the results, such as a graph or a cell, and a note of all that decides what it holds."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, sha256, write_json
from mgoe.config import DataSettings, RunSettings
from mgoe.data.log import files_of
from mgoe.errors import MgoeError, OutputError

DONE = "metrics.json"
"""In the folder of a cell; written last, so a cell with this file is finished."""
SOURCE = "source"
"""Key of the checksum of a log's files, which stands for their paths. An unknown checksum is compared with
nothing."""
FREE = {
    "training": ("threads", "device", "checkpoint", "keep", "compile", "track", "tables"),
    "graph": ("memory", "engine", "spark"),
}
"""Settings that may change when work resumes. `training.memory` may not: it decides the order of examples."""
SEEDS = ("negatives.training_seed", "graph.seed", "seed")
"""Keys that a seed of the comparison decides. They can differ in a search only: other paths name their
seed."""
EVERYTHING = "all"
"""Stands for every key where the note of a part is missing or damaged."""


@dataclass(frozen=True)
class Part:
    """A file or folder of the results, and all that decides what it holds.

    Attributes:
        path: Where it is stored; its note is stored beside it.
        asked: The settings and the checksum of the log that it is asked for with, as plain values.
        done: Exists once the part is finished.
        follows: Files and folders that were made from it and have no note that says so. They are removed with
            it.
    """

    path: Path
    asked: Mapping[str, Any]
    done: Path
    follows: tuple[Path, ...] = ()

    @property
    def note(self) -> Path:
        return note_of(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is removed with it."""
        return self.path, *self.follows

    @property
    def finished(self) -> bool:
        """Whether the part, or a cell that follows from it, is finished."""
        return self.done.exists() or any((path / DONE).exists() for path in self.follows)

    @property
    def differs(self) -> str:
        """The first key under which it was made with another value.

        Empty where nothing differs, and `EVERYTHING` where the note is missing or damaged.
        """
        if not self.note.exists():
            return EVERYTHING if self.path.exists() else ""
        try:
            before = read_json(self.note)
        except OutputError:
            return EVERYTHING
        asked = json.loads(json.dumps(self.asked))
        if None in (before.get(SOURCE), asked.get(SOURCE)):
            before, asked = ({**one, SOURCE: None} for one in (before, asked))
        return _difference(before, asked)

    @property
    def digest(self) -> str:
        """Checksum of what it is asked for with. It is the same on every machine and in every folder."""
        return digest_of(self.asked)

    def remove(self) -> None:
        """Remove it with all that follows, the note last.

        What a process that is killed meanwhile leaves is removed by the next one.
        """
        for path in reversed(self.paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def begin(self) -> None:
        """Write its note, if there is none.

        The note of an unfinished part whose log could not be read before is replaced, since the log may be
        known now.
        """
        unknown = (
            self.note.exists() and json.loads(self.note.read_text(encoding="utf-8")).get(SOURCE, "") is None
        )
        if not self.note.exists() or (unknown and not self.done.exists()):
            write_json(self.note, self.asked)


def note_of(path: Path) -> Path:
    """Return the file that records what a part was made with."""
    return path.with_name(f"{path.name}.asked.json")


def digest_of(asked: Mapping[str, Any]) -> str:
    """Return a checksum of plain values, in which 1 and 1.0 are equal."""
    plain = json.loads(json.dumps(asked), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def outdated(parts: Iterable[Part], overwrite: bool) -> list[Part]:
    """Find the parts that were made with other settings or from another log, and must be removed.

    Args:
        parts: All parts of the results.
        overwrite: Whether finished parts may be removed.

    Raises:
        OutputError: A finished part would have to be removed and must not be.
    """
    found = [(part, key) for part in parts if (key := part.differs)]
    for part, key in found:
        if part.finished and not overwrite:
            fix = "choose another --out, or --overwrite to compute again what differs"
            if key == EVERYTHING:
                state = "damaged" if part.note.exists() else "missing"
                rule = f"cannot be checked against the settings: its note, {part.note}, is {state}"
            elif key == SOURCE:
                rule = "was made of another log: the files hold something else now"
            elif key in SEEDS:
                before, now = read_json(part.note)["seed"], part.asked["seed"]
                rule = f"settings were searched with seed {before}, which must stay the first of `seeds`"
                rule = f"{rule}, found {now}"
                fix = f"put {before} first, {fix}"
            else:
                rule = f"was made with another `{key}`"
            raise OutputError(part.path, f"{rule}; {fix}")
    return [part for part, _ in found]


def run_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings of a run as plain values, without those that may differ between equal results."""
    plain = settings.model_dump(mode="json", exclude={"models", "jobs", "seeds"})
    for section, names in FREE.items():
        for name in names:
            plain[section].pop(name)
    for place in (plain["data"], plain["data"]["users"], plain["data"]["items"]):
        for name in ("log", "truth", "path"):  # the checksum of the files stands for their paths
            (place or {}).pop(name, None)
    return plain


def checksum_of_log(data: DataSettings, kept: Path) -> str | None:
    """Return a checksum of the files that a log is read from; None where they cannot be read any more.

    Every byte is read once: the checksum of each file is stored, and reused while the file's size and time
    stay the same.

    Args:
        data: Names the files.
        kept: The file that checksums are stored in.

    Raises:
        OutputError: `kept` is damaged.
    """
    before, now = read_checksums(kept) if kept.exists() else {}, {}
    named = [*data.log, *(side.path for side in (data.users, data.items) if side is not None)]
    try:
        files = [file for path in named for file in files_of(path, "data")]
        files += sorted(file for file in Path(data.truth).rglob("*") if file.is_file()) if data.truth else []
        for file in files:
            known, stat = before.get(str(file), {}), file.stat()
            facts = {"bytes": stat.st_size, "time_ns": stat.st_mtime_ns}
            same = facts.items() <= known.items()
            now[str(file)] = known if same else facts | {"sha256": sha256(file)}
    except (MgoeError, OSError):
        return None
    if now != before:
        write_json(kept, now)
    return hashlib.sha256("".join(now[str(file)]["sha256"] for file in files).encode()).hexdigest()[:16]


def read_checksums(path: Path) -> dict[str, Any]:
    """Read size, time and checksum of each file of a log.

    Raises:
        OutputError: The file is damaged.
    """
    found = read_json(path)
    keys = {"bytes", "time_ns", "sha256"}
    if not all(isinstance(one, dict) and keys <= one.keys() for one in found.values()):
        raise OutputError(
            path, "holds no checksums of files; remove it, and the same command writes it again"
        )
    return found


def _difference(before: Any, asked: Any) -> str:
    """Return the dotted key of the first difference."""
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return "" if before == asked else "value"
    for key in [*asked, *(key for key in before if key not in asked)]:
        if before.get(key) != asked.get(key):
            inner = _difference(before.get(key), asked.get(key))
            return key if inner in ("", "value") else f"{key}.{inner}"
    return ""
