"""A durable log of live events in a folder: an acknowledged event survives a crash, for every process that
reads it.

The log is a folder of segments. Whoever appends next cuts off a torn write of a killed process and keeps it
in a file beside the log; readers stop before it. Corruption before intact records is not a torn write; raise
instead of truncating. Positions count bytes from the first record ever written.

A segment is a sequence of records: length and checksum, in eight bytes, then the event as a JSON list.

`open_events` opens the log of a service by its name, this one or one on Redis.
"""

import fcntl
import itertools
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np

from mgoe._util.files import sync
from mgoe.errors import EventError, OutputError, StoreError
from mgoe.serving.events.event import BATCH, IDENTITY, START, Event, EventLog, Position

HEAD = 8
"""Bytes of a record before the event."""
LARGEST = 1 << 20
"""Most bytes of an event."""
SEGMENT = 64 << 20
"""Bytes after which a new segment is started."""
REDIS = ("redis://", "rediss://", "unix://")
EVENTS = "events"
"""Folder of the log below that of a service's state."""
OPEN = 1 << 63
"""Stands for the end of the segment that is written to."""


class _Append:
    """Records that wait to be written."""

    def __init__(self, payload: bytes):
        self.payload, self.done = payload, False
        self.error: StoreError | None = None


class FileLog:
    """A log in a folder of this machine, for any number of processes and threads.

    Appends that wait for the disk are written together.

    Args:
        folder: Created if it is missing.
        segment: Bytes after which a new segment is started.
        make: Whether to create a log that is missing and to repair a torn write. Otherwise nothing is written
            until an event is.

    Raises:
        StoreError: The folder cannot be written, or the log is corrupt.
    """

    def __init__(self, folder: Path, segment: int = SEGMENT, make: bool = True):
        self.folder, self.segment = Path(folder), segment
        self._queue: list[_Append] = []
        self._mutex = threading.Condition()
        self._writing = False
        self._end = (-1, 0)  # start of the last segment, and where its intact records end
        self._read_all: tuple[Position, Path, int] | None = (
            None  # last file, and its size, after a read to the end
        )
        if make:
            with self._store_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._locked():
                    name, unfinished = self.folder / IDENTITY, self.folder / ".identity.tmp"
                    if not name.exists():
                        unfinished.write_text(uuid.uuid4().hex)
                        os.replace(unfinished, name)
                    self._repair()

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        with self._store_errors():
            return (self.folder / IDENTITY).read_text()

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""
        mine = _Append(b"".join(record(event) for event in events))
        with self._mutex:
            self._queue.append(mine)
            while self._writing and not mine.done:
                self._mutex.wait()
            together = [] if mine.done else self._queue
            if together:
                self._writing, self._queue = True, []
        if together:
            self._write_all(together)
        if mine.error is not None:
            raise mine.error

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """See `EventLog`."""
        with self._store_errors():
            starts = self._starts()
            last = self._file(starts[-1]) if starts else self.folder / IDENTITY
            size = last.stat().st_size  # before reading: what is appended meanwhile makes the file grow
            found = self._read(max(int(after or 0), starts[0] if starts else 0), limit, starts)
            if not found:
                self._read_all = after, last, size
            return found

    def may_have(self, after: Position) -> bool:
        """See `EventLog`. After a read to the end, wait for the last file to grow or for another one."""
        if self._read_all is None:
            return True
        position, last, size = self._read_all
        following = self._file(int(after or 0))
        try:
            return (
                after != position or last.stat().st_size != size or (following != last and following.exists())
            )
        except OSError:
            return True

    def order(self, position: Position) -> tuple[int, ...]:
        """See `EventLog`."""
        return (int(position or 0),)

    def forget(self, before: Position) -> None:
        """Drop the segments that end before a position."""
        with self._store_errors(), self._locked():
            for start, following in itertools.pairwise(self._starts()):
                if following <= int(before or 0):
                    self._file(start).unlink()

    def close(self) -> None:
        """See `EventLog`; nothing is kept open."""

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                self.folder,
                f"the log of events cannot be used: {error.strerror or error}; "
                "check that the folder exists and may be written, or free space",
            ) from None

    def _write_all(self, together: list[_Append]) -> None:
        """Write appends together, and wake the threads that wait for them."""
        error: StoreError | None = StoreError(self.folder, "writing events was interrupted; send them again")
        try:
            with self._store_errors():
                self._write(b"".join(append.payload for append in together))
            error = None
        except StoreError as found:
            error = found
        finally:
            with self._mutex:
                for append in together:
                    append.done, append.error = True, error
                self._writing = False
                self._mutex.notify_all()

    def _write(self, payload: bytes) -> None:
        with self._locked():
            start, end = self._repair()
            if end >= self.segment:
                sync(self._file(start))  # complete before another follows it
                start, end = start + end, 0
            with self._file(start).open("r+b" if self._file(start).exists() else "x+b", buffering=0) as file:
                if end == 0:  # others rely on the name of a segment that holds a record
                    sync(self.folder)
                self._put(file.fileno(), end, payload)
                self._end = (start, end + len(payload))
                written = os.dup(file.fileno())
        try:  # without the lock, so that others can append: what a killed process leaves is complete
            os.fsync(written)
        finally:
            os.close(written)

    def _put(self, file: int, at: int, payload: bytes) -> None:
        """Write records at a place. If they do not fit, complete ones stay: somebody may have read them."""
        view, to = memoryview(payload), at
        try:
            while view:
                n = os.pwrite(file, view, to)
                view, to = view[n:], to + n
        except OSError:
            os.ftruncate(file, at + intact(payload[: to - at]))
            raise

    def _repair(self) -> tuple[int, int]:
        """Cut off a torn write. Hold the lock.

        Returns:
            Start of the last segment and where its records end.
        """
        starts = self._starts()
        if not starts:
            return 0, 0
        start = starts[-1]
        known = self._end[1] if self._end[0] == start else 0
        with self._file(start).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(known, size))
            end = min(known, size) + intact(file.read())
            if end < size:  # move what follows the last intact record to a file beside the log
                if is_corrupt(file.fileno(), end):
                    raise self._corruption(start, end)
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
        self._end = (start, end)
        return self._end

    def _corruption(self, start: int, byte: int) -> StoreError:
        return StoreError(
            self._file(start), f"the log is damaged at byte {byte}; restore it from an intact copy"
        )

    def _read(self, after: int, limit: int, starts: list[int]) -> list[tuple[Position, Event]]:
        found: list[tuple[Position, Event]] = []
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
                content = file.read(bytes_of(limit - len(found)))
                for payload in records(content):
                    after += HEAD + len(payload)
                    found.append((str(after), Event.decode(payload)))
                    if len(found) == limit:
                        return found
                if after < following and found:
                    return found
                torn = following == OPEN and not (content and is_corrupt(file.fileno(), after - start))
                if after < following and not torn:
                    raise self._corruption(start, after - start)
        return found

    def _starts(self) -> list[int]:
        return sorted(int(file.stem) for file in self.folder.glob("*.log"))

    def _file(self, start: int) -> Path:
        return self.folder / f"{start:020d}.log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the log's lock, which ends with the process. Others wake at once; filelock would poll."""
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """Open the log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or a Redis server as in redis://host:6379/0.
        make: Whether to create a log that is missing and to repair one. Otherwise the folder is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.
    """
    if str(where).startswith(REDIS):
        from mgoe.serving.events.redis_log import RedisLog

        return RedisLog(str(where))
    folder = Path(where) / EVENTS
    if not make and not folder.is_dir():
        raise StoreError(
            where,
            f"holds no log of events (a folder {EVENTS!r} is missing); "
            "name the state folder of `mgoe serve`, or a redis://",
        )
    return FileLog(folder, make=make)


