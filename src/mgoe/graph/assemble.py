"""One snapshot from its pairs: counts, sketch, macro nodes, edges, neighbours. Every stage reads files and writes files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe.arrays import ArrayFolder, mapped, save_arrays
from mgoe.config import GraphSettings
from mgoe.graph import clusters, edges
from mgoe.graph.blocks import OTHER, SIDES, Reading, Rows, Side, available_threads
from mgoe.graph.counts import OwnPairs, node_counts, task_share
from mgoe.graph.learned import Learned, read_sketch
from mgoe.graph.pairs import Moments, starts
from mgoe.graph.scores import UNIT, check_overflow
from mgoe.graph.sketch import Projection, divided, score_matrix, sketch
from mgoe.graph.stages import GIB, Stages

Advance = Callable[[int], None]
MATRIX_SHARE = 0.4
"""Of the memory: what one side's 1st-order edges may take as a matrix."""
ROWS = 1 << 18
"""Nodes whose counts are finished at once."""


class Engine(Protocol):
    """Where pairs lie and readings run."""

    name: str

    def write_pairs(self, history: ir.Table, moments: Moments, tasks: int, folders: list[Path], advance: Advance) -> None:
        """Fold the history into the pairs of every snapshot, by user."""
        ...

    def turn(self, snapshot: Path, work: Path, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        """Bring the pairs of a snapshot in the order of item; a reading by item on the way, in the order of items, times included."""
        ...

    def read(self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        """A reading of all nodes of one side, in order."""
        ...


@dataclass(frozen=True)
class Assembler:
    """Makes snapshots of one graph.

    Attributes:
        settings: Of the graph.
        tasks: T.
        scores: Fixed-point score of every code. Shape (2^T,).
        bucket: Length of a bucket, microseconds.
        sizes: Macro nodes (users, items) of each resolution.
        dense: Which of them the experts aggregate.
        stages: Record of the build.
        engine: Where pairs lie and readings run.
    """

    settings: GraphSettings
    tasks: int
    scores: NDArray[np.int64]
    bucket: int
    sizes: tuple[tuple[int, int], ...]
    dense: int
    stages: Stages
    engine: Engine

    def snapshot(self, number: int, folder: Path, work: Path, cut: int, before: Path | None, learned: Learned | None) -> None:
        """Write everything that a model reads as of one moment.

        Args:
            number: Of the snapshot.
            folder: Where its pairs lie and its arrays go.
            work: For arrays that only the build reads.
            cut: Last bucket of the snapshot.
            before: The snapshot before, whose macro nodes are the start of this one's.
            learned: Macro nodes to keep, instead of learning them.
        """
        at = _At(self, number, folder, work, cut)
        n = at.pairs
        at.run("nodes", 2 * n, at.read_nodes)
        at.run("sketch", 0, lambda advance: at.learn_sketch() if learned is None else at.keep_sketch(learned))
        at.run("vectors", 2 * n, at.project)
        at.run("clusters", at.nodes * len(self.sizes), lambda advance: at.find_macro_nodes(before, learned, advance), unit="nodes")
        at.run("1st order", 2 * n * len(self.sizes), at.read_first_order)
        at.run("2nd order", 2 * n * (len(self.sizes) + 1), at.read_second_order)

    def drift(self, work: Path) -> list[float]:
        """How far users have drifted from their macro nodes, by resolution. Known items keep their vectors, and so do not drift."""
        return [float(mapped(work / f"r{r}.user_drift.npy")) for r in range(len(self.sizes))]


@dataclass(frozen=True)
class _At:
    """The stages of one snapshot."""

    graph: Assembler
    number: int
    folder: Path
    work: Path
    cut: int

    def run(self, name: str, total: int, work: Callable[[Advance], None], unit: str = "pairs") -> None:
        self.graph.stages.run(f"{self.number:02d}: {name}", total, work, unit)

    @property
    def pairs(self) -> int:
        return len(mapped(self.folder / "pairs.item.npy"))

    @property
    def nodes(self) -> int:
        return sum(len(self.degree(side)) for side in SIDES)

    def sums(self, side: Side) -> NDArray[np.int64]:
        return mapped(self.work / f"{side}.sum.npy")

    def degree(self, side: Side) -> NDArray[np.int64]:
        return np.diff(mapped(self.folder / ("pairs.indptr.npy" if side == "user" else "pairs.item_indptr.npy")))

    def macro(self, r: int, side: Side) -> NDArray[np.int32]:
        return mapped(self.folder / f"r{r}.{side}_macro.npy")

    def read(self, side: Side, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        return self.graph.engine.read(self.folder, self.work, side, reading, advance)

    def read_nodes(self, advance: Advance) -> None:
        """Own pairs of every node: sums, counts and recent neighbours. Pairs are brought in the order of item on the way."""
        own = OwnPairs(self.graph.scores, self.graph.tasks, self.graph.settings.recents)
        with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as held:
            for side in SIDES:
                parts = self.read(side, own, advance) if side == "user" else self.graph.engine.turn(self.folder, self.work, own, advance)
                for part in parts:
                    recent, code = part.pop("recent"), part.pop("recent_code")
                    out.append({f"recent_{OTHER[side]}s": recent, f"recent_{OTHER[side]}s_code": code})
                    held.append({f"{side}.{name}": array for name, array in part.items()})
        check_overflow(*(self.sums(side) for side in SIDES))
        for side in SIDES:
            self._finish_counts(side)

    def _finish_counts(self, side: Side) -> None:
        done, events, last, total = (mapped(self.work / f"{side}.{name}.npy") for name in ("done", "events", "last", "sum"))
        degree = self.degree(side)
        share = task_share(done.sum(axis=0, dtype=np.int64), int(degree.sum()))
        with ArrayFolder(self.folder) as out:
            for first in range(0, max(1, len(degree)), ROWS):
                rows = slice(first, first + ROWS)
                idle = np.where(degree[rows] > 0, self.cut - last[rows] // self.graph.bucket, 0)
                counts = node_counts(done[rows], degree[rows], events[rows], idle, share)
                out.append({f"{side}_counts": counts, f"{side}_sum": edges.to_units(total[rows], UNIT)})

    def learn_sketch(self) -> None:
        """Learn what projects users and items, from a sample of the users. Items of a sketch of all users need no projection."""
        s, rows = self.graph.settings, Rows.by_user(self.folder)
        linked = np.flatnonzero(np.diff(rows.indptr))
        users, share = None, 1.0
        if len(linked) > s.sample:
            users = np.sort(np.random.default_rng(s.seed).choice(linked, s.sample, replace=False))
            share = s.sample / len(linked)
        matrix = score_matrix(rows, users, self.graph.scores, {side: self.sums(side) for side in SIDES}, s.normalize)
        found = sketch(matrix, s.rank, s.power_iterations, s.scale, s.seed, share, available_threads())
        save_arrays(self.folder, {"basis": found.basis, "singular": found.singular, "basis_sum": self.sums("item")})
        save_arrays(self.work, {"given_vectors": found.items if users is None else found.basis[:0]})

    def keep_sketch(self, learned: Learned) -> None:
        """Take over what projects users, and the items that it knows; those that came later are projected."""
        save_arrays(self.folder, {"basis": learned.sketch.basis, "singular": learned.sketch.singular, "basis_sum": learned.item_sums})
        save_arrays(self.work, {"given_vectors": learned.items})

    def project(self, advance: Advance) -> None:
        """Vectors of all users, and of the items that were not given one."""
        found = read_sketch(self.folder, self.graph.settings.scale)
        with ArrayFolder(self.folder) as out:
            for part in self._projected("user", mapped(self.folder / "basis_sum.npy"), found.basis, found.stretch, advance):
                out.append({"user_vectors": part})
        given, n_items = mapped(self.work / "given_vectors.npy"), len(self.sums("item"))
        with ArrayFolder(self.folder) as out:
            out.append({"item_vectors": given})
            if len(given) == n_items:
                advance(self.pairs)
                return
            users, inverse = mapped(self.folder / "user_vectors.npy"), divided(np.ones_like(found.singular), found.singular)
            first = 0
            for part in self._projected("item", self.sums("user"), users, inverse, advance):
                out.append({"item_vectors": part[max(0, len(given) - first) :]})
                first += len(part)

    def _projected(
        self, side: Side, other_sums: NDArray[np.int64], vectors: NDArray[np.float32], stretch: NDArray[np.float32], advance: Advance
    ) -> Iterator[NDArray[np.float32]]:
        scores, sums, normalize = self.graph.scores / UNIT, self.sums(side) / UNIT, self.graph.settings.normalize
        for part in self.read(side, Projection(scores, sums, other_sums / UNIT, vectors, stretch, normalize), advance):
            yield part["vectors"]

    def find_macro_nodes(self, before: Path | None, learned: Learned | None, advance: Advance) -> None:
        """Macro node of every node at every resolution, and their centres."""
        for r, sizes in enumerate(self.graph.sizes):
            for side, k in zip(SIDES, sizes, strict=True):
                start = mapped(before / f"r{r}.{side}_macro.npy") if before else None
                kept = (learned.macro[r][side], learned.centres[r][side]) if learned else None
                macro, centres, moved = self._macro_nodes(side, k, start, kept, advance)
                save_arrays(self.folder, {f"r{r}.{side}_macro": macro, f"r{r}.{side}_centres": centres})
                save_arrays(self.work, {f"r{r}.{side}_drift": np.array(moved)})

    def _macro_nodes(
        self, side: Side, k: int, start: NDArray | None, kept: tuple[NDArray, NDArray] | None, advance: Advance
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], float]:
        """Macro nodes, their centres, and how far they have drifted."""
        s, vectors, sums = self.graph.settings, mapped(self.folder / f"{side}_vectors.npy"), self.sums(side)
        linked = sums > 0
        if s.clusters == "random":
            macro = clusters.random_groups(linked, k, (s.seed, SIDES.index(side)))
            advance(len(macro))
            return macro, clusters.member_means(vectors, macro, k), 0.0
        if kept is None and start is not None and not s.refresh:
            kept = start, clusters.member_means(vectors, start, k)
        if kept is not None:
            nearest = clusters.assign(vectors, linked, kept[1], advance)
            macro = clusters.keep(nearest, kept[0], linked, k)
            return macro, kept[1], clusters.drift(macro, nearest, sums)
        weights = clusters.moving_weights(clusters.preference_weights(sums, s.threshold, s.low_weight), linked, k)
        centres = clusters.learn_centres(vectors, weights, k, start, s.iterations, s.seed, s.sample)
        return clusters.assign(vectors, linked, centres, advance), centres, 0.0

    def read_first_order(self, advance: Advance) -> None:
        """1st-order edges at every resolution; dense ones and the task table at one."""
        for r, sizes in enumerate(self.graph.sizes):
            k = dict(zip(SIDES, sizes, strict=True))
            for side in SIDES:
                self._first_order(r, side, k[OTHER[side]], advance)
            macro = {side: self.macro(r, side) for side in SIDES}
            arrays = {f"{side}_mass": edges.by_macro(macro[side], self.sums(side), k[side]) for side in SIDES}
            arrays["macro_edges"] = edges.between(self.edges(r, "user"), macro["user"], k["user"], k["item"])
            save_arrays(self.folder, {f"r{r}.{name}": edges.to_units(fixed, UNIT) for name, fixed in arrays.items()})

    def _first_order(self, r: int, side: Side, width: int, advance: Advance) -> None:
        score_type = np.uint32 if int(self.sums(side).max(initial=0)) < 1 << 32 else np.int64
        tasks = self.graph.tasks if r == self.graph.dense else 0
        degrees = []
        with ArrayFolder(self.folder) as out:
            for part in self.read(side, edges.FirstOrder(self.graph.scores, self.macro(r, OTHER[side]), width, score_type, tasks), advance):
                degrees.append(part["degree"])
                out.append({f"r{r}.{side}_edges.{name}": part[name] for name in ("macro", "score")})
                if tasks:
                    out.append({f"{side}_table": part["table"], f"{side[0]}1": part["dense"]})
        save_arrays(self.folder, {f"r{r}.{side}_edges.indptr": starts(np.concatenate(degrees))})

    def edges(self, r: int, side: Side) -> edges.SparseEdges:
        """Saved 1st-order edges."""
        return edges.SparseEdges(*(mapped(self.folder / f"r{r}.{side}_edges.{name}.npy") for name in ("indptr", "macro", "score")))

    def read_second_order(self, advance: Advance) -> None:
        """2nd-order edges: to the own macro node at every resolution, all of them at one; and their sums."""
        for side in SIDES:
            with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as held:
                for part in self.read(side, edges.SecondSums(self.graph.scores, self.sums(OTHER[side])), advance):
                    held.append({f"{side}.second_sum": part["second_sum"]})
                    out.append({f"{side}_second_sum": edges.to_units(part["second_sum"], UNIT**2)})
        for r, sizes in enumerate(self.graph.sizes):
            for side, width in zip(SIDES, sizes, strict=True):
                self._second_order(r, side, width, advance)

    def _second_order(self, r: int, side: Side, width: int, advance: Advance) -> None:
        own, other, matrix = self.macro(r, side), self.edges(r, OTHER[side]), None
        if r == self.graph.dense:
            back = int(self.sums(side).max(initial=0)) * int(self.graph.scores.max())
            largest = int(mapped(self.work / f"{side}.second_sum.npy").max(initial=0)) + back
            memory = int(self.graph.settings.memory * MATRIX_SHARE * GIB)
            kind = edges.use_matrix(other, self.degree(OTHER[side]), width, largest, memory)
            matrix = other.dense(width, kind) if kind else None
        reading = edges.SecondOrder(self.graph.scores, other, own, width, r == self.graph.dense, matrix)
        with ArrayFolder(self.folder) as out:
            for part in self.read(side, reading, advance):
                out.append({f"r{r}.{side}_second": part["own"]})
                if "dense" in part:
                    out.append({f"{side[0]}2": part["dense"]})
        mass = edges.by_macro(own, mapped(self.work / f"{side}.second_sum.npy"), width)
        save_arrays(self.folder, {f"r{r}.{side}_second_mass": edges.to_units(mass, UNIT**2)})
