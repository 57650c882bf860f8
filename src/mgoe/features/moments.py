"""Pairs as of moments after a snapshot: the same inputs as those of a service that knows every event until
then.

Axes: `B` pairs, `n` of them whose node has changed before the pair's moment, `W` macro nodes of the other
side over all resolutions, cold ones included, `R` recent neighbours, `E` changed pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe._util.files import atomic_folder
from mgoe._util.kernels import kernel
from mgoe.data import Prepared
from mgoe.data.times import snapshot_of
from mgoe.errors import GraphError
from mgoe.features.overlay import CellsBefore, Later, NodeOverlay, Overlay, PairOverlay
from mgoe.features.view import Slots, View
from mgoe.graph.counts import LATEST
from mgoe.graph.edges import log_scores, to_units
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.moments import MOVED, Moments, counts_at, edge_starts, edges_at
from mgoe.graph.pair_rows import OTHER, Side
from mgoe.graph.placing import Placing, SomeNodes
from mgoe.graph.scores import UNIT
from mgoe.graph.sweep import Events, follow


class MomentNodes:
    """Nodes of one side as they are at moments, a row each. It has the attributes of `NodeOverlay` that input
    groups read of changed nodes, and computes each when it is first read.

    Args:
        view: Has the snapshot and its moments.
        side: Of the nodes.
        nodes, times: Which nodes, strictly before when (microseconds). Shape (B,) each.

    Attributes:
        held: Entries of the side.
        slots: Row of each node, -1 where it has not changed. Shape (B,).
        index: The node of each row. Shape (n,).
        place, entry: Of the node in `held.nodes`, and its last entry. Shape (n,).
        head: See `NodeOverlay`. Shape (n,).
    """

    def __init__(self, view: View, side: Side, nodes: NDArray[np.int64], times: NDArray[np.int64]):
        assert view.moments is not None
        self._side: Side = side
        self._view, self.held, self._share = view, view.moments.sides[side], view.moments.share
        place, entry = self.held.before(nodes, times)
        changed = np.flatnonzero(entry >= 0)
        self.slots = np.full(len(nodes), -1, np.int64)
        self.slots[changed] = np.arange(len(changed))
        self.index, self.place, self.entry = nodes[changed], place[changed], entry[changed]
        self.head = np.full(len(changed), -1, np.int32)

    @cached_property
    def _placed(self) -> NDArray[np.int32]:
        return self.held.entries.placed[self.entry]

    @cached_property
    def _own(self) -> dict[str, NDArray]:
        """What nodes are without content."""
        at, side, held, entry = self._view.snapshot, self._side, self.held, self.entry
        new, arrays = self._placed >= 0, self._view.snapshot.arrays
        macro = at.macro_nodes(side, self.index)
        macro[new] = held.macro[self._placed[new]]
        vectors = take(arrays[f"{side}_vectors"], self.index, 0)
        moved = new & ((self.index >= len(arrays[f"{side}_vectors"])) | (side == "user"))
        vectors[moved] = held.vectors[self._placed[moved]]
        return {"macro": macro, "vectors": vectors, "edges": edges_at(at, side, held, self.place, entry)}

    @cached_property
    def _read(self) -> dict[str, NDArray]:
        """What nodes are with their content, if they have any."""
        at, side, own = self._view.snapshot, self._side, self._own
        fixed = self.held.entries.sum[self.entry]
        starts = edge_starts(at.widths(OTHER[side]))
        if side not in at.placed:
            dense = own["edges"][:, starts[at.dense] : starts[at.dense + 1] - 1]
            kappa = np.zeros(len(fixed), np.float32)
            return own | {"sum": to_units(fixed, UNIT), "log_first": log_scores(dense, UNIT), "kappa": kappa}
        held = at.placed[side]
        some = SomeNodes(
            take(held["content"], self.index, 0),
            fixed,
            own["vectors"],
            [own["edges"][:, start : end - 1] for start, end in pairwise(starts)],
            [*own["macro"].T],
        )
        chances = [getattr(part, f"{side}_chances") for part in at.resolutions]
        found = Placing(held["targets"], held["worth"]).read(some, chances, at.dense)
        macro, edges = own["macro"].copy(), own["edges"].copy()
        for r, start in enumerate(starts[:-1]):
            macro[:, r] = found[f"macro{r}"]
            edges[:, start : starts[r + 1] - 1] = found[f"edges{r}"]
        return found | {"macro": macro, "edges": edges}

    @cached_property
    def _recent(self) -> tuple[NDArray[np.int32], NDArray[np.unsignedinteger]]:
        arrays, name = self._view.snapshot.arrays, f"recent_{OTHER[self._side]}s"
        base, masks = arrays[name], arrays[f"{name}_task_mask"]
        recent = np.full((len(self.index), base.shape[1]), -1, np.int32)
        recent_masks = np.zeros(recent.shape, masks.dtype)
        held = self.held.entries
        events = held.time, held.other, held.task_mask
        scores = np.rint(self._view.snapshot.scores * UNIT).astype(np.int64)
        first = self.held.indptr[self.place]
        _recents(events, first, self.entry, self.index, base, masks, scores, recent, recent_masks)
        return recent, recent_masks

    def __getattr__(self, name: str) -> Any:
        if name in ("edges", "macro", "vectors", "sum", "log_first", "kappa"):
            return self._read[name]
        if name == "slot":
            raise GraphError(
                "group",
                "nodes are read as of moments; give `slots=pairs.slots(side)` to rows and macro nodes",
            )
        raise AttributeError(name)

    @cached_property
    def second(self) -> NDArray[np.float32]:
        return to_units(self.held.entries.second[self.entry], UNIT**2)

    @cached_property
    def second_sum(self) -> NDArray[np.float32]:
        return to_units(self.held.entries.second_sum[self.entry], UNIT**2)

    @cached_property
    def counts(self) -> NDArray[np.float32]:
        return counts_at(self.held, self.entry, self._share)

    @property
    def first(self) -> NDArray[np.int64]:
        base = take(self._view.base[self._side]["first"], self.index, LATEST)
        return np.minimum(base, self.held.entries.time[self.held.indptr[self.place]])

    @property
    def last(self) -> NDArray[np.int64]:
        return self.held.entries.last[self.entry]

    @property
    def total(self) -> NDArray[np.int64]:
        return self.held.entries.total[self.entry].astype(np.int64)

    @property
    def again(self) -> NDArray[np.int64]:
        return self.held.entries.again[self.entry].astype(np.int64)

    @property
    def times(self) -> MomentNodes:
        """See `since`."""
        return self

    def since(self, slots: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what `EventTimes.since` does, of what happened until the moment of each row."""
        changed = np.flatnonzero(slots >= 0)
        own, width = slots[changed], moments.shape[1]
        _, before = self.held.before(np.repeat(self.index[own], width), moments[changed].ravel())
        base = np.repeat(take(self._view.base[self._side]["total"], self.index[own], 0), width)
        entries = self.held.entries
        former = np.where(before >= 0, entries.total[before], base).reshape(-1, width)
        out = np.zeros(moments.shape, np.int64)
        out[changed] = entries.total[self.entry[own]][:, None] - former
        return out

    @property
    def recent(self) -> NDArray[np.int32]:
        return self._recent[0]

    @property
    def recent_task_mask(self) -> NDArray[np.unsignedinteger]:
        return self._recent[1]


