"""What the snapshot holds of a node, read as a node is touched: sums that a build has passed over, formed again from its pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Snapshot
from mgoe.graph.counts import OwnPairs
from mgoe.graph.edges import FirstOrder, SecondOrder, SecondSums, SparseEdges
from mgoe.graph.pair_rows import BLOCK_PAIRS, OTHER, PairRows, Side, block_bounds
from mgoe.serving.online import kernels

LEVELS = 5
"""Rounds of placing, see `mgoe.serving.online.cold_start`; a node that the snapshot has placed is of level 0."""


def some_rows(
    indptr: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of sparse rows, some: where each starts once they lie together (n + 1,), and where entries are; none of rows beyond the last."""
    inside = rows < len(indptr) - 1
    start, end = (np.where(inside, indptr[np.where(inside, rows + k, 0)], 0) for k in (0, 1))
    together = np.concatenate([[0], np.cumsum(end - start)]).astype(np.int64)
    return together, np.arange(together[-1]) + np.repeat(start - together[:-1], end - start)


@dataclass(frozen=True)
class BaseValues:
    """What the snapshot holds of one side, read when a node is touched.

    Attributes:
        side: Which.
        snapshot: Memory-mapped.
        scores: Fixed-point score of every code. Shape (2^T,).
        rows: Pairs by this side.
        share: Of each task among all pairs. Shape (T,).
        other_sums: Fixed-point score sum of each node of the other side. Shape (I,) or (U,).
    """

    side: Side
    snapshot: Snapshot
    scores: NDArray[np.int64]
    rows: PairRows
    share: NDArray[np.floating]
    other_sums: NDArray[np.int64]

    @property
    def nodes(self) -> int:
        """Nodes of this side in the snapshot."""
        return len(self.rows)

    def macro(self, r: int) -> NDArray[np.int32]:
        """Own macro nodes at a resolution."""
        return getattr(self.snapshot.resolutions[r], f"{self.side}_macro")

    def edges(self, r: int) -> SparseEdges:
        """1st-order edges of the other side at a resolution."""
        return SparseEdges(*getattr(self.snapshot.resolutions[r], f"{OTHER[self.side]}_edges"))

    @property
    def widths(self) -> list[int]:
        """Macro nodes of this side at each resolution."""
        return [len(getattr(part, f"{self.side}_mass")) for part in self.snapshot.resolutions]

    @property
    def other_widths(self) -> list[int]:
        """Macro nodes of the other side at each resolution."""
        return [len(getattr(part, f"{OTHER[self.side]}_mass")) for part in self.snapshot.resolutions]

    def block(self, codes: NDArray[np.int64]) -> PairRows:
        """Pairs of some nodes; none of those beyond the snapshot."""
        rows = self.rows
        indptr, at = some_rows(rows.indptr, codes)
        return PairRows(indptr, *rows.columns.at(at))

    def read(self, codes: NDArray[np.int64], recents: int) -> dict[str, NDArray]:
        """First values of the slots of some nodes, by the names of `Nodes`."""
        s, block, tasks = self.snapshot, self.block(codes), len(self.share)
        own, known = OwnPairs(self.scores, tasks, recents)(block), codes < self.nodes
        inside = np.where(known, codes, 0)
        macro = np.stack(
            [
                np.where(known, self.macro(r)[inside] if self.nodes else k, k)
                for r, k in enumerate(self.widths)
            ],
            axis=1,
        )
        edges, second = [], []
        dense = np.zeros((len(codes), 0), np.int64)
        for r, width in enumerate(self.widths):
            to = self.other_widths[r]
            first = FirstOrder(
                self.scores, getattr(s.resolutions[r], f"{OTHER[self.side]}_macro"), to, np.int64, 0
            ).edges(block)
            edges.append(first.dense(to + 1))
            reading = SecondOrder(
                self.scores, self.edges(r), macro[:, r].astype(np.int32), width, r == s.dense
            )
            second.append(reading.own_alone(block))
            dense = reading.all(block) if r == s.dense else dense
        other_macro = getattr(s.resolutions[s.dense], f"{OTHER[self.side]}_macro")
        done_at = np.zeros((len(codes), tasks, self.other_widths[s.dense] + 1), np.int32)
        kernels.count(block.indptr, block.other, block.task_mask, other_macro, done_at)
        recent_time = np.zeros((len(codes), recents), np.int64)
        kernels.times(block.indptr, block.other, block.time, own["recent"], recent_time)
        vectors = s.arrays[f"{self.side}_vectors"]
        held = vectors[inside] if self.nodes else np.zeros((len(codes), vectors.shape[1]), np.float32)
        return {
            "index": codes, "macro": macro, "edges": np.concatenate(edges, axis=1), "fixed_second": np.stack(second, axis=1),
            "fixed_two": dense, "fixed_sum": own["sum"], "done": own["done"], "degree": np.diff(block.indptr), "events": own["events"],
            "last": own["last"], "fixed_second_sum": SecondSums(self.scores, self.other_sums)(block)["second_sum"], "done_at": done_at,
            "recent": own["recent"], "recent_task_mask": own["recent_task_mask"], "recent_time": recent_time,
            "vectors": np.where(known[:, None], held, 0), "level": np.where(np.diff(block.indptr) > 0, 0, LEVELS),
        }  # fmt: skip


def score_sums(base: Snapshot, side: Side) -> NDArray[np.int64]:
    """Fixed-point score sum of each node: that of its edges."""
    indptr, _, score = getattr(base.resolutions[0], f"{side}_edges")
    sums = np.empty(len(indptr) - 1, np.int64)
    for first, last in block_bounds(indptr, BLOCK_PAIRS, len(indptr)):  # memory of a block, not of all edges
        starts = np.asarray(indptr[first : last + 1])
        total = np.concatenate([[0], np.cumsum(score[starts[0] : starts[-1]], dtype=np.int64)])
        sums[first:last] = np.diff(total[starts - starts[0]])
    return sums


def tasks_done(code: NDArray[np.unsignedinteger], tasks: int) -> NDArray[np.int64]:
    """Pairs by task. Shape (T,)."""
    often = np.zeros(1 << tasks, np.int64)
    for start in range(0, len(code), BLOCK_PAIRS):  # which become integers of eight bytes to be counted
        often += np.bincount(code[start : start + BLOCK_PAIRS], minlength=1 << tasks)
    return np.array([often[np.arange(len(often)) >> t & 1 == 1].sum() for t in range(tasks)], np.int64)
