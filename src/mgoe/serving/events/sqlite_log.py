"""A durable log of live events in a file: an acknowledged event survives a crash, for every process that
reads it.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from mgoe.bundle.held import Mark
from mgoe.bundle.items import Item
from mgoe.bundle.membership import DEPLOYMENT
from mgoe.errors import OutputError
from mgoe.serving.events.chain import chained
from mgoe.serving.events.event import Event, EventLog, Records, every
from mgoe.serving.events.store import FILE, Store, end_of

AT_ONCE = 10_000
"""Events that are dropped in one transaction, so that appends need not wait long."""


class SqliteLog(EventLog):
    """A log in a file of this machine, for any number of processes and threads.

    Positions are numbers of events, which are never given twice. SQLite has no checksums of its own once a
    page has left its log; digests replace them.

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
        self._store, self.place, self._make = Store(path, make), path, make

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        return self._store.identity

    @property
    def deployment(self) -> str | None:
        """See `EventLog`."""
        found = self._store.read("SELECT n FROM exposure_counts WHERE name = ?", (DEPLOYMENT,))
        return found[0][0] if found else None

    def move(self, deployment: str, anyway: bool = True) -> None:
        """See `EventLog`. What is only read does not remember it."""
        query = f"INSERT OR {'REPLACE' if anyway else 'IGNORE'} INTO exposure_counts VALUES (?, ?)"
        if self._make:
            self._store.write(lambda connection: connection.execute(query, (DEPLOYMENT, deployment)))

    def append(self, events: Sequence[Event | Item]) -> None:
        """See `EventLog`."""
        records = [event.encode() for event in events]

        def insert(connection: sqlite3.Connection) -> None:
            rows, digest = [], end_of(connection, "events")[1]
            for record in records:
                digest = chained(digest, record)
                rows.append((record, bytes.fromhex(digest)))
            connection.executemany("INSERT INTO events(event, digest) VALUES (?, ?)", rows)

        if records:
            self._store.write(insert)

    def forget(self, before: Mark) -> None:
        """See `EventLog`."""
        self.check(before)
        query = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id < ? ORDER BY id LIMIT ?)"
        values = int(before.position or 0), AT_ONCE
        while self._store.write(lambda connection: connection.execute(query, values).rowcount):
            pass

    @property
    def erased(self) -> int:
        """See `EventLog`."""
        return sum(n for (n,) in self._store.read("SELECT n FROM exposure_counts WHERE name = 'erased'"))

    def erase(self, until: Mapping[str, int], erasures: int) -> int:
        """See `EventLog`. What was removed of exposures and labels in the same file is then gone, too."""
        gone = [(int(mark.position),) for mark, event in every(self) if event.is_of(until)]
        query = "UPDATE events SET event = x'' WHERE id = ?"
        self._store.write(lambda connection: connection.executemany(query, gone))
        self._store.vacuum()
        note = "INSERT OR REPLACE INTO exposure_counts VALUES ('erased', ?)"
        self._store.write(lambda connection: connection.execute(note, (erasures,)))
        return len(gone)

    def close(self) -> None:
        """See `EventLog`."""
        self._store.close()

    def _records(self, first: Mark, count: int) -> Records:
        """See `EventLog`."""
        query = "SELECT id, event, digest FROM events WHERE id >= ? ORDER BY id LIMIT ?"
        found = self._store.read(query, (int(first.position or 0), count))
        return [(Mark(str(number), digest.hex()), record) for number, record, digest in found]


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
