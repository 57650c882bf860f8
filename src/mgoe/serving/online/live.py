"""A bundle's nodes with live events on top, as requests read them, and how they follow the event log."""

import logging
import threading
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.bundle.held import NEW_STORE, START, Mark, Sources, exposures_of, is_new, mark_of, read_held
from mgoe.bundle.items import Item, new_items
from mgoe.bundle.membership import deployment_of
from mgoe.config import TaskSettings
from mgoe.data import task_masks, to_arrow
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.graph.scores import UNIT
from mgoe.serving.events.event import Event, Id
from mgoe.serving.events.log import EVENTS_PER_READ, ServiceLog
from mgoe.serving.online.live_rates import Changes, ExposureFollower
from mgoe.serving.online.state import LiveBase, LiveState
from mgoe.serving.online.touched import Nodes

logger = logging.getLogger(__name__)


class LiveNodes:
    """A graph's latest snapshot with live events on top.

    One thread adds events at a time. Readers hold `lock` while they read, and so see all of a batch of events
    or none of it.

    Args:
        base: What the events start from.
        bundle: Learns of the items that were registered; None if none are.

    Attributes:
        state: What they have made of it.
        snapshot: The snapshot, memory-mapped.
        lock: Held by everyone who reads or replaces `state`.

    Example:
        >>> live = LiveNodes.of(bundle)
        >>> live.size("user") == bundle.size("user")
        True
    """

    def __init__(self, base: LiveBase, bundle: Bundle | None = None):
        self._bundle, self._registered = bundle, list[tuple[int, NDArray[np.int64]]]()
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
            ),
            bundle,
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

    def apply(self, records: Sequence[Event | Item]) -> int:
        """Add events, in any order, and items. Repeated ones change nothing.

        Returns:
            How many changed something; all items count.
        """
        items = self._register(records)
        with self._writer:
            # readers need not wait for this
            batch = self.state.prepare([one for one in records if isinstance(one, Event)])
            with self.lock:
                return self.state.commit(batch) + items

    def _register(self, records: Sequence[Event | Item]) -> int:
        """Give items indices, and note what is known of them. Return how many there are."""
        items = [one for one in records if isinstance(one, Item)]
        if items and self._bundle is not None:
            new, nodes = new_items(items, self._bundle.encoders), self.sides["item"]
            ids = new.ids.to_pylist()
            with self._writer, self.lock:
                known = self.state.indices("item", ids) >= 0
                nodes.add_newcomers([id for id, is_known in zip(ids, known, strict=True) if not is_known])
                index = self.state.indices("item", ids)
                self._bundle.take_items(new, index)
                self.state.version += 1
                nodes.place(index, self._bundle.encoders.item_side.content_of(index), self.version)
                self._registered.append((self.version, index))
        return len(items)

    def apply_exposures(self, changes: Changes) -> None:
        """Add what has become known of exposures."""
        with self._writer:
            batch = self.state.prepare_exposures(changes)  # readers need not wait for this
            with self.lock:
                self.state.commit_exposures(batch)

    def restart(self) -> None:
        """Begin again with the snapshot, as if no event had come. Newcomers keep their indices."""
        with self._writer, self.lock:
            state = LiveState(self.base, self.state.version)
            for side, nodes in self.sides.items():
                state.sides[side].add_newcomers([*nodes.new_ids])
            self.state = state

    def skip(self, records: Sequence[Event | Item]) -> None:
        """Remember events that the snapshot holds, in the log's order, so that they do not count again. Items
        are added."""
        self._register(records)
        with self._writer:
            for event in self.base.understood([one for one in records if isinstance(one, Event)]):
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
        return self.sides[side].indexed

    def touched(self, side: Side, since: int = 0) -> NDArray[np.int64]:
        """Return nodes that have changed after a version, each once."""
        with self.lock:
            nodes = self.sides[side]
            changed = nodes.index[: nodes.size][nodes.version[: nodes.size] > since]
            later = takewhile(lambda one: one[0] > since, reversed(self._registered))  # versions rise
            also = [index for _, index in later] if side == "item" else []
            return np.unique(np.concatenate([changed, self.state.rates.changed(side, since), *also]))

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
                "new": bool(nodes.new[slot]),
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
            growing = *self.sides.values(), *state.cold_start.doings.values(), state.pairs, state.rates
            return {
                **state.counts,
                "exposures": state.rates.exposures,
                **{f"touched {side}s": nodes.size for side, nodes in self.sides.items()},
                **{f"new {side}s": len(nodes.new_ids) for side, nodes in self.sides.items()},
                "bytes": sum(arrays.bytes for arrays in growing),
            }


