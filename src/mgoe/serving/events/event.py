"""A live event: who did what when, checked as it comes in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from mgoe.bundle import Bundle
from mgoe.config import did_you_mean
from mgoe.data import task_masks
from mgoe.data.times import UNITS, microseconds, unit_of
from mgoe.data.vocabulary import whole_number
from mgoe.errors import EventError, StoreError

AHEAD = 5 * 60 * 1_000_000
"""Microseconds by which an event may be ahead of this machine's clock."""
LONGEST_ID = 512
"""Most characters of an id."""
FIELDS = ("user", "item", "behavior", "time", "id")
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
    """

    user: int | str
    item: int | str
    behavior: str
    time: int
    id: str | None = None

    def interactions(self, task_mask: int) -> set[Interaction]:
        """Return what counts once: user, item and time with each of some tasks."""
        tasks = (task for task in range(task_mask.bit_length()) if task_mask >> task & 1)
        return {(self.user, self.item, self.time, task) for task in tasks}

    def encode(self) -> bytes:
        """Return the event as bytes of a log."""
        return json.dumps(astuple(self), ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Event:
        """Read what `encode` returned.

        Raises:
            StoreError: The bytes are not an event.
        """
        try:
            user, item, behavior, time, key = json.loads(payload)
        except (ValueError, TypeError) as error:
            raise StoreError(
                "events", f"the log is damaged: a record must hold an event, found {payload[:40]!r} ({error})"
            ) from None
        return cls(user, item, behavior, time, key)


@dataclass(frozen=True)
class EventReader:
    """Checks events from outside.

    Attributes:
        behaviors: Tasks that each behaviour does, as bits.
        kinds: Arrow type of the ids of each `user` and `item`.
        time_unit: Unit of times that are numbers; `auto` infers it from their size.
    """

    behaviors: Mapping[str, int]
    kinds: Mapping[str, pa.DataType]
    time_unit: str = "auto"

    @classmethod
    def of(cls, bundle: Bundle) -> EventReader:
        """Return a reader that reads events as the bundle's log was read."""
        kinds = {"user": bundle.encoders.users.type, "item": bundle.encoders.items.type}
        return cls(task_masks(bundle.settings), kinds, bundle.settings.data.time_unit)

    def read(self, raw: Mapping[str, Any], now: int) -> Event:
        """Check one event.

        Args:
            raw: `user`, `item`, `behavior`, and optionally `time` (a number since 1970 or ISO 8601) and `id`.
            now: Microseconds since 1970; the time of an event that has none.

        Raises:
            EventError: A field is missing, unknown, or breaks its rule.
        """
        for name in raw:
            if name not in FIELDS:
                raise EventError(
                    name[:80],
                    f"is no field of an event{did_you_mean(name, FIELDS)}; it has {', '.join(FIELDS)}",
                )
        user, item = (read_id(raw.get(node), self.kinds[node], node) for node in ("user", "item"))
        behavior, time = self._behavior(raw.get("behavior")), self._time(raw.get("time"), now)
        return Event(user, item, behavior, time, _event_id(raw.get("id")))

    def _behavior(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.behaviors:
            near = did_you_mean(value, list(self.behaviors)) if isinstance(value, str) else ""
            raise EventError(
                "behavior", f"must be one of {', '.join(self.behaviors)}, found {_shown(value)}{near}"
            )
        return value

    def _time(self, value: Any, now: int) -> int:
        time = now if value is None else self._microseconds(value)
        if time > now + AHEAD:
            rule = f"must be at most {AHEAD // 60_000_000} minutes ahead, found {_shown(value)}"
            raise EventError("time", f"{rule}; fix the clock that wrote it, or leave the time out")
        return time

    def _microseconds(self, value: Any) -> int:
        rule = f"must be a number since 1970 or a time as in 2026-05-01T12:00:00Z, found {_shown(value)}"
        if isinstance(value, str):
            try:
                return microseconds(datetime.fromisoformat(value))
            except (ValueError, OverflowError):
                raise EventError("time", rule) from None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < 1e21:  # false for not-a-number too
            raise EventError("time", rule)
        unit = unit_of(abs(value)) if self.time_unit == "auto" else self.time_unit
        time = int(value // 1000) if unit == "ns" else int(value * UNITS[unit])
        if not -_LIMIT < time < _LIMIT:
            raise EventError("time", rule)
        return time


def read_id(value: Any, kind: pa.DataType, place: str) -> int | str:
    """Return an id as a vocabulary of this type holds it: 7, 7.0 and "7" are one id.

    Raises:
        EventError: It is not an id, or of another type.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2.0**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise EventError(place, f"must be an id, a number or a text, found {_shown(value)}")
    if not pa.types.is_integer(kind):
        return _text(str(value), place)
    number, limits = whole_number(value), np.iinfo(kind.to_pandas_dtype())
    if number is None or not limits.min <= number <= limits.max:
        rule = f"ids of {place}s are whole numbers of {kind.bit_width} bits, found {_shown(value)}"
        raise EventError(place, f"{rule}; send the log's own ids")
    return number


def canonical_id(value: Any, kind: pa.DataType) -> int | str | None:
    """Return what `read_id` returns, None where it raises."""
    try:
        return read_id(value, kind, "")
    except EventError:
        return None


def with_ids_of(events: Sequence[Event], kinds: Mapping[str, pa.DataType]) -> list[Event | None]:
    """Return events of a log with ids as vocabularies hold them, None for one with an id that they cannot
    hold.

    Args:
        events: The log may have begun with a bundle whose ids were of another type.
        kinds: Arrow type of the ids of each `user` and `item`.
    """
    if all(_all_of([getattr(event, node) for event in events], kind) for node, kind in kinds.items()):
        return list(events)
    found: list[Event | None] = []
    for event in events:
        ids = {node: canonical_id(getattr(event, node), kind) for node, kind in kinds.items()}
        found.append(None if None in ids.values() else replace(event, **ids))
    return found


def _all_of(ids: list[int | str], kind: pa.DataType) -> bool:
    """Whether all ids are as a vocabulary of this type holds them."""
    if not pa.types.is_integer(kind):
        return {*map(type, ids)} <= {str}
    limits, numbers = np.iinfo(kind.to_pandas_dtype()), [one for one in ids if type(one) is int]
    within = limits.min <= min(numbers, default=0) and max(numbers, default=0) <= limits.max
    return len(numbers) == len(ids) and within


def _text(value: str, place: str) -> str:
    if len(value) > LONGEST_ID:
        raise EventError(
            place, f"an id has at most {LONGEST_ID} characters, found {len(value)}; send a shorter one"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EventError(place, f"an id must be valid Unicode, found {value!r}; fix its encoding") from None
    return value


def _event_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise EventError(
            "id", f"must be a text that no other event has, found {_shown(value)}; or leave it out"
        )
    return _text(value, "id")


def _shown(value: Any) -> str:
    """A value in a message, at most 60 characters of it."""
    plain = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    text = "none" if value is None else plain
    return text if len(text) <= 60 else f"{text[:60]}..."
