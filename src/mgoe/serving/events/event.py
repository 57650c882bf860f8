"""A live event: who did what when, checked at the door."""

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
from mgoe.data.vocabulary import DECIMAL
from mgoe.errors import EventError, StoreError

AHEAD = 5 * 60 * 1_000_000
"""Microseconds that an event may be ahead of this machine's clock."""
LONGEST_ID = 512
"""Characters of an id."""
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
        user, item: Ids, of the type of the vocabularies.
        behavior: Of the log; of an exposure log the name of the task that was done.
        time: Microseconds since 1970, UTC.
        id: Makes a retry harmless: of events with the same id the first counts. Without one, an event that repeats another in user, item,
            task and time counts once.
    """

    user: int | str
    item: int | str
    behavior: str
    time: int
    id: str | None = None

    def interactions(self, tasks: int) -> set[Interaction]:
        """What counts once: its user, item and time with each of some tasks, given as bits."""
        return {(self.user, self.item, self.time, t) for t in range(tasks.bit_length()) if tasks >> t & 1}

    def encode(self) -> bytes:
        """As bytes of a log."""
        return json.dumps(astuple(self), ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Event:
        """The reverse of `encode`.

        Raises:
            StoreError: The bytes are no event.
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
    """Reads events as they come from outside.

    Attributes:
        behaviors: What counts, and the tasks that it does, as bits.
        kinds: Arrow type of the ids of each `user` and `item`.
        time_unit: Of numbers; `auto` goes by their magnitude.
    """

    behaviors: Mapping[str, int]
    kinds: Mapping[str, pa.DataType]
    time_unit: str = "auto"

    @classmethod
    def of(cls, bundle: Bundle) -> EventReader:
        """As the bundle's log was read."""
        kinds = {"user": bundle.encoders.users.type, "item": bundle.encoders.items.type}
        return cls(task_masks(bundle.settings), kinds, bundle.settings.data.time_unit)

    def read(self, raw: Mapping[str, Any], now: int) -> Event:
        """Check one event.

        Args:
            raw: `user`, `item`, `behavior`, and if they are known `time` (a number since 1970 or ISO 8601) and `id`.
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
        return Event(
            user,
            item,
            self._behavior(raw.get("behavior")),
            self._time(raw.get("time"), now),
            _key(raw.get("id")),
        )

    def _behavior(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.behaviors:
            near = did_you_mean(value, list(self.behaviors)) if isinstance(value, str) else ""
            raise EventError(
                "behavior", f"must be one of {', '.join(self.behaviors)}, found {_told(value)}{near}"
            )
        return value

    def _time(self, value: Any, now: int) -> int:
        moment = now if value is None else self._moment(value)
        if moment > now + AHEAD:
            late = "it lies in the future; mend the clock that wrote it, or leave the time out"
            raise EventError(
                "time", f"must be at most {AHEAD // 60_000_000} minutes ahead, found {_told(value)}: {late}"
            )
        return moment

    def _moment(self, value: Any) -> int:
        rule = f"must be a number since 1970 or a moment as in 2026-05-01T12:00:00Z, found {_told(value)}"
        if isinstance(value, str):
            try:
                return microseconds(datetime.fromisoformat(value))
            except (ValueError, OverflowError):
                raise EventError("time", rule) from None
        if (
            isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e21
        ):  # not-a-number is not below it either
            raise EventError("time", rule)
        unit = unit_of(abs(value)) if self.time_unit == "auto" else self.time_unit
        moment = int(value // 1000) if unit == "ns" else int(value * UNITS[unit])
        if not -_LIMIT < moment < _LIMIT:
            raise EventError("time", rule)
        return moment


def read_id(value: Any, kind: pa.DataType, place: str) -> int | str:
    """An id as its vocabulary holds it: 7, 7.0 and "7" are one.

    Raises:
        EventError: It is none, or of another type.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2.0**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise EventError(place, f"must be an id, a number or a text, found {_told(value)}")
    if not pa.types.is_integer(kind):
        return _text(str(value), place)
    if isinstance(value, str) and len(value) < 21 and DECIMAL.fullmatch(value):
        value = int(value)
    limits = np.iinfo(kind.to_pandas_dtype())
    if isinstance(value, str) or not limits.min <= value <= limits.max:
        raise EventError(
            place,
            f"ids of {place}s are whole numbers of {kind.bit_width} bits, found {_told(value)}; send the log's own ids",
        )
    return value


def canonical_id(value: Any, kind: pa.DataType) -> int | str | None:
    """Return an id as a vocabulary of this type holds it, None for a value that it cannot hold."""
    try:
        return read_id(value, kind, "")
    except EventError:
        return None


def typed(events: Sequence[Event], kinds: Mapping[str, pa.DataType]) -> list[Event | None]:
    """Events with ids as vocabularies hold them, whatever a log holds; None for one whose ids cannot be such.

    Args:
        events: Of a log, which may have begun with a bundle whose ids were of another type.
        kinds: Arrow type of the ids of each `user` and `item`.
    """
    if all(_are_typed([getattr(event, node) for event in events], kind) for node, kind in kinds.items()):
        return list(events)
    return [_typed(event, kinds) for event in events]


def _typed(event: Event, kinds: Mapping[str, pa.DataType]) -> Event | None:
    try:
        return replace(
            event, **{node: read_id(getattr(event, node), kind, node) for node, kind in kinds.items()}
        )
    except EventError:
        return None


def _are_typed(ids: list[int | str], kind: pa.DataType) -> bool:
    """Whether all are as a vocabulary of this type holds them."""
    if not pa.types.is_integer(kind):
        return set(map(type, ids)) <= {str}
    limits, numbers = np.iinfo(kind.to_pandas_dtype()), [one for one in ids if type(one) is int]
    return (
        len(numbers) == len(ids)
        and limits.min <= min(numbers, default=0)
        and max(numbers, default=0) <= limits.max
    )


def _text(value: str, place: str) -> str:
    if len(value) > LONGEST_ID:
        raise EventError(
            place, f"an id has at most {LONGEST_ID} characters, found {len(value)}; send a shorter one"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EventError(place, f"an id must be valid Unicode, found {value!r}; mend its encoding") from None
    return value


def _key(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise EventError(
            "id", f"must be a text that no other event has, found {_told(value)}; or leave it out"
        )
    return _text(value, "id")


def _told(value: Any) -> str:
    """A value in a message, cut short."""
    text = (
        "none"
        if value is None
        else repr(value)
        if isinstance(value, str | int | float)
        else type(value).__name__
    )
    return text if len(text) <= 60 else f"{text[:60]}..."