class Consumer:
    """Applies the events of a log to live nodes, each once and in the log's order, and what becomes known of
    exposures.

    Nothing is read before `catch_up`.

    Args:
        log: The log of a service.
        live: Nodes that hold what `held` says, and nothing after it.
        held: What the snapshot holds of each log.
        tasks: Tasks of the bundle, in their order.
        deployment: Of the bundle, see `deployment_of`.

    Attributes:
        mark: Up to where events have been applied.
        is_new: Whether the snapshot holds rows of another store and none of this one, see `is_new`.

    Example:
        >>> from mgoe.serving import open_log
        >>> log = open_log("state")
        >>> Consumer.of(log, bundle).has_more
        False
        >>> log.close()
    """

    def __init__(
        self,
        log: ServiceLog,
        live: LiveNodes,
        held: Sources = MappingProxyType({}),
        tasks: Sequence[TaskSettings] = (),
        deployment: str | None = None,
    ):
        self.log, self.live, self.mark = log, live, START
        self._deployment = deployment
        self._held, self._tasks = held, tasks
        self._start = self._exposures_from = START
        self._follower: ExposureFollower | None = None
        self._begun = self._failed = self.is_new = False
        self._mutex = threading.Lock()

    @classmethod
    def of(cls, log: ServiceLog, bundle: Bundle, index: Path | None = None) -> Self:
        """Return a consumer that has applied all events of the log that the bundle's graph lacks.

        Exposures that it lacks are counted by `catch_up`, some at each call.

        Raises:
            StoreError: A log is away, or is not the one that the bundle holds, see `ServiceLog.check`.
            BundleError: The file that says what the bundle holds cannot be read.
        """
        held, live = read_held(bundle.path), LiveNodes.of(bundle, index)
        consumer = cls(log, live, held, bundle.settings.tasks, deployment_of(bundle))
        consumer.catch_up()
        return consumer

    @property
    def exposures_mark(self) -> Mark:
        """Up to where exposures are counted, in the live nodes or in the bundle."""
        return self._exposures_from if self._follower is None else self._follower.mark

    @property
    def stats(self) -> dict[str, int]:
        """Those of the live nodes, with the memory for what is counted of each exposure."""
        found = self.live.stats
        return found | {"bytes": found["bytes"] + (0 if self._follower is None else self._follower.bytes)}

    @property
    def has_more(self) -> bool:
        """Whether exposures were left when `catch_up` read some of them."""
        return self._follower is not None and self._follower.has_more

    def catch_up(self, now: int | None = None) -> int:
        """Apply the events that have come since, from every process, and every `PAUSE` seconds a batch of
        what has become known of exposures. Cheap if there is nothing.

        If a batch fails, the state may hold a part of it. The next call begins again with the snapshot.

        The first call also checks that the logs are those that the snapshot holds, and remembers the ids of
        its events, as far as the log still has them: one that is sent again does not count.

        Args:
            now: Microseconds since 1970: read exposures as of then, however short the pause was. By default
                as of the present, after the pause.

        Returns:
            How many events and exposures changed something.

        Raises:
            StoreError: A log is away, or another; what was applied stays.
        """
        with self._mutex:
            changed, is_full = 0, True
            if not (begun := self._begun):
                self._begin()
            if self._failed:
                self.live.restart()
                self.mark, self._failed = self._start, False
                if self._follower is not None:
                    self._follower.restart()
            while is_full and (found := self.log.read(self.mark)):
                self._failed, is_full = True, len(found) == EVENTS_PER_READ
                changed += self.live.apply([record for _, record in found])
                self.mark, self._failed = found[-1][0], False
            if not begun and (unknown := self.live.stats["unknown"]):
                logger.warning(
                    "events of the log are ignored: "
                    "the bundle does not know their behaviour or their type of ids",
                    extra={"fields": {"events": unknown}},
                )
            follower = self._follower
            if (
                follower is not None
                and (now is not None or follower.is_due)
                and (changes := follower.read(now)) is not None
            ):
                self._failed = True
                self.live.apply_exposures(changes)
                changed += len(changes.item)
                self._failed = False
        return changed

    def _begin(self) -> None:
        """Check the logs, and remember the events that the snapshot holds."""
        log, live, identity = self.log, self.live, self.log.identity
        held, shown = mark_of(self._held, identity), mark_of(self._held, exposures_of(identity))
        log.claim([task.name for task in self._tasks], self._deployment)
        for mark in (held, shown):
            log.check(mark)
        self._exposures_from = shown
        if live.state.rates.is_counted:
            self._follower = ExposureFollower(log, self._tasks, shown)
        if found := is_new(identity, self._held):
            logger.warning(NEW_STORE)
        self.is_new = found
        mark = START
        while mark.number < held.number and (found := log.read(mark)):
            live.skip([record for at, record in found if at.number <= held.number])
            mark = found[-1][0]
        self.mark = self._start = held
        self._begun = True
