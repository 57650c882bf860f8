"""A durable log of live events in a file: an acknowledged event survives a crash, for every process that
reads it.

`open_events` opens the log of a service by its name, this one or one on Redis.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from mgoe.errors import OutputError, StoreError
from mgoe.serving.events.event import BATCH, START, Event, EventLog, Position
from mgoe.serving.events.store import FILE, Store

REDIS = ("redis://", "rediss://", "unix://")
AT_ONCE = 10_000
"""Events that are dropped in one transaction, so that appends need not wait long."""


class SqliteLog:
    """A log in a file of this machine, for any number of processes and threads.

    Positions are numbers of events, which are never given twice.

    Args:
        path: The file; its folder is created if it is missing.
        make: Whether to create a log that is missing. Otherwise nothing is written until an event is.

    Raises:
        StoreError: The file cannot be opened, or is damaged.

    Example:
        >>> from mgoe.serving import Event
        >>> log = SqliteLog(Path("state/log.sqlite"))
        >>> log.append([Event(42, 7, "click", 1_700_000_000_000_000)])
        >>> len(log.read())
        1
        >>> log.close()
    """

    def __init__(self, path: Path, make: bool = True):
        self._store = Store(path, make)

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        return self._store.identity

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""
        rows = [(encoded, crc32(encoded)) for encoded in (event.encode() for event in events)]

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO events(event, checksum) VALUES (?, ?)", rows)

        if rows:
            self._store.write(insert)

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """See `EventLog`."""
        query = "SELECT id, event, checksum FROM events WHERE id > ? ORDER BY id LIMIT ?"
        found = self._store.read(query, (int(after or 0), limit))
        if not found and after and int(after) > self._last:
            raise StoreError(
                self._store.path,
                f"the log ends before position {after}; it is another log, or has lost its end",
            )
        for position, event, checksum in found:
            if crc32(event) != checksum:  # SQLite has no checksums of its own once a page has left its log
                raise StoreError(
                    self._store.path,
                    f"the log is damaged at event {position}; restore it from an intact copy",
                )
        return [(str(position), Event.decode(event)) for position, event, _ in found]

    def may_have(self, after: Position) -> bool:
        """See `EventLog`. The file answers at once, unless another thread reads it."""
        if self._store.is_being_read:
            return True
        try:
            return bool(self._store.read("SELECT 1 FROM events WHERE id > ? LIMIT 1", (int(after or 0),)))
        except StoreError:
            return True

    def order(self, position: Position) -> tuple[int, ...]:
        """See `EventLog`."""
        return (int(position or 0),)

    def forget(self, before: Position) -> None:
        """Drop the events up to a position."""
        query = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? ORDER BY id LIMIT ?)"
        values = int(before or 0), AT_ONCE
        while before and self._store.write(lambda connection: connection.execute(query, values).rowcount):
            pass

    def close(self) -> None:
        """See `EventLog`."""
        self._store.close()

    @property
    def _last(self) -> int:
        """The last position that was given, 0 if none was."""
        return sum(
            seq for (seq,) in self._store.read("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        )


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """Open the log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or a Redis server as in redis://host:6379/0.
        make: Whether to create a log that is missing. Otherwise the log is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.

    Example:
        >>> log = open_events("state")
        >>> log.read()
        []
        >>> log.close()
    """
    if str(where).startswith(REDIS):
        from mgoe.serving.events.redis_log import RedisLog

        return RedisLog(str(where))
    file = Path(where) / FILE
    if not make and not file.is_file():
        raise StoreError(
            where,
            f"holds no log of events (a file {FILE!r} is missing); "
            "name the state folder of `mgoe serve`, or a redis://",
        )
    return SqliteLog(file, make)


def check_no_events(folder: Path) -> None:
    """Check that a folder that is about to be replaced contains no log of live events.

    Raises:
        OutputError: It contains one.

    Example:
        >>> check_no_events(Path("an empty folder"))
    """
    for file in folder.rglob(FILE):
        raise OutputError(
            file.parent,
            "holds live events of a service, which would be lost with it; move it to another folder first",
        )
