"""One node: a file or folder of results, and all that decides what is in it.

Its note, stored beside it, holds the values of its settings, the checksum of the log, the digests of the
nodes that it is made from, the number of its algorithm, and one digest of all that. A node is kept if that
digest is the one that is asked for, whoever made it and wherever. If it is another one, the notes say what
differs.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mgoe._util.files import read_json, write_json
from mgoe.errors import OutputError

logger = logging.getLogger(__name__)

State = Literal["absent", "unfinished", "stale", "damaged", "done"]
"""Of a node: nothing is there, it is not finished, it was made with other settings or from another log, a
file that others need is damaged, or it is what is asked for."""
NOTE = "note"
"""Stands for what differs where a note cannot be read."""
Difference = tuple[str, Any, Any]
"""What differs: a dotted key of notes, and its values in the note and as it is asked for."""


@dataclass(frozen=True)
class Node:
    """A file or folder of results, and all that decides what it holds.

    Attributes:
        kind: What it is, such as `graph`; nodes made from it note its digest under this name.
        title: What messages and progress call it.
        path: Where it is stored; its note is stored beside it.
        values: The settings that it is asked for with, as plain values; without those of `before`.
        algorithm: Number of the algorithm that makes it.
        log: Checksum of the log's files, which stands for their paths; empty if nothing is read from files.
            None if it is unknown, which is compared with nothing.
        make: Makes it, or resumes; a function of a module.
        args: Its arguments; must be picklable.
        before: The nodes that it is made from, all of the same log.
        reads: Further nodes that must be there while it is made.
        follows: Files and folders that were made from it and are removed with it.
        files: All exist once it is finished. The first is its own proof; the others follow from it, and are
            made again if they are missing.
        results: If one of these files exists, it is removed only on request.
        complete: Tells whether what is there suffices, if all `files` exist.
        damaged: Tells whether it must be made again although it is finished.
    """

    kind: str
    title: str
    path: Path
    values: Mapping[str, Any]
    algorithm: int
    log: str | None
    make: Callable[..., Any] = field(compare=False)
    args: tuple[Any, ...] = field(compare=False)
    before: tuple["Node", ...] = ()
    reads: tuple["Node", ...] = ()
    follows: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()
    complete: Callable[[], bool] = field(default=lambda: True, compare=False)
    damaged: Callable[[], bool] = field(default=lambda: False, compare=False)

    @property
    def note(self) -> Path:
        return note_of(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is removed with it."""
        return self.path, *self.follows

    @property
    def inputs(self) -> tuple["Node", ...]:
        """All nodes that must be there while it is made."""
        return *self.before, *self.reads

    @property
    def is_result(self) -> bool:
        """Whether something finished would be lost with it."""
        return any(file.exists() for file in self.results)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to make."""
        return all(file.exists() for file in self.files) and self.complete()

    @property
    def digest(self) -> str:
        """Digest of what it is asked for with. It is the same on every machine and in every folder."""
        return self.asked(self.log)["digest"]

    def state(self) -> State:
        """Return what is there of it. This reads notes, and the files that others need."""
        if self.difference() is not None:
            return "stale"
        if self.is_result and self.damaged():
            return "damaged"
        if not self.finished:
            return "unfinished" if self.path.exists() else "absent"
        return "done"

    def asked(self, log: str | None) -> dict[str, Any]:
        """Return the note that it is asked for with, if it is made of a log."""
        before = {one.kind: one.asked(log)["digest"] for one in self.before}
        return sealed({"values": self.values, "log": log, "algorithm": self.algorithm, "before": before})

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

        The note of an unfinished node is written again, since its log may not have been known before.
        """
        if not self.note.exists() or (self.log is not None and not self.files[0].exists()):
            write_json(self.note, self.asked(self.log))

    def remove(self) -> None:
        """Remove it with all that follows, the note last.

        What a process that is killed meanwhile leaves is removed by the next one.
        """
        for path in reversed(self.paths):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def note_of(path: Path) -> Path:
    """Return the file that records what a node was made with."""
    return path.with_name(f"{path.name}.asked.json")


def read_note(path: Path) -> dict[str, Any]:
    """Return the note of the node at a path.

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


def is_damaged(path: Path, read: Callable[[Path], Any]) -> bool:
    """Tell whether a file cannot be read, and log why.

    Raises:
        OutputError: It is there and may not be read: no rights, or a disk that may return.
    """
    try:
        read(path)
    except OutputError as error:
        if isinstance(error.__context__, OSError) and path.exists():
            raise
        logger.info(f"damaged, to be computed again: {error}")
        return True
    return False


def _difference(before: Any, asked: Any) -> Difference | None:
    """Return the dotted key of the first difference, and its values."""
    if not (isinstance(before, dict) and isinstance(asked, dict)):
        return None if before == asked else ("", before, asked)
    for key in {**asked, **before}:
        if found := _difference(before.get(key), asked.get(key)):
            return f"{key}.{found[0]}".rstrip("."), *found[1:]
    return None
