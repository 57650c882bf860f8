"""A bundle's nodes with live events on top, as requests read them, and how they follow the event log."""

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.data import task_masks, to_arrow
from mgoe.errors import BundleError
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.graph.scores import UNIT
from mgoe.serving.events.event import START, Event, EventLog, Id, Position
from mgoe.serving.events.exposure_follower import Changes, ExposureFollower
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.online.state import LiveBase, LiveState
from mgoe.serving.online.touched import Nodes

HELD = "live.json"
"""File of a bundle with the position up to which its graph holds the events of each log."""


class LiveNodes:
    """A graph's latest snapshot with live events on top.

    One thread adds events at a time. Readers hold `lock` while they read, and so see all of a batch of events
    or none of it.

    Args:
        base: What the events start from.

    Attributes:
        state: What they have made of it.
        snapshot: The snapshot, memory-mapped.
        lock: Held by everyone who reads or replaces `state`.

    Example:
        >>> live = LiveNodes.of(bundle)
        >>> live.size("user") == bundle.size("user")
        True
    """

    def __init__(self, base: LiveBase):
        self.base, self.snapshot, self.vocabularies = base, base.snapshot, base.vocabularies
        self.state = LiveState(base)
        self._writer, self.lock = threading.Lock(), threading.RLock()

    @classmethod
    def of(cls, bundle: Bundle, index: Path | None = None) -> Self:
        """Return the nodes of a bundle without live events. `index` is a folder for `item_rows`."""
        return cls(
            LiveBase.of(
                bundle.graph,
                {"user": bundle.encoders.users, "item": bundle.encoders.items},
                task_masks(bundle.settings),
                index,
                bundle.encoders.context_features,
            )
        )

    @property
    def sides(self) -> Mapping[Side, Nodes]:
        """Touched nodes."""
        return self.state.sides

    @property
    def version(self) -> int:
        """Grows with every batch of events or exposures that changes something."""
        return self.state.version

    @property
    def is_moved(self) -> bool:
        """Whether anything has changed since the snapshot."""
        return bool(self.state.rates.exposures) or any(nodes.size for nodes in self.sides.values())

    def apply(self, events: Sequence[Event]) -> int:
        """Add events, in any order. Repeated ones change nothing.

        Returns:
            How many changed something.
        """
        with self._writer:
            batch = self.state.prepare(events)  # readers need not wait for this
            with self.lock:
                return self.state.commit(batch)

    def apply_exposures(self, changes: Changes) -> None:
        """Add what has become known of exposures."""
        with self._writer:
            batch = self.state.prepare_exposures(changes)  # readers need not wait for this
            with self.lock:
                self.state.commit_exposures(batch)

    def replay(self, batches: Iterable[Sequence[Event]]) -> int:
        """Replace the state by one to which these events alone were added.

        Returns:
            How many events changed something.
        """
        with self._writer:
            state = LiveState(self.base, self.state.version)
            changed = sum(state.commit(state.prepare(events)) for events in batches)
            with self.lock:
                self.state = state
        return changed

    def skip(self, events: Sequence[Event]) -> None:
        """Remember events that the snapshot holds, in the log's order, so that they do not count again."""
        with self._writer:
            for event in self.base.understood(events):
                self.base.seen.add(event, self.base.task_masks[event.behavior])

    def indices(self, side: Side, ids: ArrayLike | Any) -> NDArray[np.int64]:
        """Return indices of an array of ids, newcomers included; -1 for those never seen. Shape (n,)."""
        values = to_arrow(ids)
        index = self.vocabularies[side].indices(values)
        with self.lock:
            missing = np.flatnonzero(index < 0) if self.sides[side].new_ids else np.empty(0, np.int64)
            index[missing] = self.state.newcomers(side, values.take(missing).to_pylist())
        return index

    def look_up(self, side: Side, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Return the same for a list of ids from JSON, without an index of texts for ids that are numbers."""
        with self.lock:
            return self.state.indices(side, ids)

    def ids(self, side: Side, indices: ArrayLike) -> list[Any]:
        """Return ids of indices, None for an index that no node has."""
        wanted, nodes = np.asarray(indices, np.int64), self.sides[side]
        known = (wanted >= 0) & (wanted < nodes.known)
        found = self.vocabularies[side].ids(np.where(known, wanted, -1)).to_pylist()
        with self.lock:
            new = list(nodes.new_ids)
        for row in np.flatnonzero((wanted >= nodes.known) & (wanted < nodes.known + len(new))).tolist():
            found[row] = new[wanted[row] - nodes.known]
        return found

    def size(self, side: Side) -> int:
        """Return how many nodes have an index."""
        return self.sides[side].count

    def touched(self, side: Side, since: int = 0) -> NDArray[np.int64]:
        """Return nodes that have changed after a version, each once."""
        with self.lock:
            nodes = self.sides[side]
            changed = nodes.index[: nodes.size][nodes.version[: nodes.size] > since]
            return np.union1d(changed, self.state.rates.changed(since)) if side == "item" else changed

    def changes(self, side: Side, index: int) -> dict[str, Any]:
        """Return what live events changed of a node, nothing for one that is untouched.

        Returns:
            `new`, whether it is a newcomer; the numbers of `pairs` and `events`, the `score` and the dense
            `edges`, each before and now; and the ids of its live neighbours, newest first, as `users` or
            `items`.
        """
        with self.lock:
            nodes, pairs = self.sides[side], self.state.pairs
            slots = nodes.slots(np.array([index]))
            if slots[0] < 0:
                return {}
            slot, before = int(slots[0]), nodes.base_values.read(np.array([index]))
            _, numbers, others = pairs.of(nodes, slots)
            others = others[np.argsort(-pairs.time[numbers], kind="stable")]
            dense = self.snapshot.dense
            start, width = int(nodes.starts[dense]), nodes.base_values.other_widths[dense]
            return {
                "new": bool(nodes.level[slot] > 0),
                "pairs": (int(before["degree"][0]), int(nodes.degree[slot])),
                "events": (int(before["events"][0]), int(nodes.events[slot])),
                "score": (float(before["fixed_sum"][0]) / UNIT, float(nodes.fixed_sum[slot]) / UNIT),
                "edges": (
                    before["edges"][0, start : start + width] / UNIT,
                    nodes.edges[slot, start : start + width] / UNIT,
                ),
                f"{OTHER[side]}s": self.ids(OTHER[side], self.sides[OTHER[side]].index[others]),
            }

    @property
    def stats(self) -> dict[str, int]:
        """Counts of events and exposures, see `LiveState`; touched nodes and newcomers of each side; bytes of
        memory."""
        with self.lock:
            state = self.state
            return {
                **state.counts,
                "exposures": state.rates.exposures,
                **{f"touched {side}s": nodes.size for side, nodes in self.sides.items()},
                **{f"new {side}s": len(nodes.new_ids) for side, nodes in self.sides.items()},
                "bytes": sum(arrays.bytes for arrays in (*self.sides.values(), state.pairs, state.rates)),
            }


class Consumer:
    """Applies the events of a log to live nodes, each once and in the log's order, and what becomes known of
    exposures.

    Args:
        log: The log of events.
        live: Nodes that hold the events before `position` and none after it.
        position: Where to start.
        follower: Reads the exposures; None if there are none.

    Example:
        >>> from mgoe.serving import open_events
        >>> log = open_events("state")
        >>> Consumer.of(log, bundle).has_more
        False
        >>> log.close()
    """

    def __init__(
        self,
        log: EventLog,
        live: LiveNodes,
        position: Position = START,
        follower: ExposureFollower | None = None,
    ):
        self.log, self.live, self.position, self._follower = log, live, position, follower
        self._start, self._failed = position, False
        self._mutex = threading.Lock()

    @classmethod
    def of(
        cls, log: EventLog, bundle: Bundle, index: Path | None = None, exposures: ExposureLog | None = None
    ) -> Self:
        """Return a consumer that has applied all events of the log that the bundle's graph lacks.

        Exposures that it lacks are counted by `catch_up`, some at each call.

        The ids of earlier events, as far as the log still has them, are remembered: one that is sent again
        does not count.

        Raises:
            StoreError: The log is away.
            BundleError: The file with the positions cannot be read.
        """
        live, position, held = LiveNodes.of(bundle, index), START, position_of(bundle.path, log)
        while log.order(position) < log.order(held) and (found := log.read(position)):
            live.skip([event for at, event in found if log.order(at) <= log.order(held)])
            position = found[-1][0]
        follower = None
        if exposures is not None and live.state.rates.is_counted:
            after = int(positions(bundle.path).get(exposures.identity, 0))
            follower = ExposureFollower(exposures, bundle.settings.tasks, after)
        consumer = cls(log, live, held, follower)
        consumer.catch_up()
        if unknown := live.stats["unknown"]:
            logging.getLogger(__name__).warning(
                "events of the log are ignored: "
                "the bundle does not know their behaviour or their type of ids",
                extra={"fields": {"events": unknown}},
            )
        return consumer

    @property
    def may_be_behind(self) -> bool:
        """Whether `catch_up` may find something; answered at once."""
        return self.log.may_have(self.position) or (
            self._follower is not None and self._follower.may_be_behind
        )

    @property
    def stats(self) -> dict[str, int]:
        """Those of the live nodes, with the memory for what is counted of each exposure."""
        found = self.live.stats
        return found | {"bytes": found["bytes"] + self.follower_bytes}

    @property
    def has_more(self) -> bool:
        """Whether exposures were left when `catch_up` read some of them."""
        return self._follower is not None and self._follower.has_more

    @property
    def follower_bytes(self) -> int:
        """Memory for what is counted of each exposure."""
        return 0 if self._follower is None else self._follower.bytes

    def catch_up(self) -> int:
        """Apply the events that have come since, from every process, and a batch of what has become known of
        exposures. Cheap if there is nothing.

        If a batch fails, the next call replays all events on a new state, since the present one may hold a
        part of it, and exposures are read again from the first.

        Returns:
            How many events and exposures changed something.

        Raises:
            StoreError: The log is away; events that were applied stay.
        """
        with self._mutex:
            changed = 0
            if self._failed:
                self._read_to = self._start
                changed = self.live.replay(self._batches(self._start))
                if self._follower is not None:
                    self._follower.restart()
                self.position, self._failed = self._read_to, False
            for events in self._batches(self.position):
                self._failed = True
                changed += self.live.apply(events)
                self.position, self._failed = self._read_to, False
            if self._follower is not None and (changes := self._follower.read()) is not None:
                self._failed = True
                self.live.apply_exposures(changes)
                changed += len(changes.item)
                self._failed = False
        return changed

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
