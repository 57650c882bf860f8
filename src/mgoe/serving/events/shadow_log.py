"""The log of a shadow: what two versions said of the same requests, in a SQLite file of bounded size.

All processes of a service write to it. A crash of the machine may lose the last records.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mgoe.serving.events.event import Id, is_erased
from mgoe.serving.events.store import FORMAT, Store

FOLDER = "shadow"
"""Name of the folder in the folder of a service's state."""
FILE = "requests.sqlite"
MOST = 100_000
"""Records that are kept, the newest."""
AT_ONCE = 1000
"""Records that are read at once."""
_SCHEMA = f"""
BEGIN;
PRAGMA user_version = {FORMAT};
CREATE TABLE requests(id INTEGER PRIMARY KEY, record TEXT NOT NULL);
COMMIT;
"""


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

    def is_of(self, until: Mapping[str, int]) -> bool:
        """Return whether one of some users is in it, up to a time for each, see `EventLog.erase`."""
        return any(is_erased(until, user, self.time) for user in self.users)


class ShadowLog:
    """The records of a service.

    Args:
        folder: Holds the file.
        make: Whether to create what is missing.
        most: Records that are kept.

    Raises:
        StoreError: The file cannot be opened, or is damaged.
    """

    def __init__(self, folder: Path, make: bool = True, most: int = MOST):
        self._store = Store(folder / FILE, make, durable=False, schema=_SCHEMA)
        self._most = most

    def append(self, record: ShadowRecord) -> None:
        """Write a record.

        Raises:
            StoreError: It cannot be written.
        """

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO requests(record) VALUES (?)", (json.dumps(asdict(record)),))
            old = "DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?"
            connection.execute(old, (self._most,))

        self._store.write(write)

    def erase(self, until: Mapping[str, int]) -> int:
        """Remove the records of some users, up to a time for each, and return their number."""
        gone = [(number,) for number, record in self._numbered() if record.is_of(until)]
        query = "DELETE FROM requests WHERE id = ?"
        self._store.write(lambda connection: connection.executemany(query, gone))
        self._store.vacuum()
        return len(gone)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def __iter__(self) -> Iterator[ShadowRecord]:
        """Yield the records, oldest first."""
        return (record for _, record in self._numbered())

    def _numbered(self) -> Iterator[tuple[int, ShadowRecord]]:
        for rows in self._store.stream("SELECT id, record FROM requests ORDER BY id", {}, AT_ONCE):
            yield from ((number, ShadowRecord(**json.loads(text))) for number, text in rows)


def read_shadow_log(folder: Path) -> Iterator[ShadowRecord]:
    """Yield the records of a folder, none if there is no file.

    Raises:
        StoreError: The file is damaged.
    """
    if (folder / FILE).exists():
        yield from ShadowLog(folder, make=False)
