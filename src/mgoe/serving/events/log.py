"""The log of a service: events, items, exposures, labels and erasures in one chain of records.

An acknowledged record survives a crash, for every process that reads the log.
"""

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgoe.bundle.held import START, Mark, exposures_of
from mgoe.bundle.items import Item
from mgoe.bundle.membership import DEPLOYMENT, check_deployment, new_deployment
from mgoe.config import CLOCK_SKEW
from mgoe.errors import DamagedLogError, OutputError, StoreError
from mgoe.serving.events.chain import (
    COUNTS,
    OF_USERS,
    SCHEMA,
    TOUCHED,
    UNKNOWN,
    Change,
    Kind,
    apply,
    chained,
    check_record,
    labelled,
)
from mgoe.serving.events.event import Event
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.store import FILE, Store

SECOND = 1_000_000
DAY = 86_400 * SECOND
EVENTS_PER_READ = 10_000
"""Most events and items of one `read`."""
EXPOSURES_PER_BLOCK = 65_536
"""Most exposures of one list of `rows`."""
RECORDS_PER_CUT = 10_000
"""Most records that one transaction drops, so that appends need not wait long."""
ERASED = "erased"
_DECODE: Mapping[int, Callable[[bytes], Event | Item]] = {Kind.EVENT: Event.decode, Kind.ITEM: Item.decode}
# each with the digest of the record before it, whatever that is; those of erased users are empty
_RECORDS = """
SELECT r.id, r.kind, r.record, lower(hex(r.digest)), coalesce(
    (SELECT lower(hex(digest)) FROM records WHERE id = r.id - 1),
    (SELECT lower(hex(digest)) FROM chain WHERE id = r.id - 1),
    (SELECT id FROM identity WHERE r.id = 1))
FROM records r WHERE r.id > ? AND r.record <> x'' ORDER BY r.id LIMIT ?
"""
# the first records that must stay
_FIRST = f"""
SELECT min(id) FROM records WHERE kind = {Kind.EVENT:d} AND id > :events
UNION ALL SELECT min(id) FROM records WHERE kind = {Kind.ITEM:d} AND id > :items
UNION ALL SELECT min(id) FROM exposures WHERE id > :exposures
UNION ALL SELECT max(id) + 1 FROM chain
"""


