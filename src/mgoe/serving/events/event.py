"""Live events: who did what when, checked as they come in, and each counted once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa

from mgoe.bundle import Bundle
from mgoe.bundle.ids import canonical_id, checked_id, read_id, shown
from mgoe.bundle.values import check_fields
from mgoe.config import CLOCK_SKEW, did_you_mean
from mgoe.data import task_masks
from mgoe.data.schema import NOBODY
from mgoe.data.times import UNITS, microseconds, unit_of
from mgoe.errors import DamagedLogError, EventError
from mgoe.graph.pair_rows import Side

FIELDS = ("user", "item", "behavior", "time", "id")
SESSION_FIELDS = ("item", "behavior", "time")
_LIMIT = 1 << 58  # a time with its task fits 63 bits

Id = int | str
"""An id of a user or an item, as JSON has it."""
Interaction = tuple[Id, Id, int, int]
"""User, item, time and task."""


@dataclass(frozen=True)
class Event:
    """What a user did to an item.

    Attributes:
        user, item: Ids, of the type that the vocabularies have.
        behavior: A behaviour of the log; for an exposure log the name of the task that was done.
        time: Microseconds since 1970, UTC.
        id: Makes a retry harmless: of events with the same id, the first counts. An event without one that
            repeats another in user, item, time and task counts once.

    Example:
        >>> Event(user=42, item=7, behavior="click", time=1_700_000_000_000_000).interactions(0b01)
        {(42, 7, 1700000000000000, 0)}
    """

    user: int | str
    item: int | str
    behavior: str
    time: int
    id: str | None = None

    def interactions(self, task_mask: int) -> set[Interaction]:
        """Return what counts once: user, item and time with each of some tasks."""
        return {
            (self.user, self.item, self.time, task)
            for task in range(task_mask.bit_length())
            if task_mask >> task & 1
        }

    def is_of(self, until: Mapping[str, int]) -> bool:
        """Return whether it is of one of some users, up to a time for each, see `ServiceLog.erase`."""
        return is_erased(until, self.user, self.time)

    def encode(self) -> bytes:
        """Return the event as bytes of a log."""
        fields = (self.user, self.item, self.behavior, self.time, self.id)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read what `encode` returned.

        Raises:
            DamagedLogError: The bytes are not an event.
        """
        try:
            user, item, behavior, time, key = json.loads(payload)
        except (ValueError, TypeError) as error:
            raise DamagedLogError(
                "events", f"the log is damaged: a record must hold an event, found {payload[:40]!r} ({error})"
            ) from None
        return cls(user, item, behavior, time, key)


def is_erased(until: Mapping[str, int], user: Id, time: int) -> bool:
    """Return whether what a user did at a time, also before 1970, is up to a time for each of some users.

    Example:
        >>> is_erased({"42": -5}, 42, -6), is_erased({"42": -5}, 7, -6)
        (True, False)
    """
    return (end := until.get(str(user))) is not None and time <= end


class SeenEvents:
    """Events that have been counted: of events with one id the first counts, and each interaction once.

    Args:
        earlier: Events that count as seen too; they are only read.
    """

    def __init__(self, *earlier: Self):
        self._ids: set[str] = set()
        self._interactions: set[Interaction] = set()
        self._earlier = earlier

    def add(self, event: Event, task_mask: int) -> set[Interaction]:
        """Remember an event that does some tasks, and return its interactions that are new."""
        known, new = (self, *self._earlier), event.interactions(task_mask)
        if event.id is not None:
            if any(event.id in seen._ids for seen in known):
                return set()
            self._ids.add(event.id)
        for seen in known:
            new = new - seen._interactions
        self._interactions |= new
        return new

    def update(self, other: Self) -> None:
        """Remember the events that another has seen, those before it aside."""
        self._ids |= other._ids
        self._interactions |= other._interactions


