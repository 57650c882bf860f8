"""The chain of a log: kinds of records, their positions and digests, and what the records add up to.

Each digest is over all records up to its own. So a reader that knows the position and the digest of the last
record that it has read, a `Mark`, notices an older copy of the log, even one that has grown past that
position.

An exposure is identified by its request's id and its item, or without such an id by user, item and moment. It
counts once while the log holds it. A label names its exposure by the request's id and the item, or by user
and item: then it belongs to their latest exposure that is not after it. Labels and exposures wait for each
other for the same time, the window; a label for which no exposure was taken within it is dropped and counted.
Which label belongs to which exposure is decided when they are read, so the order in which records arrive
changes nothing.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from mgoe.bundle.held import Mark
from mgoe.bundle.items import MARK
from mgoe.config import CLOCK_SKEW
from mgoe.errors import OtherLogError, StoreError


class Kind(IntEnum):
    """What a record of a log is."""

    EVENT = 1
    ITEM = 2
    EXPOSURE = 3
    LABELS = 4
    """Several, which were sent together."""
    ERASURE = 5


SCHEMA = f"""
CREATE TABLE identity(id TEXT NOT NULL);
INSERT INTO identity SELECT hex(randomblob(16));
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
CREATE UNIQUE INDEX exposures_by_request ON exposures(request, item);
CREATE INDEX exposures_by_user ON exposures(user, item, time);
CREATE TABLE labels(
    id INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL, user TEXT NOT NULL, item TEXT NOT NULL,
    task TEXT NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL, taken INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    UNIQUE(request, user, item, task, time, value));
CREATE INDEX labels_waiting ON labels(taken) WHERE waiting;
CREATE TABLE notes(name TEXT PRIMARY KEY, n NOT NULL);
"""
"""Tables of the chain, whose records are numbered together: `records` are read in its order, `exposures` are
joined with their labels, and the contents of `others` are in other tables, or were carried out."""
TABLES = ("records", "exposures", "others")
Change = Mapping[str, Sequence[Any]]
"""What changes a log, see `apply`."""
UNKNOWN = (
    "holds a record of the kind {!r}, which this version of mgoe does not know; use the version that wrote it"
)
COUNTS = ("exposures taken", "exposure duplicates", "labels taken", "labels dropped", "label conflicts")


def _fields(*places: int) -> str:
    """Return SQL for entries of a record in an array of records."""
    return ", ".join(f"json_extract(value, '$[{place}]')" for place in places)


# the moment up to which the exposure of label l may be: a label that the service dated is late at most
_UNTIL = f"l.time + (l.time = l.taken) * {CLOCK_SKEW}"
# the exposure that label l belongs to
_EXPOSURE_OF = f"""
coalesce(
    (SELECT e.id FROM exposures e WHERE l.request <> '' AND e.request = l.request AND e.item = l.item
        AND e.time <= {_UNTIL} AND e.taken BETWEEN l.taken - :wait AND l.taken + :wait),
    (SELECT e.id FROM exposures e WHERE l.request = '' AND e.user = l.user AND e.item = l.item
        AND e.time <= {_UNTIL} AND e.taken BETWEEN l.taken - :wait AND l.taken + :wait
        ORDER BY e.time DESC, e.request DESC LIMIT 1))
