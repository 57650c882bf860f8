"""What is finished: one rule for every part of the results.

A part is a file or folder such as a graph or a cell. Its note, stored beside it, holds all that decides what
is in it: the values of its settings, the checksum of the log, the digests of the parts that it is made from,
the number of its algorithm, and one digest of all that. A part is kept if that digest is the one that is
asked for, whoever made it and wherever. If it is another one, the notes say what differs.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mgoe._util.files import read_json, write_json
from mgoe.config import RunSettings
from mgoe.errors import OutputError
from mgoe.experiments.folder import DONE

ALGORITHMS = {"world": 1, "rest": 1, "data": 1, "graph": 4, "search": 2, "cell": 2, "lists": 2}
"""Number of the algorithm that makes each kind of part. Raise it if the same settings give another result
now: such parts, and all that is made from them, are then outdated."""
FREE = {
    "training": {"threads", "device", "checkpoint", "track", "tables", "refit"},
    "graph": {"engine"},
}
"""Settings that may change when work resumes. `memory` may not for a cell: it decides the order of its
examples. `training.refit` decides what follows the choice, which a search has no part in: cells note it."""
NOTE = "note"
"""Stands for what differs where a note cannot be read."""
RULES = {
    NOTE: "cannot be checked against the settings: its note, {note}, is {before}",
    "log": "was made of another log: the files hold something else now",
    "algorithm": "was made by another version of mgoe, which computes it in another way",
    "values.changes": "was changed since it was built, by `mgoe graph update` or `mgoe graph forget`",
    "values.seed": "settings were searched with seed {before}, which must stay the first of `seeds`, found "
    "{asked}; put {before} first",  # other paths than that of a search name their seed
}
"""What a message says of a part, by what differs; for a setting it names key and values."""
Difference = tuple[str, Any, Any]
"""What differs: a dotted key of notes, and its values in the note and as it is asked for."""


@dataclass(frozen=True)
class Part:
    """A file or folder of the results, and all that decides what it holds.

    Attributes:
        kind: A key of `ALGORITHMS`.
        path: Where it is stored; its note is stored beside it.
        values: The settings that it is asked for with, as plain values; without those of `before`.
        log: Checksum of the log's files, which stands for their paths; empty if nothing is read from files.
            None if it is unknown, which is compared with nothing.
        done: Exists once the part is finished.
        before: The parts that it is made from, all of the same log.
        follows: Files and folders that were made from it and are removed with it.
    """

    kind: str
    path: Path
    values: Mapping[str, Any]
    log: str | None
    done: Path
    before: tuple["Part", ...] = ()
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
    def digest(self) -> str:
        """Digest of what it is asked for with. It is the same on every machine and in every folder."""
        return self.asked(self.log)["digest"]

    def asked(self, log: str | None) -> dict[str, Any]:
        """Return the note that it is asked for with, if it is made of a log."""
        before = {one.kind: one.asked(log)["digest"] for one in self.before}
        facts = {"log": log, "algorithm": ALGORITHMS[self.kind], "before": before}
        return sealed({"values": self.values, **facts})

    def difference(self) -> Difference | None:
        """Return what it was made with otherwise, as the notes say it.

        None where its digest is the one that is asked for, or nothing is there.
        """
        if not self.note.exists():
            return (NOTE, "missing", "") if self.path.exists() else None
        try:
            noted = read_note(self.path)
        except OutputError:
            return NOTE, "damaged, or of another version of mgoe", ""
        asked = self.asked(noted["log"] if None in (noted["log"], self.log) else self.log)
        found = _difference(noted, asked)
        if found is None or not found[0].startswith("before."):
            return found
        causes = [one.difference() for one in self.before if found[0] == f"before.{one.kind}"]
        return next((cause for cause in causes if cause is not None and cause[0] != NOTE), found)

    def begin(self) -> None:
        """Write its note, if there is none.

        The note of an unfinished part is written again, since its log may not have been known before.
        """
        if not self.note.exists() or (self.log is not None and not self.done.exists()):
            write_json(self.note, self.asked(self.log))

    def remove(self) -> None:
        """Remove it with all that follows, the note last.

        What a process that is killed meanwhile leaves is removed by the next one.
        """
        for path in reversed(self.paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def outdated(parts: Iterable[Part], overwrite: bool) -> list[Part]:
    """Find the parts that were made with other settings or from another log, and must be removed.

    Args:
        parts: All parts of the results.
        overwrite: Whether finished parts may be removed.

    Raises:
        OutputError: A finished part would have to be removed and must not be.
    """
    found = [(part, one) for part in parts if (one := part.difference()) is not None]
    for part, (key, before, asked) in found:
        if part.finished and not overwrite:
            name = key.removeprefix("values.").removeprefix("before.")
            rule = RULES.get(key, f"was made with another `{name}`")
            raise OutputError(
                part.path,
                f"{rule.format(note=part.note, before=before, asked=asked)}; choose another folder, or "
                "overwrite it to compute again what differs",
            )
    return [part for part, _ in found]


def note_of(path: Path) -> Path:
    """Return the file that records what a part was made with."""
    return path.with_name(f"{path.name}.asked.json")


def read_note(path: Path) -> dict[str, Any]:
    """Return the note of the part at a path.

    Raises:
        OutputError: It is missing or damaged, was changed by hand, or has another form.
    """
    note = read_json(note_of(path))
    if note != sealed(note):
        raise OutputError(note_of(path), "is not as it was written; restore it, or compute its part again")
    return note


def note_changes(path: Path, changes: Sequence[Mapping[str, Any]]) -> None:
    """Write the note of a graph that was changed, so that it is not taken for the one that was built.

    A graph whose note is missing or damaged is taken for none.
    """
    with suppress(OutputError):
        note = read_note(path)
        write_json(note_of(path), sealed(note | {"values": note["values"] | {"changes": changes}}))


def sealed(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return a note with the digest of all else that it holds, in which 1 and 1.0 are equal."""
    content = json.loads(json.dumps({key: value for key, value in note.items() if key != "digest"}))
    plain = json.dumps(json.loads(json.dumps(content), parse_int=float), sort_keys=True)
    return content | {"digest": hashlib.sha256(plain.encode()).hexdigest()[:16]}