@dataclass(frozen=True)
class EventReader:
    """Checks events from outside.

    Attributes:
        behaviors: Tasks that each behaviour does, as bits.
        kinds: Arrow type of the ids of each `user` and `item`.
        time_unit: Unit of times that are numbers; `auto` infers it from their size.
        zone: The zone of times without one.
        nobody: Whether the log has no users: what events say of theirs is not read.

    Example:
        >>> reader = EventReader.of(bundle)
        >>> reader.read({"user": 42, "item": 7, "behavior": "click"}, now=1_700_000_000_000_000).behavior
        'click'
    """

    behaviors: Mapping[str, int]
    kinds: Mapping[str, pa.DataType]
    time_unit: str = "auto"
    zone: str = "UTC"
    nobody: bool = False

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return a reader that reads events as the bundle's log was read."""
        return cls(
            task_masks(bundle.settings),
            {"user": bundle.encoders.users.type, "item": bundle.encoders.items.type},
            bundle.settings.data.time_unit,
            bundle.settings.data.timezone,
            bundle.settings.data.user is None,
        )

    def id_of(self, raw: Mapping[str, Any], node: Side) -> Id:
        """Return the id of a record's user or item.

        Raises:
            EventError: It is missing, or of another type than those of the log.
        """
        return NOBODY if self.nobody and node == "user" else read_id(raw.get(node), self.kinds[node], node)

    def read(self, raw: Mapping[str, Any], now: int) -> Event:
        """Check one event.

        Args:
            raw: `user`, `item`, `behavior`, and optionally `time` (a number since 1970 or ISO 8601) and `id`.
            now: Microseconds since 1970; the time of an event that has none.

        Raises:
            EventError: A field is missing, unknown, or breaks its rule.
        """
        check_fields(raw, FIELDS, "an event")
        user, key = self.id_of(raw, "user"), raw.get("id")
        item, behavior, time = self._what_was_done(raw, now)
        return Event(user, item, behavior, time, None if key is None else str(checked_id(key, "id")))

    def read_in_session(self, raw: Mapping[str, Any], now: int) -> tuple[Id, int, int]:
        """Check an event of a session, which has no user and no id.

        Returns:
            The item's id, the tasks done as bits, and the time in microseconds since 1970.

        Raises:
            EventError: As for `read`.
        """
        check_fields(raw, SESSION_FIELDS, "an event of a session")
        item, behavior, time = self._what_was_done(raw, now)
        return item, self.behaviors[behavior], time

    def _what_was_done(self, raw: Mapping[str, Any], now: int) -> tuple[Id, str, int]:
        """Return item, behaviour and time of an event."""
        item, behavior = self.id_of(raw, "item"), raw.get("behavior")
        if not isinstance(behavior, str) or behavior not in self.behaviors:
            near = did_you_mean(behavior, list(self.behaviors)) if isinstance(behavior, str) else ""
            raise EventError(
                "behavior", f"must be one of {', '.join(self.behaviors)}, found {shown(behavior)}{near}"
            )
        return item, behavior, self.read_time(raw.get("time"), now)

    def read_time(self, value: Any, now: int) -> int:
        """Return a time in microseconds since 1970; now if there is none.

        Raises:
            EventError: It is not a time, or more than five minutes ahead.
        """
        time = now if value is None else self._microseconds(value)
        if time > now + CLOCK_SKEW:
            raise EventError(
                "time",
                f"must be at most {CLOCK_SKEW // 60_000_000} minutes ahead, found {shown(value)}; "
                "fix the clock that wrote it, or leave the time out",
            )
        return time

    def _microseconds(self, value: Any) -> int:
        rule = f"must be a number since 1970 or a time as in 2026-05-01T12:00:00Z, found {shown(value)}"
        if isinstance(value, str):
            try:
                return microseconds(datetime.fromisoformat(value), self.zone)
            except (ValueError, OverflowError):
                raise EventError("time", rule) from None
        # false for not-a-number too
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e21:
            unit = unit_of(abs(value)) if self.time_unit == "auto" else self.time_unit
            time = int(value // 1000) if unit == "ns" else int(value * UNITS[unit])
            if -_LIMIT < time < _LIMIT:
                return time
        raise EventError("time", rule)


def with_ids_of(events: Sequence[Event], kinds: Mapping[str, pa.DataType]) -> list[Event | None]:
    """Return events of a log with ids as vocabularies hold them, None for one with an id that they cannot
    hold.

    Args:
        events: The log may have begun with a bundle whose ids were of another type.
        kinds: Arrow type of the ids of each `user` and `item`.
    """
    if all(_all_of([getattr(event, node) for event in events], kind) for node, kind in kinds.items()):
        return list(events)
    ids = (
        {node: canonical_id(getattr(event, node), kind) for node, kind in kinds.items()} for event in events
    )
    return [
        None if None in known.values() else replace(event, **known)
        for event, known in zip(events, ids, strict=True)
    ]


def _all_of(ids: list[int | str], kind: pa.DataType) -> bool:
    """Whether all ids are as a vocabulary of this type holds them."""
    if not pa.types.is_integer(kind):
        return {*map(type, ids)} <= {str}
    limits, numbers = np.iinfo(kind.to_pandas_dtype()), [one for one in ids if type(one) is int]
    return (
        len(numbers) == len(ids)
        and limits.min <= min(numbers, default=0)
        and max(numbers, default=0) <= limits.max
    )