def check_no_events(folder: Path) -> None:
    """Check that a folder that is about to be replaced contains no log of live events.

    Raises:
        OutputError: It contains one.
    """
    for identity in folder.rglob(f"{EVENTS}/{IDENTITY}"):
        raise OutputError(
            identity.parents[1],
            "holds live events of a service, which would be lost with it; move it to another folder first",
        )


def record(event: Event) -> bytes:
    """Return an event as it is written.

    Raises:
        EventError: It is too long.
    """
    payload = event.encode()
    if len(payload) > LARGEST:
        raise EventError(
            "event", f"must take at most {LARGEST:,} bytes, found {len(payload):,}; send shorter ids"
        )
    return len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload


def records(content: bytes) -> Iterator[bytes]:
    """Yield the payloads of intact records from the first byte on."""
    at = 0
    while at + HEAD <= len(content):
        size, check = (int.from_bytes(content[at + k : at + k + 4], "little") for k in (0, 4))
        payload = content[at + HEAD : at + HEAD + size]
        if not 0 < size <= LARGEST or len(payload) < size or crc32(payload) != check:
            return
        yield payload
        at += HEAD + size


def intact(content: bytes) -> int:
    """Return how many bytes at the start are intact records."""
    return sum(HEAD + len(payload) for payload in records(content))


def bytes_of(count: int) -> int:
    """Return how many bytes to read for at least one record, and for most of `count` records."""
    return LARGEST + HEAD + 256 * count


def is_corrupt(file: int, place: int) -> bool:
    """Return whether a place of an open file holds no intact record although one follows.

    A torn write is at the end of a file; corruption before intact records is not a torn write. A checksum is
    computed only where a possible length stands before the first byte of a list."""
    at = place
    while len(content := os.pread(file, 3 * LARGEST + HEAD, at)) > HEAD:
        letters = np.frombuffer(content, np.uint8)
        # a length is at most LARGEST, so its last byte is 0
        possible = (letters[HEAD:] == ord("[")) & (letters[3 : 3 - HEAD] == 0)
        heads = np.flatnonzero(possible[: 2 * LARGEST])
        sizes = letters[heads[:, None] + np.arange(4)].view("<u4")[:, 0].astype(np.int64)
        fits = heads + HEAD + sizes <= len(content)
        for head, size in zip(heads[fits].tolist(), sizes[fits].tolist(), strict=True):
            if intact(content[head : head + HEAD + size]):
                return at + head > place
        at += 2 * LARGEST
    return False
