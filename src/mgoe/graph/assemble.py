"""One snapshot from the pairs it holds: sketch, macro nodes at every resolution, edges, neighbours, counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe.config import GraphSettings
from mgoe.graph import clusters, edges, neighbours
from mgoe.graph.counts import node_counts
from mgoe.graph.pairs import Pairs
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import score_matrix, sketch, unit_rows
from mgoe.graph.snapshot import Resolution, Snapshot

SIDES = ("user", "item")
BySide = dict[str, NDArray]


@dataclass
class Stages:
    """Seconds spent in each stage, over all snapshots."""

    report: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.report(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Assembler:
    """Makes snapshots of one graph.

    Attributes:
        settings: Of the graph.
        tasks: T.
        sizes: Macro nodes (users, items) of each resolution.
        dense: Which of them the experts aggregate.
        stages: Where seconds are noted.
    """

    settings: GraphSettings
    tasks: int
    sizes: tuple[tuple[int, int], ...]
    dense: int
    stages: Stages

    def snapshot(self, pairs: Pairs, table: ir.Table, cut: int, before: Snapshot | None) -> Snapshot:
        """Everything a model reads as of one moment.

        Args:
            pairs: Of the snapshot.
            table: The same pairs where the engine can sum their scores.
            cut: Last bucket of the snapshot.
            before: The snapshot before, whose macro nodes are the start of this one's.
        """
        s = self.settings
        with self.stages("sketch"):
            found = sketch(score_matrix(pairs, s.normalize), s.rank, s.power_iterations, s.scale, s.seed)
            rows = {"user": unit_rows(found.users), "item": unit_rows(found.items)}
        arrays = self._own_pairs(pairs, cut) | {"user_vectors": found.users, "item_vectors": found.items, "singular": found.singular}
        parts = []
        for r, (ku, ki) in enumerate(self.sizes):
            with self.stages("clusters"):
                macro, centres = self._macro_nodes(pairs, rows, {"user": ku, "item": ki}, before.resolutions[r] if before else None)
            first = self._first_order(pairs, table, macro)
            with self.stages("2nd order"):
                parts.append(_resolution(pairs, macro, centres, first, ku, ki))
                if r == self.dense:
                    arrays |= _dense_edges(pairs, macro, first, ku, ki)
            if r == self.dense:
                with self.stages("neighbours"):
                    arrays["user_table"] = neighbours.task_table(pairs, "user", macro["item"], ki, self.tasks)
                    arrays["item_table"] = neighbours.task_table(pairs, "item", macro["user"], ku, self.tasks)
        return Snapshot(arrays, tuple(parts), self.dense, cut)

    def _own_pairs(self, pairs: Pairs, cut: int) -> dict[str, NDArray]:
        """What depends on a node's own pairs alone."""
        arrays: dict[str, NDArray] = {
            "pairs.indptr": pairs.indptr,
            "pairs.item": pairs.item.astype(np.int32),
            "pairs.code": pairs.code.astype(np.int32),
            "pairs.bucket": pairs.bucket,
        }
        with self.stages("neighbours"):
            arrays["recent_items"], arrays["recent_items_code"] = neighbours.recent(pairs, "user", self.settings.recents)
            arrays["recent_users"], arrays["recent_users_code"] = neighbours.recent(pairs, "item", self.settings.recents)
        with self.stages("counts"):
            for side in SIDES:
                arrays[f"{side}_counts"] = node_counts(pairs, side, cut, self.tasks)
                arrays[f"{side}_sum"] = pairs.sums[side].astype(np.float32)
                second = np.bincount(getattr(pairs, side), pairs.second[side], len(pairs.sums[side]))
                arrays[f"{side}_second_sum"] = second.astype(np.float32)
        return arrays

    def _macro_nodes(self, pairs: Pairs, rows: BySide, k: dict[str, int], before: Resolution | None) -> tuple[BySide, BySide]:
        """Macro node of each node of both sides, and the centres."""
        s = self.settings
        macro, centres = {}, {}
        for number, side in enumerate(SIDES):
            linked = pairs.sums[side] > 0
            start = None if before is None else getattr(before, f"{side}_macro")
            if s.clusters == "random":
                found = clusters.random_groups(rows[side], linked, k[side], (s.seed, number))
            elif start is not None and not s.refresh:
                found = clusters.keep(rows[side], linked, k[side], start)
            else:
                weights = clusters.preference_weights(pairs.sums[side], s.threshold, s.low_weight)
                found = clusters.cluster(rows[side], linked, weights, k[side], start, s.iterations, s.seed)
            macro[side], centres[side] = found
        return macro, centres

    def _first_order(self, pairs: Pairs, table: ir.Table, macro: BySide) -> dict[str, edges.SparseEdges]:
        with self.stages("1st order"):
            members = {side: edges.members_table(macro[side]) for side in SIDES}
            return {
                "user": edges.read_edges(edges.first_order(table, members["item"], "user", "item"), pairs.shape[0]),
                "item": edges.read_edges(edges.first_order(table, members["user"], "item", "user"), pairs.shape[1]),
            }


def _resolution(pairs: Pairs, macro: BySide, centres: BySide, first: dict[str, edges.SparseEdges], ku: int, ki: int) -> Resolution:
    """Sparse edges of one resolution, in units of the merging score."""
    u1, i1 = first["user"], first["item"]
    return Resolution(
        user_macro=macro["user"],
        item_macro=macro["item"],
        user_edges=(u1.indptr, u1.macro, _scores(u1.score, UNIT)),
        item_edges=(i1.indptr, i1.macro, _scores(i1.score, UNIT)),
        user_second=_scores(edges.second_order_own(pairs, i1, macro["user"], "user"), UNIT**2),
        item_second=_scores(edges.second_order_own(pairs, u1, macro["item"], "item"), UNIT**2),
        **edges.masses(pairs, macro, ku, ki),
        user_centres=centres["user"],
        item_centres=centres["item"],
    )


def _dense_edges(pairs: Pairs, macro: BySide, first: dict[str, edges.SparseEdges], ku: int, ki: int) -> dict[str, NDArray[np.float32]]:
    """Edges of both orders as matrices, for the experts, in units of the merging score."""
    u1, i1 = first["user"].dense(ki), first["item"].dense(ku)
    return {
        "u1": _scores(u1, UNIT),
        "i1": _scores(i1, UNIT),
        "u2": _scores(edges.second_order(pairs, i1, macro["user"], "user"), UNIT**2),
        "i2": _scores(edges.second_order(pairs, u1, macro["item"], "item"), UNIT**2),
    }


def _scores(fixed: NDArray[np.int64], unit: int) -> NDArray[np.float32]:
    return (fixed / unit).astype(np.float32)
