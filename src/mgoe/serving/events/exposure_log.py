"""A durable log of exposures and their labels in a file, which says of each what became of it.

An exposure is identified by its request's id and its item, or without such an id by user, item and moment. It
counts once while the log holds it. A label names its exposure by the request's id and the item, or by user
and item: then it belongs to their latest exposure that is not after it. Labels and exposures wait for each
other for the same time, the window; a label for which no exposure was taken within it is dropped and counted.
Which label belongs to which exposure is decided when they are read, so the order in which records arrive
changes nothing.
"""

import json
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe.bundle.held import START, Mark
from mgoe.config import CLOCK_SKEW
from mgoe.errors import StoreError
from mgoe.serving.events.chain import chained, check_record
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.sqlite_log import AT_ONCE
from mgoe.serving.events.store import Store, end_of

SECOND = 1_000_000
DAY = 86_400 * SECOND
Record = Mapping[str, Sequence[Any]]
"""What changes a log, see `apply`."""
COUNTS = ("exposures taken", "exposure duplicates", "labels taken", "labels dropped", "label conflicts")


def _fields(*places: int) -> str:
    """Return SQL for entries of a record in an array of records."""
    return ", ".join(f"json_extract(value, '$[{place}]')" for place in places)


ROWS = 65_536
"""Exposures that are yielded at once."""
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
INSERT INTO exposures(request, user, item, time, position, propensity, context, taken, digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
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
_TOUCHED = f"""
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
    WHERE e.id < :before AND {_EXPOSURE_OF} = e.id)
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
_OF_USERS = """
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
_COUNT = "INSERT INTO exposure_counts VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n"


class ExposureLog:
    """A log in a file of this machine, for any number of processes and threads.

    Positions are numbers of exposures in the order in which they were taken, which are never given twice.
    Each exposure has a digest, chained over all up to it, as each event of a log has (see `EventLog`).

    Args:
        path: The file; its folder is created if it is missing.
        window: Microseconds for which labels wait for their exposure and exposures for their labels, and for
            which a duplicate is recognised at least: of a new log, by default a day. A log keeps its window,
            since by it labels are matched whenever they are read.
        make: Whether to create a log that is missing. Otherwise the log is only read.

    Raises:
        StoreError: The file cannot be opened, or is damaged, or the log has another window.

    Example:
        >>> log = ExposureLog(Path("state/log.sqlite"))
        >>> log.counts["exposures taken"]
        0
        >>> log.close()
    """

    _durable = True

    def __init__(self, path: Path, window: int | None = None, make: bool = True):
        self._store = Store(path, make, self._durable)
        if make and "window" not in self._counts:
            query = "INSERT OR IGNORE INTO exposure_counts VALUES ('window', ?)"
            self._store.write(lambda connection: connection.execute(query, (window or DAY,)))
        self.window = self._counts.get("window", DAY)
        check_window(path, self.window, window)

    @property
    def identity(self) -> str:
        """The log that positions belong to; that of the events in the same file is another."""
        self.follow()
        return f"{self._store.identity}/exposures"

    @property
    def counts(self) -> dict[str, int]:
        """What was taken so far; labels that wait for their exposure or were dropped without one; and labels
        that differ from one that their exposure had."""
        held = self._counts
        ((waiting,),) = self._store.read("SELECT count(*) FROM labels WHERE waiting")
        return {name: held.get(name, 0) for name in COUNTS} | {"labels waiting": waiting}

    def mark(self, upto: int) -> Mark:
        """Return the mark of the last exposure up to a position."""
        query = "SELECT id, digest FROM exposures WHERE id <= ? ORDER BY id DESC LIMIT 1"
        found = self._store.read(query, (upto,))
        return Mark(str(found[0][0]), found[0][1].hex()) if found else START

    @property
    def begin(self) -> Mark:
        """The start; where earlier exposures were dropped, the mark of the first that is left."""
        ((first,),) = self._store.read("SELECT coalesce(min(id), 1) FROM exposures")
        return self.mark(first) if first > 1 else START

    def check(self, mark: Mark) -> None:
        """Check that the log continues at a mark, see `EventLog.check`."""
        if mark != START:
            query = "SELECT id, digest FROM exposures WHERE id >= ? ORDER BY id LIMIT 1"
            found = self._store.read(query, (int(mark.position),))
            marks = [Mark(str(number), digest.hex()) for number, digest in found]
            check_record(self._store.path, mark, marks[0] if marks else None)

    def append(
        self,
        exposures: Sequence[Exposure],
        labels: Sequence[Label],
        delay: int = 0,
        now: int | None = None,
        after: Mark = START,
    ) -> dict[int, int]:
        """Write exposures and labels, which are then durable. If that fails, send them again.

        Args:
            exposures, labels: Several of each, in any order.
            delay: See `wait`.
            now: Microseconds since 1970; by default the present.
            after: Where the log must continue, see `check`; otherwise nothing is written.

        Returns:
            The labels that are refused, since they became known before their exposure: the number of each in
            the sequence, and when its exposure was.

        Raises:
            OtherLogError: The log does not continue at `after`.
        """
        return self._change({"take": [exposures, labels, self.wait(delay)]}, now, after)

    def follow(self) -> None:
        """Take what other machines have sent; a log in a file has it."""

    def wait(self, delay: int) -> int:
        """Return how many microseconds exposures and labels wait for each other.

        Args:
            delay: Microseconds after an exposure when all of its labels are known, for tasks that take longer
                than the window.
        """
        return max(self.window, delay + CLOCK_SKEW)

    def settled(self, delay: int = 0, now: int | None = None) -> int:
        """Return the position up to which no exposure waits for labels any more.

        Args:
            delay: See `wait`.
            now: Microseconds since 1970; by default the present.
        """
        return self.before((time.time_ns() // 1000 if now is None else now) - self.wait(delay))

    def before(self, moment: int) -> int:
        """Return the position of the last exposure that was taken before a moment."""
        self.follow()
        ((first, last),) = self._store.read(
            "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM exposures"
        )
        query = "SELECT taken FROM exposures WHERE id >= ? ORDER BY id LIMIT 1"
        ids = range(first, last + 1)  # taken one after the other, so their moments rise
        taken = bisect_left(ids, moment, key=lambda number: self._store.read(query, (number,))[0][0])
        return first + taken - 1

    @property
    def newest(self) -> tuple[int, int]:
        """Position of the last exposure, and number of the last label."""
        self.follow()
        query = "SELECT coalesce(max(id), 0) FROM exposures UNION ALL SELECT coalesce(max(id), 0) FROM labels"
        ((exposure,), (label,)) = self._store.read(query)
        return exposure, label

    def rows(
        self, tasks: Sequence[str], after: int, upto: int, as_of: int, delay: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the exposures between two positions in lists, all as of one moment.

        Args:
            tasks: Names of the tasks.
            after, upto: Positions.
            as_of: Microseconds since 1970. Records that were taken later are left out.
            delay: See `wait`.

        Yields:
            For each exposure its position, its digest, the fields of `Exposure`, and for each task the value
            and the time of its label: of several labels the largest value, and of its times the first; None
            and 0 where there is none.
        """
        values = {"after": after, "upto": upto, "as_of": as_of, "wait": self.wait(delay)}
        return self._store.stream(*_labelled("e.id > :after AND e.id <= :upto", tasks, values), ROWS)

    def rows_of(self, positions: Sequence[int], tasks: Sequence[str], delay: int) -> list[tuple[Any, ...]]:
        """Return some exposures as `rows` does, with all labels up to now."""
        values = {"ids": json.dumps(positions), "as_of": 1 << 62, "wait": self.wait(delay)}
        return self._store.read(*_labelled("e.id IN (SELECT value FROM json_each(:ids))", tasks, values))

    def touched(self, label: int, after: int, upto: int, delay: int) -> set[int]:
        """Return exposures with labels that came after a label, and those whose labels may now belong to
        exposures between two positions."""
        values = {"labels": label, "after": after, "upto": upto, "wait": self.wait(delay)}
        return {number for (number,) in self._store.read(_TOUCHED, values) if number is not None}

    def forget(self, before: int, delay: int = 0) -> bool:
        """Drop the exposures before a position, as far as they are settled, with their labels.

        The exposure at the position stays, so that marks of it and of later ones can be checked.

        Returns:
            Whether there were any.
        """
        upto, wait = int(self.mark(min(before, self.settled(delay))).position or 0), self.wait(delay)
        ((first,),) = self._store.read("SELECT coalesce(min(id), 0) FROM exposures")
        for some in range(first, upto, AT_ONCE):
            self._change({"forget": [min(some + AT_ONCE, upto), wait]})
        return first < upto

    def users(self, until: Mapping[str, int]) -> list[str]:
        """Return those of some users of whom there are exposures or labels, up to a time for each.

        Args:
            until: See `EventLog.erase`.
        """
        return [user for user, _, _ in self._of_users(until)]

    def erase(self, until: Mapping[str, int]) -> dict[str, int]:
        """Remove what exposures of some users, and their labels, say; numbers and marks of all stay.

        The bytes are gone once the events of the same file have been erased, too (`EventLog.erase`).

        Args:
            until: See `EventLog.erase`.

        Returns:
            Number of exposures and of labels.
        """
        found = self._of_users(until)
        exposures, labels = ({row[place] for row in found} - {None} for place in (1, 2))
        if found:
            self._change({"erase": [[*exposures], [*labels]]})
        return {"exposures": len(exposures), "labels": len(labels)}

    def check_room(self) -> None:
        """See `EventLog`; a folder has its events in the same file."""
        self._store.check_room()

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _change(self, record: Record, now: int | None = None, after: Mark = START) -> dict[int, int]:
        """Apply a record, see `apply`, where the log continues at a mark."""
        self.check(after)
        return self._store.write(
            lambda connection: apply(connection, record, time.time_ns() // 1000 if now is None else now)
        )

    def _of_users(self, until: Mapping[str, int]) -> list[tuple[Any, ...]]:
        self.follow()
        return self._store.read(_OF_USERS, {"until": json.dumps(until)})

    @property
    def _counts(self) -> dict[str, int]:
        return dict(self._store.read("SELECT name, n FROM exposure_counts"))


def check_window(place: object, held: int, given: int | None) -> None:
    """Check that a log is opened with the window that it has, if with any.

    Raises:
        StoreError: It is another.
    """
    if given not in (None, held):
        raise StoreError(
            place,
            f"labels of this log wait for {held / SECOND:g} s, found a window of {given / SECOND:g} s; "
            "leave --window out, or begin a new log in another --state",
        )


def _labelled(which: str, tasks: Sequence[str], values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a query for exposures with their labels, and its values."""
    best = ", ".join(
        f"max({of}) FILTER (WHERE task = :task{t}) AS {of}{t}"
        for t in range(len(tasks))
        for of in ("value", "time")
    )
    labels = ", ".join(f"l.value{t}, coalesce(l.time{t}, 0)" for t in range(len(tasks)))
    names = {f"task{t}": name for t, name in enumerate(tasks)}
    return _ROWS.format(which=which, best=best, labels=labels), values | names


def apply(connection: sqlite3.Connection, record: Record, now: int) -> dict[int, int]:
    """Do what a record says, at a moment.

    Args:
        connection: Writes to the log.
        record: `take` with exposures, labels, and how long they wait for each other; `forget` with the
            position before which exposures go, and how long they waited; or `erase` with the numbers of
            exposures and labels.
        now: Microseconds since 1970.

    Returns:
        See `ExposureLog.append`.
    """
    if "take" in record:
        exposures, labels, wait = record["take"]
        return _take(connection, exposures, labels, wait, now)
    if "forget" in record:
        before, wait = record["forget"]
        connection.execute(_DROP_LABELS, {"before": before, "wait": wait})
        connection.execute("DELETE FROM exposures WHERE id < ?", (before,))
    else:
        exposures, labels = map(json.dumps, record["erase"])
        connection.execute(_ERASE_LABELS, (labels,))
        connection.execute(_ERASE_EXPOSURES, (exposures,))
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
    last, digest = end_of(connection, "exposures")
    new = 0
    for exposure in rows:
        following = chained(digest, json.dumps(exposure).encode())
        taken = (*exposure, moment["now"], bytes.fromhex(following))
        if connection.execute(_TAKE, taken).rowcount:
            digest, new = following, new + 1
    if new and connection.execute("SELECT 1 FROM labels WHERE waiting LIMIT 1").fetchone():
        connection.execute(_FOUND.format(_LABELS_OF_NEW), {"exposures": last, **moment})
    return {"exposures taken": new, "exposure duplicates": len(rows) - new}


def _take_labels(connection: sqlite3.Connection, rows: str, moment: dict[str, int]) -> dict[str, int]:
    last = {"labels": connection.execute("SELECT coalesce(max(id), 0) FROM labels").fetchone()[0]}
    new = connection.execute(_TAKE_LABELS, {"rows": rows, **moment}).rowcount
    connection.execute(_FOUND.format("SELECT id FROM labels WHERE id > :labels"), last | moment)
    ((conflicts,),) = connection.execute(_CONFLICTS, last).fetchall()
    return {"labels taken": new, "label conflicts": conflicts}
