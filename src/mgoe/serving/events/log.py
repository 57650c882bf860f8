"""The durable log of live events: an event that `append` has acknowledged is there after a crash, for every process that reads it.

A folder of segments. A record that a killed process left half written is cut off by whoever appends next, and kept aside; readers stop
before it. Damage that whole records follow is none that a kill leaves: it is said, and nothing is cut. Positions count bytes from the first
record ever written.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar
from zlib import crc32

from mgoe._util.files import sync
from mgoe.errors import StoreError
from mgoe.serving.events.event import Event
from mgoe.serving.events.records import HEAD, damaged, record, records, some, whole

Position = str
"""Where a reader is: after which event. Each kind of log has its own."""
START: Position = ""
"""Before the first event."""
SEGMENT = 64 << 20
"""Bytes from which a new segment is begun."""
BATCH = 10_000
"""Events read at once."""
IDENTITY = "identity"
"""File of the log's name."""
OPEN = 1 << 63
"""Stands for the end of the segment that is written to."""
T = TypeVar("T")


class EventLog(Protocol):
    """What several servers share. Every method may raise `StoreError`, and works again once the store is back."""

    @property
    def identity(self) -> str:
        """Positions hold for the log of this identity alone. Asked of the store each time: one that lost its data is another log."""
        ...

    def append(self, events: Sequence[Event]) -> None:
        """Write events; they are durable when it returns. One that fails may have written them: sent again, they count once."""
        ...

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """The events after a position, in the one order that all readers see, each with the position after it."""
        ...

    def may_have(self, after: Position) -> bool:
        """Whether `read` may find something, answered at once: true as well where only asking the store could tell."""
        ...

    def order(self, position: Position) -> tuple[int, ...]:
        """By what positions compare."""
        ...

    def forget(self, before: Position) -> None:
        """Drop what lies before a position, as far as the store drops at all. Positions stay as they are."""
        ...

    def close(self) -> None:
        """Let go of files or connections."""
        ...


def every(log: EventLog, after: Position = START) -> Iterator[tuple[Position, Event]]:
    """All events after a position."""
    while found := log.read(after):
        yield from found
        after = found[-1][0]