"""
_TAKE = """
INSERT INTO exposures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_TAKE_LABELS = f"""
INSERT INTO labels(request, user, item, task, time, value, taken, waiting)
SELECT {_fields(0, 1, 2, 3)}, coalesce({_fields(4)}, :now), {_fields(5)}, :now, 1
FROM json_each(:rows) WHERE true ON CONFLICT DO NOTHING
"""
TOO_EARLY = f"""
SELECT n.key, e.time FROM json_each(:rows) n
JOIN exposures e ON e.request = {_fields(0)} AND e.item = {_fields(2)} WHERE {_fields(4)} < e.time
"""
_LABELS_OF_NEW = """
SELECT l.id FROM exposures e JOIN labels l ON l.request = e.request AND l.user = '' AND l.item = e.item
WHERE e.id > :exposures AND l.waiting
UNION ALL
SELECT l.id FROM exposures e JOIN labels l ON l.request = '' AND l.user = e.user AND l.item = e.item
WHERE e.id > :exposures AND l.waiting
"""
_FOUND = f"UPDATE labels AS l SET waiting = 0 WHERE id IN ({{}}) AND ({_EXPOSURE_OF}) IS NOT NULL"
_CONFLICTS = """
SELECT count(*) FROM labels n WHERE n.id > :labels AND EXISTS (
    SELECT 1 FROM labels l WHERE l.request = n.request AND l.user = n.user AND l.item = n.item
    AND l.task = n.task AND l.id < n.id AND l.value <> n.value
    AND (l.request <> '' OR l.time >= (SELECT max(e.time) FROM exposures e
        WHERE e.user = n.user AND e.item = n.item AND e.time <= n.time)))
"""
# exposures with new labels, and those whose labels a new exposure may have taken
TOUCHED = f"""
SELECT CAST({_EXPOSURE_OF} AS INTEGER) FROM labels l WHERE l.id > :labels
UNION
SELECT e.id FROM exposures n JOIN exposures e ON e.user = n.user AND e.item = n.item
WHERE n.id > :after AND n.id <= :upto
"""
_DROP_LABELS = f"""
DELETE FROM labels WHERE id IN (
    SELECT l.id FROM exposures e CROSS JOIN labels l
        ON (l.request = e.request AND l.user = '' AND l.item = e.item)
        OR (l.request = '' AND l.user = e.user AND l.item = e.item)
    WHERE e.id < (SELECT max(id) FROM exposures WHERE id < :before) AND {_EXPOSURE_OF} = e.id)
"""
# CROSS JOIN: the labels of each exposure are found by their index
_ROWS = f"""
WITH ranked AS (
    SELECT e.id AS exposure, l.task, l.value, l.time,
        row_number() OVER (PARTITION BY e.id, l.task ORDER BY l.value DESC, l.time) AS place
    FROM exposures e CROSS JOIN labels l ON (l.request = e.request AND l.user = '' AND l.item = e.item)
        OR (l.request = '' AND l.user = e.user AND l.item = e.item)
    WHERE {{which}} AND l.taken <= :as_of AND {_EXPOSURE_OF} = e.id),
labelled AS (SELECT exposure, {{best}} FROM ranked WHERE place = 1 GROUP BY exposure)
SELECT e.id, e.digest, e.request, e.user, e.item, e.time, e.position, e.propensity, e.context, {{labels}}
FROM exposures e LEFT JOIN labelled l ON l.exposure = e.id
WHERE {{which}} AND e.taken <= :as_of AND e.item <> '' ORDER BY e.id
"""
OF_USERS = """
SELECT u.key AS user, e.id AS exposure, NULL AS label FROM json_each(:until) u
CROSS JOIN exposures e ON e.user = u.key AND e.time <= u.value
UNION ALL
SELECT u.key, NULL, l.id FROM json_each(:until) u
CROSS JOIN labels l ON l.request = '' AND l.user = u.key AND l.time <= u.value
UNION ALL
SELECT u.key, NULL, l.id FROM json_each(:until) u
CROSS JOIN exposures e ON e.user = u.key AND e.time <= u.value
CROSS JOIN labels l ON l.request = e.request AND l.user = '' AND l.item = e.item
"""
# no item is empty, and no request is equal
_ERASE_LABELS = """
UPDATE labels SET request = 'erased ' || id, user = '', item = '', task = '', value = 0, waiting = 0
WHERE id IN (SELECT value FROM json_each(?))
"""
_ERASE_EXPOSURES = """
UPDATE exposures SET request = 'erased ' || id, user = '', item = '', time = taken, position = NULL,
    propensity = NULL, context = NULL
WHERE id IN (SELECT value FROM json_each(?))
"""
_ERASE_RECORDS = "UPDATE records SET record = x'' WHERE id IN (SELECT value FROM json_each(?))"
# the last record of each kind stays, so that marks of it can be checked
_TRIMMED = "id < :before AND id NOT IN (SELECT max(id) FROM chain WHERE id < :before GROUP BY kind)"
_NOTE_TRIMMED = f"""
INSERT OR IGNORE INTO notes SELECT 'trimmed ' || kind, 1 FROM chain WHERE {_TRIMMED} GROUP BY kind
"""
_COUNT = "INSERT INTO notes VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n"


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
    """Write events and items after the last record."""
    last, digest = end_of(connection)
    rows = []
    for number, (kind, record) in enumerate(records, last + 1):
        digest = chained(digest, record)
        rows.append((number, kind, record, bytes.fromhex(digest)))
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)


def add_other(connection: sqlite3.Connection, kind: Kind, record: bytes) -> None:
    """Write a record whose contents are not read from the chain after the last record."""
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