class ServiceLog:
    """A log in a file of this machine, for any number of processes and threads.

    Positions are numbers of records of all kinds, which are never given twice. Each record has a digest,
    chained over all up to it. SQLite has no checksums of its own once a page has left its log; digests
    replace them. Methods that raise `StoreError` work again once the store is back.

    Args:
        path: The file; its folder is created if it is missing.
        window: Microseconds for which labels wait for their exposure and exposures for their labels, and for
            which a duplicate is recognised at least: of a new log, by default a day. A log keeps its window,
            since by it labels are matched whenever they are read.
        make: Whether to create a log that is missing. Otherwise nothing is written until a record is.

    Attributes:
        place: The log, for messages.
        window: See above.

    Raises:
        StoreError: The file cannot be opened, or is damaged, or the log has another window.

    Example:
        >>> from mgoe.serving import Event
        >>> log = ServiceLog(Path("state/log.sqlite"))
        >>> log.append([Event(42, 7, "click", 1_700_000_000_000_000)])
        {}
        >>> len(log.read()), log.counts["exposures taken"]
        (1, 0)
        >>> log.close()
    """

    _is_replica = False
    """Whether it repeats a log that is elsewhere."""

    def __init__(self, path: Path, window: int | None = None, make: bool = True):
        self._store, self.place, self._make = Store(path, SCHEMA, make, not self._is_replica), path, make
        if make and not self._is_replica:
            self._note("window", window or DAY, anyway=False)
        self.window: int = self._notes.get("window", window or DAY)
        check_window(path, self.window, window)

    @property
    def identity(self) -> str:
        """The log that marks belong to, asked of the store: one that lost its data is another log."""
        self.follow()
        return self._store.identity

    def source(self, kind: Kind) -> str:
        """Return the source that records of a kind are in what bundles hold, see `exposures_of`."""
        return exposures_of(self.identity) if kind == Kind.EXPOSURE else self.identity

    @property
    def deployment(self) -> str | None:
        """The deployment that the log belongs to; None if it is of none yet."""
        self.follow()
        return self._notes.get(DEPLOYMENT)

    def move(self, deployment: str, anyway: bool = True) -> None:
        """Let the log belong to a deployment. A log that is only read does not remember it.

        Args:
            deployment: Its identity.
            anyway: Also if it belongs to another one.
        """
        if self._make:
            self._note(DEPLOYMENT, deployment, anyway)

    def claim(self, tasks: Sequence[str], deployment: str | None = None) -> None:
        """Check that the log belongs to the deployment of a bundle; if it belongs to none, it joins that one.

        Args:
            tasks: Of the bundle; some logs remember those of their first one.
            deployment: Of the bundle, see `deployment_of`.

        Raises:
            OtherDeploymentError: The log is of another deployment.
            OtherLogError: It is that of bundles with other tasks.
        """
        known = check_deployment(self.place, self.deployment, deployment)
        if self.deployment is None:
            self.move(known or new_deployment(), anyway=False)  # unless another service was first
            check_deployment(self.place, held := self.deployment, deployment or held)

    def follow(self) -> None:
        """Take what other machines have sent. A log in a file already has it."""

    def append(
        self,
        events: Sequence[Event | Item] = (),
        exposures: Sequence[Exposure] = (),
        labels: Sequence[Label] = (),
        delay: int = 0,
        now: int | None = None,
        after: Mark = START,
    ) -> dict[int, int]:
        """Write records, all or none, which are then durable. If that fails, send them again: each counts
        once.

        Args:
            events, exposures, labels: Several of each, in any order; items are among the events.
            delay: See `wait`.
            now: Microseconds since 1970; by default the present.
            after: Where the log must continue, see `check`; otherwise nothing is written.

        Returns:
            The labels that are refused, since they became known before their exposure: the number of each in
            the sequence, and when its exposure was.

        Raises:
            OtherLogError: The log does not continue at `after`.
            StoreError: Nothing was written.
        """
        self.check(after)
        if not (events or exposures or labels):
            return {}
        records = [event.encode().decode() for event in events]
        return self._change({"append": [records, exposures, labels, self.wait(delay)]}, now)

    def read(self, after: Mark = START, limit: int = EVENTS_PER_READ) -> list[tuple[Mark, Event | Item]]:
        """Return events and items after a mark, in the order that all readers see, each with its own mark.

        Raises:
            OtherLogError: The log does not hold the record of the mark, see `check`.
            StoreError: The log is away, or a record is damaged, or of an unknown kind.
        """
        self.follow()
        rows = self._store.read(_RECORDS, (after.number, limit))
        self.check(after)  # last: what was read is from the log that was read before
        events = list[tuple[Mark, Event | Item]]()
        for number, kind, record, digest, former in rows:
            if (decode := _DECODE.get(kind)) is None:
                raise StoreError(self.place, UNKNOWN.format(kind))
            if former and chained(former, record) != digest:
                rule = f"the log is damaged at event {number}; restore it from an intact copy"
                raise DamagedLogError(self.place, rule)
            events.append((Mark(str(number), digest), decode(record)))
        return events

    def check(self, mark: Mark) -> None:
        """Check that the log continues at a mark. Before the first record it always does.

        Raises:
            OtherLogError: It ends before (an older copy, or emptied), has another record there (an older copy
                that has grown on, or another log), or has dropped the record.
        """
        if mark != START:
            check_record(self.place, mark, self._mark_of("chain WHERE id >= ? ORDER BY id", mark.number))

    def mark(self, upto: int) -> Mark:
        """Return the mark of the last exposure up to a position."""
        return self._mark_of("exposures WHERE id <= ? ORDER BY id DESC", upto) or START

    def begin(self, kind: Kind) -> Mark:
        """Return the start; where records of a kind were dropped, the mark of the first that is left."""
        if f"trimmed {kind:d}" not in self._notes:
            return START
        return self._mark_of("chain WHERE kind = ? ORDER BY id", kind) or START

    @property
    def counts(self) -> dict[str, int]:
        """What was taken so far; labels that wait for their exposure or were dropped without one; and labels
        that differ from one that their exposure had."""
        notes = self._notes
        ((waiting,),) = self._store.read("SELECT count(*) FROM labels WHERE waiting")
        return {name: notes.get(name, 0) for name in COUNTS} | {"labels waiting": waiting}

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
        return first + taken - 1 if taken else 0

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
        return self._store.stream(
            *labelled("e.id > :after AND e.id <= :upto", tasks, values), EXPOSURES_PER_BLOCK
        )

    def rows_of(self, positions: Sequence[int], tasks: Sequence[str], delay: int) -> list[tuple[Any, ...]]:
        """Return some exposures as `rows` does, with all labels up to now."""
        values = {"ids": json.dumps(positions), "as_of": 1 << 62, "wait": self.wait(delay)}
        return self._store.read(*labelled("e.id IN (SELECT value FROM json_each(:ids))", tasks, values))

    def touched(self, label: int, after: int, upto: int, delay: int) -> set[int]:
        """Return exposures with labels that came after a label, and those whose labels may now belong to
        exposures between two positions."""
        values = {"labels": label, "after": after, "upto": upto, "wait": self.wait(delay)}
        return {number for (number,) in self._store.read(TOUCHED, values) if number is not None}

    def forget(self, events: int = 0, exposures: int = 0, items: int = 0, delay: int = 0) -> bool:
        """Drop the records before the first one that must stay, with the labels of dropped exposures.

        The last dropped record of each kind stays, so that marks of it and of later ones can be checked.

        Args:
            events, items: Positions up to which they need not stay.
            exposures: Likewise, as far as they are settled.
            delay: See `wait`.

        Returns:
            Whether there were any.
        """
        settled, wait = self.settled(delay), self.wait(delay)
        reach = {"events": events, "exposures": min(exposures, settled), "items": items}
        before = min((first for (first,) in self._store.read(_FIRST, reach) if first is not None), default=0)
        ((count,),) = self._store.read("SELECT count(*) FROM chain WHERE id < ?", (before,))
        next_part = "SELECT id FROM chain WHERE id < ? ORDER BY id LIMIT 1 OFFSET ?"
        for _ in range(RECORDS_PER_CUT, count, RECORDS_PER_CUT):
            self._change({"forget": [self._store.read(next_part, (before, RECORDS_PER_CUT))[0][0], wait]})
        self._change({"forget": [before, wait]})
        ((left,),) = self._store.read("SELECT count(*) FROM chain WHERE id < ?", (before,))
        return left < count

    def users(self, until: Mapping[str, int]) -> list[str]:
        """Return those of some users of whom there are exposures or labels, up to a time for each.

        Args:
            until: See `erase`.
        """
        return [user for user, _, _ in self._of_users(until)]

    @property
    def erased(self) -> int:
        """How many erasures of the list of a registry were applied to the log."""
        self.follow()
        return self._notes.get(ERASED, 0)

    def erase(self, until: Mapping[str, int], erasures: int) -> dict[str, int]:
        """Remove for good what events, exposures and labels of some users say; positions and marks stay.

        Args:
            until: By user, as a text, up to which time records go, in microseconds since 1970.
            erasures: See `erased`, from now on.

        Returns:
            The number of each.
        """
        self._note(ERASED, 0)  # a call that is interrupted from here on has not applied the list
        theirs = self._of_users(until)
        gone = {"events": [mark.number for mark, event in every(self) if event.is_of(until)]}
        gone |= {
            name: sorted({row[place] for row in theirs} - {None})
            for place, name in enumerate(("exposures", "labels"), 1)
        }
        if any(gone.values()):
            self._change({"erase": [*gone.values()]})
        self._clean()
        self._note(ERASED, erasures)
        return {name: len(numbers) for name, numbers in gone.items()}

    def check_room(self) -> None:
        """Check that something could be written now, where that can be known without writing a record.

        Raises:
            StoreError: It could not.
        """
        self._store.check_room()

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def _change(self, change: Change, now: int | None = None) -> dict[int, int]:
        """Make a change, see `apply`."""
        return self._store.write(
            lambda connection: apply(connection, change, time.time_ns() // 1000 if now is None else now)
        )

    def _clean(self) -> None:
        """Remove the bytes of what was erased."""
        self._store.vacuum()

    def _note(self, name: str, value: object, anyway: bool = True) -> None:
        """Remember something by a name, also in place of what is known by it if `anyway`."""
        self._change({"note": [name, value, anyway]})

    def _mark_of(self, which: str, value: int) -> Mark | None:
        """Return the mark of the first of some records."""
        rows = self._store.read(f"SELECT id, digest FROM {which} LIMIT 1", (value,))
        return Mark(str(rows[0][0]), rows[0][1].hex()) if rows else None

    def _of_users(self, until: Mapping[str, int]) -> list[tuple[Any, ...]]:
        self.follow()
        return self._store.read(OF_USERS, {"until": json.dumps(until)})

    @property
    def _notes(self) -> dict[str, Any]:
        return dict(self._store.read("SELECT name, n FROM notes"))


def check_window(place: object, window: int, requested: int | None) -> None:
    """Check that a log is opened with the window that it has, if with any.

    Raises:
        StoreError: It is another.
    """
    if requested not in (None, window):
        raise StoreError(
            place,
            f"labels of this log wait for {window / SECOND:g} s, found a window of {requested / SECOND:g} s; "
            "leave --window out, or begin a new log in another --state",
        )


def records(log: ServiceLog, after: Mark = START) -> Iterator[tuple[Mark, Event | Item]]:
    """Yield all events and items after a mark, each with its own mark."""
    while batch := log.read(after):
        yield from batch
        after = batch[-1][0]


def every(log: ServiceLog, after: Mark = START) -> Iterator[tuple[Mark, Event]]:
    """Yield all events after a mark, each with its own mark.

    Example:
        >>> from mgoe.serving import open_log
        >>> log = open_log("state")
        >>> log.append([Event(42, 7, "click", 1_700_000_000_000_000)])
        {}
        >>> [event.item for _, event in every(log)]
        [7]
        >>> log.close()
    """
    yield from ((mark, record) for mark, record in records(log, after) if isinstance(record, Event))


def check_no_events(folder: Path) -> None:
    """Check that a folder that is about to be replaced contains no log of a service.

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
