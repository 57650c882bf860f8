"""The log of live events: what every kind of log promises."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from mgoe.serving.events.event import Event

Position = str
"""Where a reader is: after which event. Each kind of log has its own format."""
START: Position = ""
"""Before the first event."""
BATCH = 10_000
"""Events read at once."""
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
