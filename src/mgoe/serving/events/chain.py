"""The chain of a log: kinds of records, their positions, and digests, each over all records up to its own.

So a reader that knows the position and the digest of the last record that it has read, a `Mark`, notices an
older copy of the log, even one that has grown past that position.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from enum import IntEnum

from mgoe.bundle.held import Mark
from mgoe.errors import OtherLogError


class Kind(IntEnum):
    """What a record of a log is."""

    EVENT = 1
    ITEM = 2
    EXPOSURE = 3
    LABELS = 4
    """Several, which were sent together."""
    ERASURE = 5


CHAIN = f"""
CREATE TABLE records(
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE exposures(
    id INTEGER PRIMARY KEY, request TEXT NOT NULL, user TEXT NOT NULL, item TEXT NOT NULL,
    time INTEGER NOT NULL, position INTEGER, propensity REAL, context TEXT, taken INTEGER NOT NULL,
    digest BLOB NOT NULL);
CREATE TABLE others(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE VIEW chain AS
SELECT id, kind, digest FROM records
UNION ALL SELECT id, CAST({Kind.EXPOSURE:d} AS INTEGER), digest FROM exposures
UNION ALL SELECT id, kind, digest FROM others;
"""
"""Tables of the chain, whose records are numbered together: what is read in its order, exposures, which are
joined with their labels, and others, whose contents are elsewhere or were carried out."""
TABLES = ("records", "exposures", "others")


def chained(former: str, record: bytes) -> str:
    """Return the digest of a record and all before it.

    The first 32 hexadecimal digits of SHA-1, which is what Redis computes in a script. It finds mistakes, not
    forgery.

    Args:
        former: Digest of the record before; the identity of the log before the first.
        record: As it is stored.

    Example:
        >>> chained(chained("A3F0", b"one"), b"two")
        '18cfe0be2c8fa8b6b8c3e24fa0927b7a'
    """
    return hashlib.sha1(former.encode() + record, usedforsecurity=False).hexdigest()[:32]


def end_of(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return position and digest of the last record; 0 and the identity of the log before the first."""
    found = connection.execute("SELECT id, digest FROM chain ORDER BY id DESC LIMIT 1").fetchone()
    if found is None:
        return 0, connection.execute("SELECT id FROM identity").fetchone()[0]
    return found[0], found[1].hex()


def add(connection: sqlite3.Connection, records: Iterable[tuple[Kind, bytes]]) -> None:
    """Write events and items behind the last record."""
    last, digest = end_of(connection)
    rows = []
    for number, (kind, record) in enumerate(records, last + 1):
        digest = chained(digest, record)
        rows.append((number, kind, record, bytes.fromhex(digest)))
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)


def add_other(connection: sqlite3.Connection, kind: Kind, record: bytes) -> None:
    """Write behind the last record one whose contents are not read from the chain."""
    last, digest = end_of(connection)
    row = (last + 1, kind, bytes.fromhex(chained(digest, record)))
    connection.execute("INSERT INTO others VALUES (?, ?, ?)", row)


def check_record(place: object, mark: Mark, found: Mark | None) -> None:
    """Check that the record at a mark is the one that was read.

    Args:
        place: The log, for messages.
        mark: Up to where it was read.
        found: Of the first record at its position or later; None if there is none.

    Raises:
        OtherLogError: It is not.
    """
    if found == mark:
        return
    is_gone = found is not None and found.position != mark.position
    what = "ends before" if found is None else "begins after" if is_gone else "holds another record at"
    why = (
        "rows between are gone; use a bundle that holds more of it, or train in full on files"
        if is_gone
        else "it is an older copy, was emptied, or is another log; restore the latest copy, or set this one "
        "aside and start with an empty one, and the bundle keeps what it holds"
    )
    raise OtherLogError(place, f"the log {what} position {mark.position}, up to which it was read: {why}")
