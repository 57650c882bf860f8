"""Building one snapshot from its pairs, stage by stage.

Every stage reads files and writes files, so a build that was killed resumes with the stage that it was in.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import GIB
from mgoe.config import GraphSettings
from mgoe.graph import edges, likelihood
from mgoe.graph.build.learned import Learned, as_on_one_thread, read_sketch
from mgoe.graph.build.macro_nodes import find_macro_nodes
from mgoe.graph.build.stages import Advance, Stages
from mgoe.graph.build.workplace import WORK
from mgoe.graph.counts import OwnPairs, node_counts, task_share
from mgoe.graph.engines.engine import Engine
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Reading, Side, available_threads, starts
from mgoe.graph.scores import UNIT, check_overflow, score_table
from mgoe.graph.sketch import Projection, divided, score_matrix, sketch

MATRIX_SHARE = 0.4
"""Share of the memory that the 1st-order edges of one side may take as a matrix."""
NODES_AT_ONCE = 1 << 18
"""Nodes whose counts are finished at once."""


@dataclass(frozen=True)
class GraphPlan:
    """What the snapshots of one graph have in common.

    Attributes:
        folder: In which the graph is built.
        settings: Of the graph.
        ranks: Of the tasks, weakest first. Shape (T,).
        bucket: Length of a bucket, in microseconds.
        sizes: Macro nodes (users, items) of each resolution.
        stages: Record of the build.
        engine: Where pairs are stored and read.
    """

    folder: Path
    settings: GraphSettings
    ranks: Sequence[float]
    bucket: int
    sizes: tuple[tuple[int, int], ...]
    stages: Stages
    engine: Engine

    @property
    def tasks(self) -> int:
        """T."""
        return len(self.ranks)

    @property
    def dense(self) -> int:
        """The resolution that the experts aggregate."""
        return self.settings.dense_of(len(self.sizes))

    @cached_property
    def scores(self) -> NDArray[np.int64]:
        """Fixed-point score of every task mask. Shape (2^T,)."""
        return score_table(np.asarray(self.ranks, float), self.settings.beta, self.settings.code)


def snapshot_folder(graph: Path, number: int) -> Path:
    """Return where a graph, or a build of it, stores the arrays of a snapshot."""
    return graph / "snapshots" / f"{number:02d}"


@dataclass(frozen=True)
class SnapshotBuilder:
    """Writes everything that a model reads as of one moment.

    Attributes:
        plan: Of the graph.
        number: Of the snapshot.
        cut: Last bucket of the snapshot.
        previous: Folder of the snapshot whose macro nodes are the start of this one's.
        learned: Sketch and macro nodes to keep instead of learning them.
    """

    plan: GraphPlan
    number: int
    cut: int
    previous: Path | None = None
    learned: Learned | None = None

    @property
    def folder(self) -> Path:
        """Where the pairs are, and where the arrays go."""
        return snapshot_folder(self.plan.folder, self.number)

    @property
    def work(self) -> Path:
        """For arrays that only the build reads."""
        return self.plan.folder / WORK / self.folder.name

    def build(self) -> None:
        """Run the stages that are not done yet."""
        n, resolutions, stages = self.pairs, len(self.plan.sizes), self.plan.stages
        for name, total, stage in (
            ("nodes", 2 * n, self.read_own_pairs),
            ("sketch", 0, self.find_sketch),
            ("vectors", 2 * n, self.project),
            ("clusters", 3 * n * resolutions, self.find_macro_nodes),
            ("1st order", 2 * n * resolutions, self.read_first_order),
            ("2nd order", 2 * n * (resolutions + 1), self.read_second_order),
        ):
            numbered = f"{self.number:02d}: {name}"
            if stages.pending(numbered):
                with stages.running(numbered, total) as advance:
                    stage(advance)

    def discard_work(self) -> None:
        """Remove the arrays that only the build reads."""
        shutil.rmtree(self.work, ignore_errors=True)

    @property
    def pairs(self) -> int:
        """Distinct pairs of the snapshot."""
        return len(mapped(self.folder / "pairs.item.npy"))

    @property
    def drift(self) -> list[float]:
        """How far users have drifted from their macro nodes, for each resolution."""
        return [float(mapped(self.work / f"r{r}.drift.npy")) for r in range(len(self.plan.sizes))]

    def sums(self, side: Side) -> NDArray[np.int64]:
        """Map the fixed-point score sum of every node."""
        return mapped(self.work / f"{side}.sum.npy")

    def degree(self, side: Side) -> NDArray[np.int64]:
        """Return the number of pairs of every node."""
        name = "pairs.indptr" if side == "user" else "pairs.item_indptr"
        return np.diff(mapped(self.folder / f"{name}.npy"))

    def macro(self, r: int, side: Side) -> NDArray[np.int32]:
        """Map the macro node of every node at a resolution."""
        return mapped(self.folder / f"r{r}.{side}_macro.npy")

    def saved_edges(self, r: int, side: Side) -> edges.SparseEdges:
        """Map the 1st-order edges at a resolution."""
        prefix = f"r{r}.{side}_edges"
        return edges.SparseEdges(
            *(mapped(self.folder / f"{prefix}.{name}.npy") for name in edges.SparseEdges._fields)
        )

    def read(self, side: Side, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order."""
        return self.plan.engine.read(self.folder, self.work, side, reading, advance)

    def read_own_pairs(self, advance: Advance) -> None:
        """Sum and count the own pairs of every node, find its recent neighbours, and sort pairs by item on
        the way.
        """
        engine, own = (
            self.plan.engine,
            OwnPairs(self.plan.scores, self.plan.tasks, self.plan.settings.recents),
        )
        with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as work:
            for side in SIDES:
                parts = (
                    self.read(side, own, advance)
                    if side == "user"
                    else engine.sort_by_item(self.folder, self.work, own, advance)
                )
                recent = f"recent_{OTHER[side]}s"
                for part in parts:
                    neighbours, task_mask = part.pop("recent"), part.pop("recent_task_mask")
                    out.append({recent: neighbours, f"{recent}_task_mask": task_mask})
                    work.append({f"{side}.{name}": array for name, array in part.items()})
        check_overflow(*(self.sums(side) for side in SIDES))
        for side in SIDES:
            self._finish_counts(side)

    def _finish_counts(self, side: Side) -> None:
        names = ("done", "events", "last", "sum")
        done, events, last, total = (mapped(self.work / f"{side}.{name}.npy") for name in names)
        degree = self.degree(side)
        share = task_share(done.sum(axis=0, dtype=np.int64), int(degree.sum()))
        with ArrayFolder(self.folder) as out:
            for first in range(0, max(1, len(degree)), NODES_AT_ONCE):
                rows = slice(first, first + NODES_AT_ONCE)
                idle = np.where(degree[rows] > 0, self.cut - last[rows] // self.plan.bucket, 0)
                counts = node_counts(done[rows], degree[rows], events[rows], idle, share)
                out.append({f"{side}_counts": counts, f"{side}_sum": edges.to_units(total[rows], UNIT)})

    def find_sketch(self, advance: Advance) -> None:
        """Write what projects users, and the item vectors that need no projection."""
        if self.learned is None:
            self._learn_sketch()
            return
        sketch_of, sums = self.learned.sketch, self.learned.item_sums
        arrays = {"basis": sketch_of.basis, "singular": sketch_of.singular, "basis_sum": sums}
        save_arrays(self.folder, arrays)
        save_arrays(self.work, {"given_vectors": self.learned.items})

    @as_on_one_thread
    def _learn_sketch(self) -> None:
        """Learn the sketch from a sample of the users. If it holds all users, items need no projection."""
        s, (users, share) = self.plan.settings, self.sample()
        sums = {side: self.sums(side) for side in SIDES}
        matrix = score_matrix(PairRows.by_user(self.folder), users, self.plan.scores, sums, s.normalize)
        found = sketch(matrix, s.rank, s.power_iterations, s.scale, s.seed, share, available_threads())
        arrays = {"basis": found.basis, "singular": found.singular, "basis_sum": sums["item"]}
        save_arrays(self.folder, arrays)
        save_arrays(self.work, {"given_vectors": found.items if users is None else found.basis[:0]})

    def sample(self) -> tuple[NDArray[np.int64] | None, float]:
        """Return the users to learn from, ascending (None: all), and their share of those with edges."""
        linked, most = np.flatnonzero(self.degree("user")), self.plan.settings.sample
        if len(linked) <= most:
            return None, 1.0
        drawn = np.random.default_rng(self.plan.settings.seed).choice(linked, most, replace=False)
        return np.sort(drawn), most / len(linked)

    def project(self, advance: Advance) -> None:
        """Write the vectors of all users, and of the items that were not given one."""
        found = read_sketch(self.folder, self.plan.settings.scale)
        given, n_items = mapped(self.work / "given_vectors.npy"), len(self.sums("item"))
        with ArrayFolder(self.folder) as out:
            basis_sums = mapped(self.folder / "basis_sum.npy")
            for vectors in self._projected("user", basis_sums, found.basis, found.stretch, advance):
                out.append({"user_vectors": vectors})
        with ArrayFolder(self.folder) as out:
            out.append({"item_vectors": given})
            if len(given) == n_items:
                advance(self.pairs)
                return
            users = mapped(self.folder / "user_vectors.npy")
            inverse = divided(np.ones_like(found.singular), found.singular)
            first = 0
            for vectors in self._projected("item", self.sums("user"), users, inverse, advance):
                out.append({"item_vectors": vectors[max(0, len(given) - first) :]})
                first += len(vectors)

    def _projected(
        self,
        side: Side,
        other_sums: NDArray[np.int64],
        vectors: NDArray[np.float32],
        stretch: NDArray[np.float32],
        advance: Advance,
    ) -> Iterator[NDArray[np.float32]]:
        scores, sums = self.plan.scores / UNIT, self.sums(side) / UNIT
        normalize = self.plan.settings.normalize
        reading = Projection(scores, sums, other_sums / UNIT, vectors, stretch, normalize)
        for part in self.read(side, reading, advance):
            yield part["vectors"]

    def find_macro_nodes(self, advance: Advance) -> None:
        """Write the macro nodes at every resolution; see `macro_nodes`."""
        find_macro_nodes(self, advance)

    def read_first_order(self, advance: Advance) -> None:
        """Write 1st-order edges at every resolution, and the task table and dense edges at one. Measure the
        drift.
        """
        for r, sizes in enumerate(self.plan.sizes):
            k: dict[Side, int] = dict(zip(SIDES, sizes, strict=True))
            macro = {side: self.macro(r, side) for side in SIDES}
            for side in SIDES:
                self._write_edges(r, side, macro[OTHER[side]], k[OTHER[side]], advance)
            users = self.saved_edges(r, "user")
            arrays = {f"{side}_mass": edges.by_macro(macro[side], self.sums(side), k[side]) for side in SIDES}
            arrays["macro_edges"] = edges.between(users, macro["user"], k["user"], k["item"])
            units = {f"r{r}.{name}": edges.to_units(fixed, UNIT) for name, fixed in arrays.items()}
            save_arrays(self.folder, units)
            save_arrays(self.work, {f"r{r}.drift": np.array(self._drift(r, users))})

    def _write_edges(
        self, r: int, side: Side, macro: NDArray[np.int32], width: int, advance: Advance
    ) -> None:
        tasks = self.plan.tasks if r == self.plan.dense else 0
        wide = int(self.sums(side).max(initial=0)) >= 1 << 32
        reading = edges.FirstOrder(self.plan.scores, macro, width, np.int64 if wide else np.uint32, tasks)
        degrees = []
        with ArrayFolder(self.folder) as out:
            for part in self.read(side, reading, advance):
                degrees.append(part["degree"])
                out.append({f"r{r}.{side}_edges.{name}": part[name] for name in ("macro", "score")})
                if tasks:
                    out.append({f"{side}_table": part["table"], f"{side[0]}1": part["dense"]})
        save_arrays(self.folder, {f"r{r}.{side}_edges.indptr": starts(np.concatenate(degrees))})

    def _drift(self, r: int, users: edges.SparseEdges) -> float:
        if self.plan.settings.clusters == "random":
            return 0.0
        best = likelihood.likeliest(users, mapped(self.folder / f"r{r}.user_chances.npy"))
        return likelihood.drift(self.macro(r, "user"), best, self.sums("user"))

    def read_second_order(self, advance: Advance) -> None:
        """Write 2nd-order edges: to the own macro node at every resolution, all of them at one; and their
        sums.
        """
        for side in SIDES:
            reading = edges.SecondSums(self.plan.scores, self.sums(OTHER[side]))
            with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as work:
                for part in self.read(side, reading, advance):
                    work.append({f"{side}.second_sum": part["second_sum"]})
                    out.append({f"{side}_second_sum": edges.to_units(part["second_sum"], UNIT**2)})
        for r, sizes in enumerate(self.plan.sizes):
            for side, width in zip(SIDES, sizes, strict=True):
                self._second_order(r, side, width, advance)

    def _second_order(self, r: int, side: Side, width: int, advance: Advance) -> None:
        own, other = self.macro(r, side), self.saved_edges(r, OTHER[side])
        second_sums, dense, matrix = mapped(self.work / f"{side}.second_sum.npy"), r == self.plan.dense, None
        if dense:
            back = int(self.sums(side).max(initial=0)) * int(self.plan.scores.max())
            largest = int(second_sums.max(initial=0)) + back
            memory = int(self.plan.settings.memory * MATRIX_SHARE * GIB)
            kind = edges.use_matrix(other, self.degree(OTHER[side]), width, largest, memory)
            matrix = other.dense(width, kind) if kind else None
        reading = edges.SecondOrder(self.plan.scores, other, own, width, dense, matrix)
        with ArrayFolder(self.folder) as out:
            for part in self.read(side, reading, advance):
                out.append({f"r{r}.{side}_second": part["own"]})
                if dense:
                    out.append({f"{side[0]}2": part["dense"]})
        mass = edges.by_macro(own, second_sums, width, np.float64)
        save_arrays(self.folder, {f"r{r}.{side}_second_mass": edges.to_units(mass, UNIT**2)})
