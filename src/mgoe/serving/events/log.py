"""The log of live events: what every kind of log promises, and how one is opened by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mgoe.errors import OutputError, StoreError
from mgoe.serving.events.event import Event

Position = str
"""Where a reader is: after which event. Each kind of log has its own format."""
START: Position = ""
"""Before the first event."""
BATCH = 10_000
"""Events read at once."""
REDIS = ("redis://", "rediss://", "unix://")
EVENTS = "events"
"""Folder of the log below that of a service's state."""
IDENTITY = "identity"
"""File in that folder with the log's identity."""


class EventLog(Protocol):
    """A log that several servers share. Methods that raise `StoreError` work again once the store is back."""

    @property
    def identity(self) -> str:
        """The log that positions belong to, asked of the store: one that lost its data is another log."""
        ...

    def append(self, events: Sequence[Event]) -> None:
        """Write events, which are then durable. If that fails, send them again: they count once."""

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """Return events after a position, in the order that all readers see, each with its position."""
        ...

    def may_have(self, after: Position) -> bool:
        """Return at once whether `read` may find something; true if only the store could tell."""
        ...

    def order(self, position: Position) -> tuple[int, ...]:
        """Return a key by which positions compare."""
        ...

    def forget(self, before: Position) -> None:
        """Drop events before a position, as far as the store can. Other positions stay valid."""

    def close(self) -> None:
        """Close files or connections."""


def every(log: EventLog, after: Position = START) -> Iterator[tuple[Position, Event]]:
    """Yield all events after a position, each with its own position."""
    while found := log.read(after):
        yield from found
        after = found[-1][0]


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """Open the log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or a Redis server as in redis://host:6379/0.
        make: Whether to create a log that is missing and to repair one. Otherwise the folder is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.
    """
    if str(where).startswith(REDIS):
        from mgoe.serving.events.redis_log import RedisLog

        return RedisLog(str(where))
    from mgoe.serving.events.file_log import FileLog

    folder = Path(where) / EVENTS
    if not make and not folder.is_dir():
        fix = "name the state folder of `mgoe serve`, or a redis://"
        raise StoreError(where, f"holds no log of events (a folder {EVENTS!r} is missing); {fix}")
    return FileLog(folder, make=make)


def check_no_events(folder: Path) -> None:
    """Check that a folder that is about to be replaced contains no log of live events.

    Raises:
        OutputError: It contains one.
    """
    for identity in folder.rglob(f"{EVENTS}/{IDENTITY}"):
        rule = "holds live events of a service, which would be lost with it; move it to another folder first"
        raise OutputError(identity.parents[1], rule)
