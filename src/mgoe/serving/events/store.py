"""The database of a service: one SQLite file in WAL mode, which several threads and processes write to.

What is written is on the disk when `write` returns (`synchronous=FULL`). A process that is killed leaves
whole transactions: SQLite ignores the end of its write-ahead log where a checksum does not match.
"""

import fcntl
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from mgoe.errors import DamagedLogError, StoreError

FILE = "log.sqlite"
"""Name of the file in the folder of a service's state."""
CACHE = 64 << 10
"""KiB of pages that each connection holds."""
ROOM = 1 << 20
"""Bytes that the disk must have room for."""
PATIENCE = 60.0
"""Seconds to wait for another process, which may be recovering what a killed one left."""
FORMAT = 2
"""Of the tables; earlier ones were never released."""
T = TypeVar("T")


class _Batch(NamedTuple):
    """Pieces of work that wait to be written in one transaction, and then what each returned."""

    works: list[Callable[[sqlite3.Connection], Any]]
    written: Future[list[Any]]


class _Opened(NamedTuple):
    """A connection, and the file that it is to."""

    connection: sqlite3.Connection
    file: tuple[int, int]


class Store:
    """A database in a file of this machine, for any number of processes and threads.

    Args:
        path: The file; its folder is created if it is missing.
        schema: SQL that makes the tables of a new file.
        make: Whether to create what is missing. Otherwise nothing is written before the first `write`.
        durable: Whether `write` waits for the disk. Otherwise a crash of the machine may lose the last ones.

    Raises:
        StoreError: The file cannot be opened, is damaged, or of another format.
    """

    def __init__(self, path: Path, schema: str, make: bool = True, durable: bool = True):
        self.path, self._make = Path(path), make
        self._synchronous = "FULL" if durable else "NORMAL"
        self._next = _Batch([], Future())
        self._mutex, self._reading = threading.Condition(), threading.Lock()
        self._writing = False
        self._writer: _Opened | None = None
        self._reader: _Opened | None = None
        with self._store_errors():
            if make:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._locked(), closing(self._connect("rwc")) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                        connection.executescript(f"BEGIN; PRAGMA user_version = {FORMAT}; {schema} COMMIT;")
            os.stat(self.path)
            ((found,),) = self.read("PRAGMA user_version")
        if found != FORMAT:
            raise StoreError(
                self.path,
                f"must be a log of format {FORMAT}, found {found}; update once with the version of mgoe "
                "that wrote it, then start with an empty folder",
            )

    @property
    def identity(self) -> str:
        """A text that no other database has."""
        return self.read("SELECT id FROM identity")[0][0]

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in a transaction, and wait until it is on the disk.

        All work that waits for the disk is written in one transaction: it succeeds or fails together.

        Returns:
            What the work returned.

        Raises:
            StoreError: Nothing of it was written.
        """
        with self._mutex:
            batch, number = self._next, len(self._next.works)
            batch.works.append(work)
            while self._writing and not batch.written.done():
                self._mutex.wait()
            if is_ours := not batch.written.done():
                self._writing, self._next = True, _Batch([], Future())
        if is_ours:
            self._write_all(batch)
        return batch.written.result()[number]

    def check_room(self) -> None:
        """Check that something could be written now, by a file without a name that is gone at once.

        Raises:
            StoreError: The disk is full, or may not be written.
        """
        with self._store_errors(), tempfile.TemporaryFile(dir=self.path.parent) as file:
            file.write(bytes(ROOM))
            file.flush()

    def read(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query, as of the last transaction of any process."""
        with self._store_errors(), self._reading:
            self._reader = self._current(self._reader, "rw" if self._make else "ro")
            return self._reader.connection.execute(query, values).fetchall()

    def stream(self, query: str, values: dict[str, Any], size: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a long query in lists of some size, all as of the moment when it began."""
        with self._store_errors(), closing(self._connect("rw" if self._make else "ro")) as connection:
            cursor = connection.execute(query, values)
            while rows := cursor.fetchmany(size):
                yield rows

    def copy(self) -> sqlite3.Connection:
        """Return a copy of the database in memory, without what was deleted."""
        copy = sqlite3.connect(":memory:")
        with self._store_errors(), closing(self._connect("ro")) as connection:
            connection.backup(copy)
        copy.execute("VACUUM")
        return copy

    def vacuum(self) -> None:
        """Write the file again without the bytes of what was removed, and empty its write-ahead log.

        Raises:
            StoreError: Another process has read from it for too long.
        """
        with self._store_errors(), self._locked(), closing(self._connect("rw")) as connection:
            connection.execute("VACUUM")
            ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise StoreError(self.path, "its write-ahead log is being read and was not emptied; try again")

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        for opened in (self._writer, self._reader):
            if opened is not None:
                opened.connection.close()
        self._writer = self._reader = None

    def _write_all(self, batch: _Batch) -> None:
        """Write a batch in one transaction, and wake the threads that wait for it."""
        try:
            with self._store_errors(), self._locked():
                self._writer = self._current(self._writer, "rw")
                with self._writer.connection as connection:  # commits, or rolls back
                    connection.execute("BEGIN IMMEDIATE")
                    done = [work(connection) for work in batch.works]
            batch.written.set_result(done)
        except BaseException as error:
            interrupted = StoreError(self.path, "writing was interrupted; send the events again")
            batch.written.set_exception(error if isinstance(error, StoreError) else interrupted)
            raise
        finally:
            with self._mutex:
                self._writing = False
                self._mutex.notify_all()

    def _connect(self, mode: str) -> sqlite3.Connection:
        """Open the file to read (`ro`), to write (`rw`), or to create it (`rwc`)."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        # SQLite puts files beside the log even to read it, unless nothing can change
        fixed = (
            "&immutable=1" if mode == "ro" and not os.access(wal.parent, os.W_OK) and not wal.exists() else ""
        )
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}{fixed}",
            uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA cache_size = -{CACHE}")
        return connection

    def _current(self, opened: _Opened | None, mode: str) -> _Opened:
        """Return a connection to the file at the path: what one that was deleted takes would be lost."""
        found = os.stat(self.path)
        if opened is None or opened.file != (found.st_dev, found.st_ino):
            if opened is not None:
                opened.connection.close()
            return _Opened(self._connect(mode), (found.st_dev, found.st_ino))
        return opened

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise StoreError(
                self.path,
                f"the log of events cannot be used: {reason}; "
                "check that the folder exists and may be written, or free space",
            ) from None
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a defect of ours
                raise
            raise DamagedLogError(
                self.path, f"the log is damaged ({error}); restore it from an intact copy"
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock that ends with the process. Others wake at once and in turn; SQLite would poll."""
        with open(f"{self.path}-lock", "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