def labelled(which: str, tasks: Sequence[str], values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a query for exposures with their labels, and its values."""
    best = ", ".join(
        f"max({of}) FILTER (WHERE task = :task{t}) AS {of}{t}"
        for t in range(len(tasks))
        for of in ("value", "time")
    )
    labels = ", ".join(f"l.value{t}, coalesce(l.time{t}, 0)" for t in range(len(tasks)))
    names = {f"task{t}": name for t, name in enumerate(tasks)}
    return _ROWS.format(which=which, best=best, labels=labels), values | names


def apply(connection: sqlite3.Connection, change: Change, now: int) -> dict[int, int]:
    """Make a change, at a moment.

    Args:
        connection: Writes to the log.
        change: `append` with events and items, exposures, labels, and how long these wait for each other;
            `forget` with the position before which records go, and how long they waited; `erase` with the
            positions of events and exposures and the numbers of labels; or `note` with a name, what is
            remembered by it, and whether also in place of what is known.
        now: Microseconds since 1970.

    Returns:
        See `ServiceLog.append`.

    Raises:
        StoreError: It is of an unknown kind.
    """
    ((kind, values),) = change.items()
    if kind == "append":
        events, exposures, labels, wait = values
        refused = _take(connection, exposures, labels, wait, now) if exposures or labels else {}
        records = [one.encode() for one in events]
        add(connection, ((Kind.ITEM if one.startswith(MARK) else Kind.EVENT, one) for one in records))
        return refused
    if kind == "forget":
        part: dict[str, int] = dict(zip(("before", "wait"), values, strict=True))
        trims = (f"DELETE FROM {table} WHERE {_TRIMMED}" for table in TABLES)
        for query in (_DROP_LABELS, _NOTE_TRIMMED, *trims):
            connection.execute(query, part)
    elif kind == "erase":
        add_other(connection, Kind.ERASURE, json.dumps(values).encode())
        for query, ids in zip((_ERASE_RECORDS, _ERASE_EXPOSURES, _ERASE_LABELS), values, strict=True):
            connection.execute(query, (json.dumps(ids),))
    elif kind == "note":
        *note, anyway = values
        connection.execute(f"INSERT OR {'REPLACE' if anyway else 'IGNORE'} INTO notes VALUES (?, ?)", note)
    else:
        raise StoreError("the log", UNKNOWN.format(kind))
    return {}


def _take(
    connection: sqlite3.Connection,
    exposures: Sequence[Sequence[Any]],
    labels: Sequence[Sequence[Any]],
    wait: int,
    now: int,
) -> dict[int, int]:
    moment, known = {"now": now, "wait": wait}, json.dumps(labels)
    dropped = connection.execute("DELETE FROM labels WHERE waiting AND taken < :now - :wait", moment)
    counted = {"labels dropped": dropped.rowcount}
    if exposures:
        counted |= _take_exposures(connection, exposures, moment)
    refused = {}
    if labels:
        refused = dict(connection.execute(TOO_EARLY, {"rows": known}).fetchall())
        rows = [label for n, label in enumerate(labels) if n not in refused]
        counted |= _take_labels(connection, json.dumps(rows) if refused else known, moment)
    connection.executemany(_COUNT, [(name, number) for name, number in counted.items() if number])
    return refused


def _take_exposures(
    connection: sqlite3.Connection, rows: Sequence[Sequence[Any]], moment: dict[str, int]
) -> dict[str, int]:
    last, digest = end_of(connection)
    new = 0
    for exposure in rows:
        following = chained(digest, json.dumps(exposure).encode())
        taken = (last + new + 1, *exposure, moment["now"], bytes.fromhex(following))
        if connection.execute(_TAKE, taken).rowcount:
            digest, new = following, new + 1
    if new and connection.execute("SELECT 1 FROM labels WHERE waiting LIMIT 1").fetchone():
        connection.execute(_FOUND.format(_LABELS_OF_NEW), {"exposures": last, **moment})
    return {"exposures taken": new, "exposure duplicates": len(rows) - new}


def _take_labels(connection: sqlite3.Connection, rows: str, moment: dict[str, int]) -> dict[str, int]:
    last = {"labels": connection.execute("SELECT coalesce(max(id), 0) FROM labels").fetchone()[0]}
    new = connection.execute(_TAKE_LABELS, {"rows": rows, **moment}).rowcount
    if new:
        add_other(connection, Kind.LABELS, rows.encode())
    connection.execute(_FOUND.format("SELECT id FROM labels WHERE id > :labels"), last | moment)
    ((conflicts,),) = connection.execute(_CONFLICTS, last).fetchall()
    return {"labels taken": new, "label conflicts": conflicts}