class FileLog:
    """A log in a folder of this machine, for any number of processes and threads. Appends that wait for the disk are written together.

    Args:
        folder: Made if it is missing.
        segment: Bytes from which a new segment is begun.
        make: Begin a log where there is none, and cut off what a killed process left of its last record. Without it nothing is written
            before an event is.

    Raises:
        StoreError: The folder cannot be written, or the log is damaged.
    """

    def __init__(self, folder: Path, segment: int = SEGMENT, make: bool = True):
        self.folder, self.segment = Path(folder), segment
        self._queue: list[_Waiting] = []
        self._mutex = threading.Condition()
        self._writing = False
        self._end = (-1, 0)  # start of the last segment, and where its whole records end
        self._nothing_after: tuple[Position, Path, int] | None = (
            None  # a position, the last file there was, and its size
        )
        if make:
            self._guarded(self._open)

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        return self._guarded((self.folder / IDENTITY).read_text)

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""
        mine = _Waiting(b"".join(record(event) for event in events))
        with self._mutex:
            self._queue.append(mine)
            while self._writing and not mine.done:
                self._mutex.wait()
            together = [] if mine.done else self._queue
            if together:
                self._writing, self._queue = True, []
        if together:
            self._lead(together)
        if mine.error is not None:
            raise mine.error

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """See `EventLog`."""
        return self._guarded(lambda: self._read(after, limit))

    def may_have(self, after: Position) -> bool:
        """See `EventLog`. Where nothing was found, there is something once the last file has grown or another follows it."""
        if self._nothing_after is None:
            return True
        position, file, size = self._nothing_after
        following = self._file(int(after or 0))
        try:
            return (
                after != position or file.stat().st_size != size or (following != file and following.exists())
            )
        except OSError:
            return True

    def order(self, position: Position) -> tuple[int, ...]:
        """See `EventLog`."""
        return (int(position or 0),)

    def forget(self, before: Position) -> None:
        """Drop the segments that lie wholly before a position."""

        def drop() -> None:
            with self._locked():
                starts = self._starts()
                for start, following in itertools.pairwise(starts):
                    if following <= int(before or 0):
                        self._file(start).unlink()

        self._guarded(drop)

    def close(self) -> None:
        """Nothing is held open."""

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            mend = "see that the folder is there and may be written, or free space"
            raise StoreError(
                self.folder, f"the log of events cannot be used: {error.strerror or error}; {mend}"
            ) from None

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            name, unfinished = self.folder / IDENTITY, self.folder / ".identity.tmp"
            if not name.exists():
                unfinished.write_text(uuid.uuid4().hex)
                os.replace(unfinished, name)
            self._mend()

    def _lead(self, together: list[_Waiting]) -> None:
        """Write what waits, once for all."""
        error: StoreError | None = StoreError(
            self.folder, "the writing of events was cut off; send them again"
        )
        try:
            self._guarded(lambda: self._write(b"".join(one.payload for one in together)))
            error = None
        except StoreError as found:
            error = found
        finally:
            with self._mutex:
                for one in together:
                    one.done, one.error = True, error
                self._writing = False
                self._mutex.notify_all()

    def _write(self, payload: bytes) -> None:
        with self._locked():
            start, end = self._mend()
            if end >= self.segment:
                sync(self._file(start))  # whole before another follows it
                start, end = start + end, 0
            with self._file(start).open("r+b" if self._file(start).exists() else "x+b", buffering=0) as file:
                if end == 0:  # others rely on the name of a segment that holds a record
                    sync(self.folder)
                self._put(file.fileno(), end, payload)
                self._end = (start, end + len(payload))
                held = os.dup(file.fileno())
        try:  # others may append meanwhile: a process that is killed here has written whole records
            os.fsync(held)
        finally:
            os.close(held)

    def _put(self, file: int, at: int, payload: bytes) -> None:
        """Write records at a place. Where they do not fit, whole ones stay: somebody may have read them."""
        view, to = memoryview(payload), at
        try:
            while view:
                n = os.pwrite(file, view, to)
                view, to = view[n:], to + n
        except OSError:
            os.ftruncate(file, at + whole(payload[: to - at]))
            raise

    def _mend(self) -> tuple[int, int]:
        """Start and end of the last segment, after what a killed process left half written is cut off. Under the lock."""
        starts = self._starts()
        if not starts:
            return 0, 0
        start = starts[-1]
        known = self._end[1] if self._end[0] == start else 0
        with self._file(start).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(known, size))
            end = min(known, size) + whole(file.read())
            if end < size:
                self._cut(file, start, end)
        self._end = (start, end)
        return self._end

    def _cut(self, file: BinaryIO, start: int, end: int) -> None:
        """Cut off what follows the last whole record of a segment; it is kept beside the log."""
        if damaged(file.fileno(), end):
            raise self._damage(start, end)
        file.seek(end)
        tail = file.read()
        kept = self.folder / f"{start + end:020d}-{crc32(tail):08x}.cut"
        kept.write_bytes(tail)
        sync(kept)
        sync(self.folder)
        file.truncate(end)
        logging.getLogger(__name__).warning(
            "tail cut off", extra={"fields": {"kept": str(kept), "bytes": len(tail)}}
        )

    def _damage(self, start: int, byte: int) -> StoreError:
        return StoreError(
            self._file(start), f"the log is damaged at byte {byte}; copy it again from a whole one"
        )

    def _read(self, position: Position, limit: int) -> list[tuple[Position, Event]]:
        found: list[tuple[Position, Event]] = []
        after, starts = int(position or 0), self._starts()
        last = self._file(starts[-1]) if starts else self.folder / IDENTITY
        size = last.stat().st_size
        if starts and after < starts[0]:
            after = starts[0]  # forgotten
        for start, following in itertools.pairwise([*starts, OPEN]):
            if following <= after:
                continue
            with self._file(start).open("rb") as file:
                if following == OPEN and os.fstat(file.fileno()).st_size < after - start:
                    raise StoreError(
                        self.folder,
                        f"the log ends before position {after}; it is another log, or has lost its end",
                    )
                file.seek(after - start)
                held = file.read(some(limit - len(found)))
                for payload in records(held):
                    after += HEAD + len(payload)
                    found.append((str(after), Event.decode(payload)))
                    if len(found) == limit:
                        return found
                if after < following and found:
                    return found
                if after < following != OPEN or (
                    held and following == OPEN and damaged(file.fileno(), after - start)
                ):
                    raise self._damage(start, after - start)
        if not found:
            self._nothing_after = position, last, size
        return found

    def _starts(self) -> list[int]:
        return sorted(int(file.stem) for file in self.folder.glob("*.log"))

    def _file(self, start: int) -> Path:
        return self.folder / f"{start:020d}.log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of the log, which ends with the process however that ends."""
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Waiting:
    """An append that waits to be written."""

    def __init__(self, payload: bytes):
        self.payload, self.done = payload, False
        self.error: StoreError | None = None