def values_of_run(settings: RunSettings) -> dict[str, Any]:
    """Return the settings of a run as plain values, without those that may differ between equal results."""
    free = dict.fromkeys(("models", "serve", "jobs", "seeds", "retrieval", "retrain"), True)
    free_of_data = {
        "engine": True,
        "log": True,
        "truth": True,
        "users": {"path"},
        "items": {"path"},
    }  # the checksum of the files stands for their paths
    return plain_values(settings, {**free, **FREE, "data": free_of_data})


def plain_values(settings: BaseModel, exclude: Mapping[str, Any] | set[str] | None = None) -> dict[str, Any]:
    """Return settings as plain values, without those that are off or empty by default.

    A new setting of this kind therefore makes no result outdated, and a changed default does.
    """
    values, given = (
        settings.model_dump(mode="json", exclude=exclude, exclude_defaults=lean) for lean in (False, True)
    )
    return _without_neutral(values, given)


def _without_neutral(values: Any, given: Any) -> Any:
    """Return values without empty ones that are not among those given."""
    if isinstance(values, list):
        pairs = zip(values, given or [None] * len(values), strict=True)
        return [_without_neutral(*pair) for pair in pairs]
    if not isinstance(values, dict):
        return values
    kept = {key: _without_neutral(value, (given or {}).get(key)) for key, value in values.items()}
    return {key: value for key, value in kept.items() if value or key in (given or {})}


def _difference(before: Any, asked: Any) -> Difference | None:
    """Return the dotted key of the first difference, and its values."""
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return None if before == asked else ("", before, asked)
    for key in {**asked, **before}:
        if found := _difference(before.get(key), asked.get(key)):
            return f"{key}.{found[0]}".rstrip("."), *found[1:]
    return None
