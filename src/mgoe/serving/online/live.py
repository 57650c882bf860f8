"""A bundle's nodes with live events on top, as requests read them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.data import task_masks, to_arrow
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.graph.scores import UNIT
from mgoe.serving.events.event import Event, Id
from mgoe.serving.online.nodes import Nodes
from mgoe.serving.online.pairs import LivePairs
from mgoe.serving.online.state import LiveBase, LiveState


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
    """

    def __init__(self, base: LiveBase):
        self.base, self.snapshot, self.vocabularies = base, base.snapshot, base.vocabularies
        self.state = LiveState(base)
        self._writer, self.lock = threading.Lock(), threading.RLock()

    @classmethod
    def of(cls, bundle: Bundle, index: Path | None = None) -> LiveNodes:
        """Return the nodes of a bundle without live events. `index` is a folder for `item_rows`."""
        vocabularies: dict[Side, Any] = {"user": bundle.encoders.users, "item": bundle.encoders.items}
        return cls(LiveBase.of(bundle.graph, vocabularies, task_masks(bundle.settings), index))

    @property
    def sides(self) -> Mapping[Side, Nodes]:
        """Touched nodes."""
        return self.state.sides

    @property
    def pairs(self) -> LivePairs:
        """Touched pairs."""
        return self.state.pairs

    @property
    def version(self) -> int:
        """Grows with every batch of events that changes something."""
        return self.state.version

    def without_events(self) -> LiveNodes:
        """Return the nodes of the same snapshot, which both share, without live events."""
        return LiveNodes(self.base)

    def apply(self, events: Sequence[Event]) -> int:
        """Add events, in any order. Repeated ones change nothing.

        Returns:
            How many changed something.
        """
        with self._writer:
            batch = self.state.prepare(events)  # readers need not wait for this
            with self.lock:
                return self.state.commit(batch)

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
        known = np.where((wanted >= 0) & (wanted < nodes.known), wanted, -1)
        found = self.vocabularies[side].ids(known).to_pylist()
        with self.lock:
            new = list(nodes.new_ids)
        for row in np.flatnonzero((wanted >= nodes.known) & (wanted < nodes.known + len(new))).tolist():
            found[row] = new[wanted[row] - nodes.known]
        return found

    def size(self, side: Side) -> int:
        """Return how many nodes have an index."""
        return self.sides[side].count

    def known_items(self, user: int) -> NDArray[np.int32]:
        """Return the items in a user's history, in order; none for an unknown user."""
        known = self.snapshot.known_items(user)
        with self.lock:
            nodes = self.sides["user"]
            slot = nodes.slots(np.array([user]))
            if slot[0] < 0:
                return known
            items = self.pairs.of(nodes, slot)[2]
            return np.union1d(known, self.sides["item"].index[items]).astype(np.int32)

    def touched(self, side: Side, since: int = 0) -> NDArray[np.int64]:
        """Return nodes that have changed after a version."""
        with self.lock:
            nodes = self.sides[side]
            return nodes.index[: nodes.size][nodes.version[: nodes.size] > since]

    def changes(self, side: Side, index: int) -> dict[str, Any]:
        """Return what live events changed of a node, nothing for one that is untouched.

        Returns:
            `new`, whether it is a newcomer; the numbers of `pairs` and `events`, the `score` and the dense
            `edges`, each before and now; and the ids of its live neighbours, newest first, as `users` or
            `items`.
        """
        with self.lock:
            nodes, pairs = self.sides[side], self.pairs
            slots = nodes.slots(np.array([index]))
            if slots[0] < 0:
                return {}
            slot, before = int(slots[0]), nodes.base_values.read(np.array([index]))
            _, numbers, others = pairs.of(nodes, slots)
            others = others[np.argsort(-pairs.time[numbers], kind="stable")]
            dense = self.snapshot.dense
            start, width = int(nodes.starts[dense]), nodes.base_values.other_widths[dense]
            edges = (
                values[start : start + width] / UNIT for values in (before["edges"][0], nodes.edges[slot])
            )
            return {
                "new": bool(nodes.level[slot] > 0),
                "pairs": (int(before["degree"][0]), int(nodes.degree[slot])),
                "events": (int(before["events"][0]), int(nodes.events[slot])),
                "score": (float(before["fixed_sum"][0]) / UNIT, float(nodes.fixed_sum[slot]) / UNIT),
                "edges": tuple(edges),
                f"{OTHER[side]}s": self.ids(OTHER[side], self.sides[OTHER[side]].index[others]),
            }

    @property
    def stats(self) -> dict[str, int]:
        """Counts of events, see `LiveState`; touched nodes and newcomers of each side; bytes of memory."""
        with self.lock:
            state = self.state
            nodes = {f"touched {side}s": state.sides[side].size for side in SIDES}
            new = {f"new {side}s": len(state.sides[side].new_ids) for side in SIDES}
            memory = sum(arrays.bytes for arrays in (*state.sides.values(), state.pairs))
            return state.counts | nodes | new | {"bytes": memory}
