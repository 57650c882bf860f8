"""From the event log to the live state: a worker's own view of the events that all workers have taken."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgoe.bundle import Bundle
from mgoe.errors import BundleError
from mgoe.serving.events.event import Event
from mgoe.serving.events.log import START, EventLog, Position
from mgoe.serving.online.live import LiveNodes

HELD = "live.json"
"""File of a bundle with the position up to which its graph holds the events of each log."""


class Consumer:
    """Applies the events of a log to live nodes, each once and in the log's order.

    Args:
        log: The log of events.
        live: Nodes that hold the events before `position` and none after it.
        position: Where to start.
    """

    def __init__(self, log: EventLog, live: LiveNodes, position: Position = START):
        self.log, self.live, self.position = log, live, position
        self._start, self._failed = position, False
        self._mutex = threading.Lock()

    @classmethod
    def of(cls, log: EventLog, bundle: Bundle, index: Path | None = None) -> Consumer:
        """Return a consumer that has applied all events of the log that the bundle's graph lacks.

        The ids of earlier events, as far as the log still has them, are remembered: one that is sent again
            does not
        count.

        Raises:
            StoreError: The log is away.
            BundleError: The file with the positions cannot be read.
        """
        live, position, held = LiveNodes.of(bundle, index), START, position_of(bundle.path, log)
        while log.order(position) < log.order(held) and (found := log.read(position)):
            live.skip([event for at, event in found if log.order(at) <= log.order(held)])
            position = found[-1][0]
        consumer = cls(log, live, held)
        consumer.catch_up()
        if unknown := live.stats["unknown"]:
            rule = (
                "events of the log are ignored: the bundle does not know their behaviour or their type of ids"
            )
            logging.getLogger(__name__).warning(rule, extra={"fields": {"events": unknown}})
        return consumer

    @property
    def may_be_behind(self) -> bool:
        """Whether `catch_up` may find something; answered at once."""
        return self.log.may_have(self.position)

    def catch_up(self) -> int:
        """Apply the events that have come since, from every process. Cheap if there are none.

        If a batch fails, the next call replays all events on a new state, since the present one may hold a
        part of it.

        Returns:
            How many events changed something.

        Raises:
            StoreError: The log is away; events that were applied stay.
        """
        with self._mutex:
            changed = 0
            if self._failed:
                changed, self.position, self._failed = self._replay(), self._read_to, False
            for events in self._batches(self.position):
                self._failed = True
                changed += self.live.apply(events)
                self.position, self._failed = self._read_to, False
        return changed

    def _replay(self) -> int:
        self._read_to = self._start
        return self.live.replay(self._batches(self._start))

    def _batches(self, after: Position) -> Iterator[Sequence[Event]]:
        while found := self.log.read(after):
            self._read_to = after = found[-1][0]
            yield [event for _, event in found]


def position_of(bundle: Path, log: EventLog) -> Position:
    """Return up to where a bundle's graph holds the events of a log; the start if it was never refreshed from
    it.

    Raises:
        BundleError: The file with the positions cannot be read.
    """
    return positions(bundle).get(log.identity, START)


def positions(bundle: Path) -> dict[str, Position]:
    """Return up to where a bundle's graph holds the events of each log, by the log's identity.

    Raises:
        BundleError: The file with the positions cannot be read.
    """
    try:
        return dict(json.loads((bundle / HELD).read_text(encoding="utf-8"))["positions"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(bundle / HELD, f"cannot be read ({error}); copy the bundle again") from None