class WindowMoments(Mapping[int, Moments]):
    """The moments of every window of a prepared log, followed when they are first read, and kept on disk.

    Args:
        prepared: Has the history.
        graph: Its graph; the moments are kept in its folder, and go with it when it is replaced or removed.
    """

    def __init__(self, prepared: Prepared, graph: MacroGraph):
        self._prepared, self._graph = prepared, graph
        self._folder = graph.path / "moments"
        self._opened: dict[int, Moments] = {}

    def __getitem__(self, window: int) -> Moments:
        if window not in self._opened:
            place = self._folder / f"{window:02d}"
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "moments.lock"):  # one process follows, the others wait
                if not place.exists():
                    with atomic_folder(place) as unfinished:
                        shown = self._after(window, self._prepared.exposures)
                        follow(self._graph, window, self._events(window), shown).save(unfinished)
            self._opened[window] = Moments.open(place)
        return self._opened[window]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._prepared.cuts)))

    def __len__(self) -> int:
        return len(self._prepared.cuts)

    def _after(self, window: int, rows: Any) -> Any:
        """Return the rows of a window, which its snapshot does not hold; None without any table."""
        cuts = self._prepared.cuts
        return rows if rows is None else rows.filter(snapshot_of(rows.bucket, cuts) == window + 1)

    def _events(self, window: int) -> Events:
        rows = self._after(window, self._prepared.history)
        table = rows.select("user", "item", "time", "task").to_pyarrow()
        return Events.of(*(table[name].to_numpy() for name in table.column_names))


