"""What a snapshot holds of a node, read when an event first touches it. Much is summed from its pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Resolution, Snapshot
from mgoe.graph.counts import OwnPairs
from mgoe.graph.edges import FirstOrder, SecondOrder, SecondSums, SparseEdges
from mgoe.graph.pair_rows import BLOCK_PAIRS, OTHER, PairRows, Side, block_bounds, starts
from mgoe.serving.online import kernels

UNPLACED = 5
"""Level of a node without a macro node, see `mgoe.serving.online.cold_start`. The snapshot's nodes have 0."""


@dataclass(frozen=True)
class BaseValues:
    """What a snapshot holds of the nodes of one side.

    Attributes:
        side: Which side.
        snapshot: Memory-mapped.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        rows: The snapshot's pairs by this side.
        share: Share of each task among all pairs. Shape (T,).
        other_sums: Fixed-point score sum of each node of the other side. Shape (I,) or (U,).
    """

    side: Side
    snapshot: Snapshot
    scores: NDArray[np.int64]
    rows: PairRows
    share: NDArray[np.floating]
    other_sums: NDArray[np.int64]

    @property
    def other(self) -> Side:
        """The other side."""
        return OTHER[self.side]

    @property
    def recents(self) -> int:
        """Length of the list of recent neighbours."""
        return self.snapshot.arrays[f"recent_{self.other}s"].shape[1]

    @property
    def widths(self) -> list[int]:
        """Macro nodes of this side at each resolution."""
        return [len(getattr(part, f"{self.side}_mass")) for part in self.snapshot.resolutions]

    @property
    def other_widths(self) -> list[int]:
        """Macro nodes of the other side at each resolution."""
        return [len(getattr(part, f"{self.other}_mass")) for part in self.snapshot.resolutions]

    def edges(self, r: int) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.integer]]:
        """1st-order edges of the other side at a resolution: `(indptr, macro, score)`."""
        return getattr(self.snapshot.resolutions[r], f"{self.other}_edges")

    def block(self, indices: NDArray[np.int64]) -> PairRows:
        """Return the snapshot's pairs of some nodes; a node beyond the snapshot has none."""
        known = indices < len(self.rows)
        start, end = (np.where(known, self.rows.indptr[np.where(known, indices + k, 0)], 0) for k in (0, 1))
        indptr = starts(end - start)
        at = np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], end - start)
        return PairRows(indptr, *self.rows.columns.at(at))

    def read(self, indices: NDArray[np.int64]) -> dict[str, NDArray]:
        """Return first values for the slots of some nodes, by the names of `Nodes`."""
        snapshot, tasks, block = self.snapshot, len(self.share), self.block(indices)
        own, degree = OwnPairs(self.scores, tasks, self.recents)(block), np.diff(block.indptr)
        values = {
            "index": indices,
            "macro": np.empty((len(indices), len(self.widths)), np.int32),
            "fixed_second": np.empty((len(indices), len(self.widths)), np.int64),
            "fixed_sum": own["sum"],
            "fixed_second_sum": SecondSums(self.scores, self.other_sums)(block)["second_sum"],
            "done": own["done"],
            "degree": degree,
            "events": own["events"],
            "last": own["last"],
            "recent": own["recent"],
            "recent_task_mask": own["recent_task_mask"],
            "recent_time": _recent_times(block, own["recent"]),
            "vectors": self._known(snapshot.arrays[f"{self.side}_vectors"], indices, 0),
            "level": np.where(degree > 0, 0, UNPLACED),
        }
        edges = []
        for r, part in enumerate(snapshot.resolutions):
            macro = self._known(getattr(part, f"{self.side}_macro"), indices, self.widths[r])
            second = SecondOrder(
                self.scores, SparseEdges(*self.edges(r)), macro, self.widths[r], r == snapshot.dense
            )
            values["macro"][:, r], values["fixed_second"][:, r] = macro, second.own_alone(block)
            edges.append(self._first_order(part, r, block))
            if r == snapshot.dense:
                values["fixed_all_second"] = second.all(block)
                values["done_at"] = self._done_at(part, r, block)
        return values | {"edges": np.concatenate(edges, axis=1)}

    def _first_order(self, part: Resolution, r: int, block: PairRows) -> NDArray[np.integer]:
        """1st-order edges of a block's nodes, cold macro node included."""
        other, width = getattr(part, f"{self.other}_macro"), self.other_widths[r]
        return FirstOrder(self.scores, other, width, np.int64, 0).edges(block).dense(width + 1)

    def _done_at(self, part: Resolution, r: int, block: PairRows) -> NDArray[np.int32]:
        """Neighbours of a block's nodes by task and macro node."""
        done_at = np.zeros((len(block), len(self.share), self.other_widths[r] + 1), np.int32)
        own, macro = (
            np.repeat(np.arange(len(block)), np.diff(block.indptr)),
            getattr(part, f"{self.other}_macro"),
        )
        kernels.add_tasks(own, macro[block.other], block.task_mask, 1, done_at)
        return done_at

    def _known(self, array: NDArray, indices: NDArray[np.int64], fill: float) -> NDArray:
        """Rows of a node array, `fill` for nodes beyond the snapshot."""
        out = np.full((len(indices), *array.shape[1:]), fill, array.dtype)
        known = indices < len(self.rows)
        out[known] = array[indices[known]]
        return out


def _recent_times(block: PairRows, recent: NDArray[np.int32]) -> NDArray[np.int64]:
    """Time of the last event with each recent neighbour. Shape (n, R)."""
    nodes = np.repeat(np.arange(len(block)), recent.shape[1])
    at = kernels.find_pairs(block.indptr, block.other, nodes, recent.ravel())
    times = np.zeros(len(at), np.int64)
    times[at >= 0] = block.time[at[at >= 0]]
    return times.reshape(recent.shape)


def score_sums(snapshot: Snapshot, side: Side) -> NDArray[np.int64]:
    """Return the fixed-point score sum of each node, which is that of its edges."""
    indptr, _, score = getattr(snapshot.resolutions[0], f"{side}_edges")
    sums = np.empty(len(indptr) - 1, np.int64)
    for first, last in block_bounds(
        indptr, BLOCK_PAIRS, len(indptr)
    ):  # holds a block in memory, not all edges
        bounds = np.asarray(indptr[first : last + 1])
        total = np.concatenate([[0], np.cumsum(score[bounds[0] : bounds[-1]], dtype=np.int64)])
        sums[first:last] = np.diff(total[bounds - bounds[0]])
    return sums


def tasks_done(task_mask: NDArray[np.unsignedinteger], tasks: int) -> NDArray[np.int64]:
    """Count the pairs that each task was done on. Shape (T,)."""
    often = np.zeros(1 << tasks, np.int64)
    for start in range(
        0, len(task_mask), BLOCK_PAIRS
    ):  # `bincount` makes integers of eight bytes of its input
        often += np.bincount(task_mask[start : start + BLOCK_PAIRS], minlength=1 << tasks)
    return np.array([often[np.arange(len(often)) >> t & 1 == 1].sum() for t in range(tasks)], np.int64)
