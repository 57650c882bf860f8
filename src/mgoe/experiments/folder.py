"""The output folder of a run or a comparison: held by one process, never taken from others' files.

It consists of parts, such as a graph or a cell, each with a note of all that decides what it holds.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgoe import __version__
from mgoe._util.files import (
    clear_partial,
    clear_unfinished,
    output_errors,
    read_json,
    recover,
    set_aside,
    sha256,
    was_set_aside,
    write_json,
)
from mgoe.config import DataSettings, RunSettings
from mgoe.data.log_files import files_of
from mgoe.errors import MgoeError, OutputError

STATE = "run.json"
"""State of a run: unfinished, or finished with version, command and seconds."""
SETTINGS = "settings.yaml"
CHECKSUMS = "source.json"
"""Checksums of a log's files, stored in the folder of the log."""
DONE = "metrics.json"
"""In the folder of a cell; written last, so a cell with this file is finished."""
FIT = "fit.json"
"""Result and cost of the training of a cell."""
INFLUENCE = "influence.safetensors"
"""Influence of each test user on each metric of a cell."""
RELIABILITY = "reliability.json"
"""Observed against predicted rates of a cell on test."""
CALIBRATION = "calibration.json"
"""Calibration of a cell, fitted on test."""
SOURCE = "source"
"""Key of the checksum of a log's files, which stands for their paths. An unknown checksum is compared with
nothing."""
FREE = {
    "training": {"threads", "device", "checkpoint", "keep", "compile", "track", "tables"},
    "graph": {"memory", "engine", "spark"},
}
"""Settings that may change when work resumes. `training.memory` may not: it decides the order of examples."""
SEEDS = ("negatives.training_seed", "graph.seed", "seed")
"""Keys that a seed of the comparison decides. They can differ in a search only: other paths name their
seed."""
EVERYTHING = "all"
"""Stands for every key where the note of a part is missing or damaged."""


def take_folder(out: Path, marker: str, what: str) -> None:
    """Create a folder, or check that the same command wrote it and clear what killed processes left.

    Args:
        out: The folder; hold it by `exclusive`.
        marker: The file that marks it.
        what: What the command writes, for the message.

    Raises:
        OutputError: It holds other files, or cannot be written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(out, "must be a folder, found a file; choose another path")
        if out.exists() and any(out.iterdir()) and not (out / marker).exists():
            raise OutputError(out, f"holds files that no {what} wrote; choose an empty folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            out, f"cannot be created or read: {error.strerror or error}; choose a folder you may write"
        ) from None
    clear_unfinished(out)


@contextmanager
def run_folder(out: Path, overwrite: bool, extend: bool = False) -> Iterator[bool]:
    """Take the folder of a run. If the block fails, a run that was to be replaced is still there.

    Args:
        out: The folder; hold it by `exclusive`.
        overwrite: Replace the run that it holds.
        extend: Resume it even if it is finished.

    Yields:
        Whether an unfinished run resumes.

    Raises:
        OutputError: The folder holds something else or a finished run, or cannot be written.
    """
    place = out.resolve()
    clear_partial(place)
    recover(place)  # a process was killed below
    take_folder(out, STATE, "run of mgoe")
    if overwrite and (out / STATE).exists():
        from mgoe.serving import check_no_events  # late: it imports torch

        check_no_events(out)
        with output_errors(out):
            set_aside(place)
            place.mkdir()
    elif is_finished(out) and not extend:
        raise OutputError(out, "holds a finished run; choose another folder, or overwrite it")
    try:
        resumed = (out / "data").exists()
        mark(out, "unfinished")
        yield resumed
    except BaseException:
        if was_set_aside(place):
            shutil.rmtree(place, ignore_errors=True)
            recover(place)
        raise
    recover(place)  # removes the run that was replaced


def mark(out: Path, state: str, **facts: object) -> None:
    """Record the state of a run."""
    write_json(out / STATE, {"state": state, "mgoe": __version__, **facts})


def is_finished(out: Path) -> bool:
    """Tell whether a folder holds a finished run."""
    try:
        return read_json(out / STATE).get("state") == "finished"
    except OutputError:
        return False


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
            fix = "choose another folder, or overwrite it to compute again what differs"
            if key == EVERYTHING:
                state = "damaged" if part.note.exists() else "missing"
                rule = f"cannot be checked against the settings: its note, {part.note}, is {state}"
            elif key == SOURCE:
                rule = "was made of another log: the files hold something else now"
            elif key in SEEDS:
                before = read_json(part.note)["seed"]
                rule = (
                    f"settings were searched with seed {before}, which must stay the first of `seeds`, "
                    f"found {part.asked['seed']}"
                )
                fix = f"put {before} first, {fix}"
            else:
                rule = f"was made with another `{key}`"
            raise OutputError(part.path, f"{rule}; {fix}")
    return [part for part, _ in found]


def run_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings of a run as plain values, without those that may differ between equal results."""
    # the checksum of the files stands for their paths
    users, items = (
        {"path", *(["name"] if side is None or side.name is None else [])}
        for side in (settings.data.users, settings.data.items)
    )  # older results, without a name, stay valid
    unused = {
        name: True
        for name in ("request", "uniform", "timezone")
        if getattr(settings.data, name) == DataSettings.model_fields[name].default
    }
    windows = {"test_windows": True} if settings.split.test_windows == 1 else {}
    return settings.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(("models", "jobs", "seeds", "retrieval", "retrain"), True),
            **FREE,
            "data": {"log": True, "truth": True, "users": users, "items": items, **unused},
            "split": windows,
        },
    )


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
            now[str(file)] = known if facts.items() <= known.items() else facts | {"sha256": sha256(file)}
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
    if not all(
        isinstance(one, dict) and {"bytes", "time_ns", "sha256"} <= one.keys() for one in found.values()
    ):
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