def at_moments(
    view: View, users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.int64]
) -> tuple[View, tuple[Slots, Slots]]:
    """Return a view in which every pair has rows of its own for its user and its item, and these rows.

    Args:
        view: A snapshot and its moments.
        users, items: By index. Shape (B,) each.
        times: What pairs are read strictly before, microseconds. Shape (B,).
    """
    assert view.moments is not None
    user, item = MomentNodes(view, "user", users, times), MomentNodes(view, "item", items, times)
    rows = np.flatnonzero((user.slots >= 0) & (item.slots >= 0))
    own, held = user.slots[rows], user.held
    entry = np.full(len(rows), -1, np.int64)
    first, end = held.indptr[user.place[own]], held.indptr[user.place[own] + 1]
    _last_of_pair(first, end, user.entry[own], held.order, held.entries.other, items[rows], entry)
    rows, entry = rows[entry >= 0], entry[entry >= 0]
    user.head[user.slots[rows]] = np.arange(len(rows))
    done = held.entries.take(entry)
    pairs = PairOverlay(
        item=item.slots[rows].astype(np.int32),
        task_mask=done.task_mask.astype(np.int64),
        time=done.time,
        first=done.pair_first,
        total=done.pair_total.astype(np.int64),
        next_user=np.full(len(rows), -1, np.int32),
    )
    nodes = cast(NodeOverlay, user), cast(NodeOverlay, item)  # all that input groups read of it
    groups = () if view.snapshot.rates is None else view.snapshot.rates.groups
    cells = map(view.moments.rates.get, range(len(groups)))
    rates = [None if one is None else CellsBefore(one, times) for one in cells]
    first, end = np.zeros(len(users), np.int64), np.zeros(len(users), np.int64)
    changed = user.slots >= 0
    first[changed], end[changed] = user.held.indptr[user.place], user.entry + 1
    later = Later(first, end, user.held.entries.other, user.held.entries.time)
    return view.over(Overlay(*nodes, pairs, rates, later)), (user.slots, item.slots)


@kernel("recent", "recent_masks")
def _recents(
    events, first, last, nodes, base, base_masks, scores, recent, recent_masks
):  # pragma: no cover - compiled
    """Write the latest neighbours of nodes after their last entries: the newest first, then the higher score,
    then the smaller index."""
    time, other, task_mask = events
    length = recent.shape[1]
    when = np.empty(length, np.int64)
    for row in range(len(nodes)):
        n, entry = 0, last[row]
        while entry >= first[row] and (n < length or time[entry] == when[n - 1]):
            one, mask, moment = other[entry], task_mask[entry], time[entry]
            entry -= 1
            if one == MOVED:
                continue
            seen = False
            for k in range(n):
                seen |= recent[row, k] == one
            if seen:
                continue
            at = n
            if n == length:
                at = n - 1
                if not _before(scores, mask, one, recent_masks[row, at], recent[row, at]):
                    continue
            else:
                n += 1
            while at > 0 and when[at - 1] == moment:
                if not _before(scores, mask, one, recent_masks[row, at - 1], recent[row, at - 1]):
                    break
                recent[row, at], recent_masks[row, at], when[at] = (
                    recent[row, at - 1],
                    recent_masks[row, at - 1],
                    when[at - 1],
                )
                at -= 1
            recent[row, at], recent_masks[row, at], when[at] = one, mask, moment
        if nodes[row] < len(base):
            k, own = 0, n
            while n < length and k < length and base[nodes[row], k] >= 0:
                seen = False
                for other_one in range(own):
                    seen |= recent[row, other_one] == base[nodes[row], k]
                if not seen:
                    recent[row, n], recent_masks[row, n] = base[nodes[row], k], base_masks[nodes[row], k]
                    n += 1
                k += 1


@kernel(inline="always")
def _before(scores, mask, node, other_mask, other):  # pragma: no cover - compiled
    """Whether a neighbour comes before another one of the same moment."""
    one, two = scores[mask], scores[other_mask]
    return one > two or (one == two and node < other)


@kernel("out")
def _last_of_pair(first, end, last, order, other, items, out):  # pragma: no cover - compiled
    """Write the last entry of each pair that is at most `last`, -1 where there is none."""
    for row in range(len(items)):
        low, high = first[row], end[row]
        while low < high:
            half = (low + high) // 2
            entry = order[half]
            if other[entry] < items[row] or (other[entry] == items[row] and entry <= last[row]):
                low = half + 1
            else:
                high = half
        if low > first[row] and other[order[low - 1]] == items[row]:
            out[row] = order[low - 1]
