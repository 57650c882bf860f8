"""From the log to the live state: a worker's own view of what all workers have taken."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from mgoe.bundle import Bundle
from mgoe.errors import BundleError
from mgoe.serving.events.log import START, EventLog, Position
from mgoe.serving.online.live import LiveNodes

HELD = "live.json"
"""File of a bundle that says up to where its graph holds the events of each log that it was refreshed from."""


class Consumer:
    """Applies the events of a log to live nodes, each once and in the log's order.

    Args:
        log: Where events are.
        live: Nodes that hold what is before `position`, and nothing after it.
        position: Where to go on.
    """

    def __init__(self, log: EventLog, live: LiveNodes, position: Position = START):
        self.log, self.live, self.position = log, live, position
        self._start, self._failed = position, False
        self._mutex = threading.Lock()

    @classmethod
    def of(cls, log: EventLog, bundle: Bundle, index: Path | None = None) -> Consumer:
        """Live nodes of a bundle with all events of the log that its graph lacks. Of earlier ones, as far as the log still has them, the
        ids are known: one that is sent again does not count.

        Raises:
            StoreError: The log is away.
            BundleError: What the bundle says of its events cannot be read.
        """
        live, position, held = LiveNodes.of(bundle, index), START, position_of(bundle.path, log)
        while log.order(position) < log.order(held) and (found := log.read(position)):
            live.skip([event for at, event in found if log.order(at) <= log.order(held)])
            position = found[-1][0]
        consumer = cls(log, live, held)
        consumer.catch_up()
        if unknown := live.stats["unknown"]:
            rule = "events of the log are left out: their behaviour does no task of the bundle, or their ids are not of its type"
            logging.getLogger(__name__).warning(rule, extra={"fields": {"events": unknown}})
        return consumer

    @property
    def may_be_behind(self) -> bool:
        """Whether `catch_up` may find something; answered at once."""
        return self.log.may_have(self.position)

    def catch_up(self) -> int:
        """Apply what has come since, from every process. Cheap where nothing has.

        Returns:
            How many events changed something.

        Raises:
            StoreError: The log is away; what was known stays known.
        """
        with self._mutex:
            changed = self._again() if self._failed else 0
            while found := self.log.read(self.position):
                self._failed = True
                changed += self.live.apply([event for _, event in found])
                self.position, self._failed = found[-1][0], False
        return changed

    def _again(self) -> int:
        """Go on with a state to which all events are applied once more: where a batch failed half-way, some of it is in the present one."""
        live, position, changed = self.live.untouched(), self._start, 0
        while found := self.log.read(position):
            changed += live.apply([event for _, event in found])
            position = found[-1][0]
        self.live.become(live)
        self.position, self._failed = position, False
        return changed


def position_of(bundle: Path, log: EventLog) -> Position:
    """Up to where a bundle's graph holds the events of a log; the start if it was never refreshed from it.

    Raises:
        BundleError: It cannot be read.
    """
    return positions(bundle).get(log.identity, START)


def positions(bundle: Path) -> dict[str, Position]:
    """Up to where a bundle's graph holds the events of each log, by the log's identity.

    Raises:
        BundleError: They cannot be read.
    """
    try:
        return dict(json.loads((bundle / HELD).read_text(encoding="utf-8"))["positions"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(bundle / HELD, f"cannot be read ({error}); copy the bundle again") from None
