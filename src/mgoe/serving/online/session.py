"""A visitor without an id: what the events of a session say, laid over the live state and stored nowhere.

The visitor is read as a new user with these events would be: tasks, 1st-order edges, recent items, vector and
macro nodes. Items do not change; they would if the events were sent to the log.

Axes: `n` items of the session, `Z` resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.features import NodeOverlay, Overlay, PairOverlay, View
from mgoe.graph.counts import LATEST
from mgoe.graph.fold import MOST_EVENTS
from mgoe.graph.newcomers import Doings, place
from mgoe.serving.online.kernels import Change
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.touched import NEVER, Nodes

SLOT = np.zeros(1, np.int64)
"""Where the visitor stands among the touched users of a session, as the only one."""


class Done(NamedTuple):
    """An event of a session: the item by index, the tasks done as bits, and microseconds since 1970."""

    item: int
    task_mask: int
    time: int


@dataclass(frozen=True)
class Session:
    """The visitor as a user.

    Attributes:
        user: Index, which no user has.
        items: What the events are about, rising. Shape (n,).

    Example:
        >>> from mgoe.serving import LiveNodes
        >>> session = Session.of(LiveNodes.of(bundle), [Done(3, 0b1, 1_700_000_000_000_000)])
        >>> session.over(bundle.view).rows("user", "recent", np.array([session.user]))[0, 0]
        np.int32(3)
    """

    user: int
    items: NDArray[np.int64]
    _nodes: NodeOverlay
    _pairs: PairOverlay
    _now: int

    @classmethod
    def of(cls, live: LiveNodes, events: Sequence[Done]) -> Session:
        """Compute what the events make of a new user.

        Args:
            live: The live state, which stays as it is.
            events: At least one, in any order; repeated ones count once. Items have an index.
        """
        base, known = live.base, live.sides["item"]
        item, time, task = _distinct(events)
        change = _change(live, item, time, task)
        user = max(live.size("user"), len(live.sides["user"].slot))
        nodes = Nodes(base.values["user"], known=0)
        nodes.touch(base.values["user"].read(np.array([user])) | {"index": SLOT})
        nodes.add(change, known)
        nodes.add_times(np.zeros_like(time), time, np.ones_like(time))
        _place(live, nodes, events)
        nodes.finish(SLOT, live.version)
        nodes.index[0], nodes.head[0] = user, 0
        n = len(change.other)
        following = np.append(np.arange(1, n), -1).astype(np.int32)
        span = change.task_mask, change.time, change.first, change.gained
        pairs = PairOverlay(np.arange(n, dtype=np.int32), *span, following)
        return cls(user, change.other, nodes.overlay(), pairs, int(time.max()) + 1)

    def over(self, view: View) -> View:
        """Return a view of the live state with the visitor, who is its only user that differs from the
        snapshot."""
        items = view.overlay.item
        rows = np.concatenate([items.index, self.items])  # the session's items follow the changed ones
        slot = np.full(max(self.user + 1, len(view.overlay.user.slot)), -1, np.int32)
        slot[self.user] = 0
        pairs = self._pairs._replace(item=self._pairs.item + np.int32(len(items.index)))
        user = self._nodes._replace(slot=slot)
        return view.over(Overlay(user, items._replace(index=rows), pairs, view.overlay.rates), self._now)


def _distinct(events: Sequence[Done]) -> NDArray[np.int64]:
    """Return item, time and task of what was done, each once. Shape (3, m)."""
    tasks = range(max(event.task_mask for event in events).bit_length())
    done = {(item, time, task) for item, mask, time in events for task in tasks if mask >> task & 1}
    return np.array(sorted(done), np.int64).T


def _change(
    live: LiveNodes, item: NDArray[np.int64], time: NDArray[np.int64], task: NDArray[np.int64]
) -> Change:
    """Return the session's pairs as changes of a user without any."""
    base = live.base
    items, inverse = np.unique(item, return_inverse=True)
    task_mask, last = np.zeros(len(items), np.int64), np.full(len(items), NEVER)
    first, every = np.full(len(items), LATEST), np.bincount(inverse)
    counts, none = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
    np.bitwise_or.at(task_mask, inverse, 1 << task)
    np.maximum.at(last, inverse, time)
    np.minimum.at(first, inverse, time)
    np.add.at(counts, inverse, 1 if base.since is None else time >= base.since)
    return Change(
        own=np.zeros_like(items),
        other=items,
        other_macro=live.sides["item"].macro_of(items),
        score=base.scores[task_mask],
        old_score=none,
        base_score=none,
        task_mask=task_mask,
        old_task_mask=none,
        events=np.minimum(counts, MOST_EVENTS),
        gained=every,
        time=last,
        first=first,
    )


def _place(live: LiveNodes, nodes: Nodes, events: Sequence[Done]) -> None:
    """Give the visitor a vector and macro nodes by the rules of `mgoe.graph.newcomers`."""
    item, mask, time = np.array(sorted(events, key=lambda one: one.time), np.int64).T
    done = Doings(np.zeros_like(item), item, time, mask)
    placed = place(done, live.base.placements["user"], live.snapshot, "user")
    nodes.vectors[SLOT], nodes.macro[SLOT] = placed.vectors[-1], placed.macro[-1]
