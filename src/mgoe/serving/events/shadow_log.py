"""The log of a shadow: what two versions said of the same requests, in files of bounded size.

FOLDER/MOMENT-PROCESS.jsonl holds one `ShadowRecord` per line, as JSON. Each process of a service writes files
of its own, and the oldest ones are removed. A line that is written survives the process, and may be lost with
the machine. A process that is killed leaves whole lines, and at most a part of one at the end, which is left
out when the log is read.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from mgoe._util.files import write_text
from mgoe.errors import StoreError
from mgoe.serving.events.event import Id

FOLDER = "shadow"
"""Name of the folder in the folder of a service's state."""
MOST = 256 * 2**20
"""Bytes of all files."""
PART = 4 * 2**20
"""Bytes of a file, up to one line more."""


@dataclass(frozen=True)
class ShadowRecord:
    """What two versions said of some pairs of one request.

    Attributes:
        time: When it was answered, in microseconds since 1970.
        version: The version that answered.
        shadow: The other one.
        tasks: Names of the tasks.
        users: The user, or one per item.
        items: The items: those at the top of the answer, best first, then some of all that were scored, at
            random.
        shown: How many are from the answer.
        scores: What the client got, or would have got: one list per item with the probability (or value) of
            each task.
        shadow_scores: What the shadow says, likewise.
        overlap: Share of the first items of the answer that the shadow ranks first, too; None if nothing was
            ranked.
    """

    time: int
    version: str
    shadow: str
    tasks: list[str]
    users: list[Id]
    items: list[Id]
    shown: int
    scores: list[list[float]]
    shadow_scores: list[list[float]]
    overlap: float | None

    def is_of(self, until: Mapping[str, int]) -> bool:
        """Return whether one of some users is in it, up to a time for each, see `EventLog.erase`."""
        return any(self.time <= until.get(str(user), -1) for user in self.users)


class ShadowLog:
    """Writes the records of one process.

    Args:
        folder: Created with the first record.
        most: Bytes of all files, of every process.
        part: Bytes of one file.
    """

    def __init__(self, folder: Path, most: int = MOST, part: int = PART):
        self._folder, self._most, self._part = folder, most, part
        self._path: Path | None = None
        self._file: TextIO | None = None

    def append(self, record: ShadowRecord) -> None:
        """Write a record.

        Raises:
            StoreError: It cannot be written.
        """
        try:
            self._current().write(_line(record))
        except OSError as error:
            self.close()
            raise StoreError(
                self._folder, f"cannot be written: {error.strerror or error}; free space, or its rights"
            ) from None

    def close(self) -> None:
        """Close the file; the next record begins another one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current(self) -> TextIO:
        """Return the file to write to, which another process may have removed."""
        there = self._path is not None and self._path.exists()
        if self._file is not None and there and self._file.tell() < self._part:
            return self._file
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_oldest()
        self._path = self._folder / f"{time.time_ns() // 1000:020d}-{os.getpid()}.jsonl"
        self._file = self._path.open("a", encoding="utf-8", buffering=1)  # whole lines
        return self._file

    def _remove_oldest(self) -> None:
        sizes = dict[Path, int]()
        for file in _files(self._folder):
            with suppress(FileNotFoundError):  # another process has removed it
                sizes[file] = file.stat().st_size
        total = sum(sizes.values())
        for file, size in sizes.items():
            if total + self._part <= self._most:
                break
            file.unlink(missing_ok=True)
            total -= size


def read_shadow_log(folder: Path) -> Iterator[ShadowRecord]:
    """Yield the records of all processes, those of one in their order.

    Args:
        folder: What `ShadowLog` writes to; it may be written to meanwhile.

    Raises:
        StoreError: A line is damaged.
    """
    for file in _files(folder):
        yield from _records(file)


def erase_from_shadow_log(folder: Path, until: Mapping[str, int]) -> int:
    """Remove the records of some users, up to a time for each, and return their number.

    A file with such records is replaced by one of another name, so a service that writes to it begins a new
    one.
    """
    total = 0
    for file in _files(folder):
        records = [*_records(file)]
        left = [record for record in records if not record.is_of(until)]
        if gone := len(records) - len(left):
            write_text(file.with_name(f"{file.stem}-{gone}.jsonl"), "".join(map(_line, left)))
            file.unlink(missing_ok=True)
            total += gone
    return total


def _line(record: ShadowRecord) -> str:
    return json.dumps(asdict(record), separators=(",", ":")) + "\n"


def _records(file: Path) -> Iterator[ShadowRecord]:
    """Yield the records of a file; none if the service has removed it."""
    with suppress(FileNotFoundError):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(keepends=True), 1):
            if line.endswith("\n"):
                try:
                    yield ShadowRecord(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise StoreError(
                        file, f"line {number} is damaged ({error}); remove the file, which is only a sample"
                    ) from None


def _files(folder: Path) -> list[Path]:
    """Return the files, the oldest first."""
    return sorted(folder.glob("*.jsonl"))
