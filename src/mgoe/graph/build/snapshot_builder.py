"""The stages of one snapshot from its pairs: counts, sketch, vectors, edges. Each reads files and writes files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import GIB
from mgoe.graph import edges, likelihood
from mgoe.graph.build.learned import Learned, as_on_one_thread, read_sketch
from mgoe.graph.build.stages import Advance
from mgoe.graph.counts import OwnPairs, node_counts, task_share
from mgoe.graph.engines.engine import Assembler
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Reading, Side, available_threads, starts
from mgoe.graph.scores import UNIT, check_overflow
from mgoe.graph.sketch import Projection, divided, score_matrix, sketch

MATRIX_SHARE = 0.4
"""Of the memory: what one side's 1st-order edges may take as a matrix."""
ROWS = 1 << 18
"""Nodes whose counts are finished at once."""


@dataclass(frozen=True)
class SnapshotBuild:
    """The stages of one snapshot, but for its macro nodes. Attributes as the arguments of `assemble`."""

    graph: Assembler
    number: int
    folder: Path
    work: Path
    cut: int

    def run(self, name: str, total: int, work: Callable[[Advance], None]) -> None:
        self.graph.stages.run(f"{self.number:02d}: {name}", total, work)

    @property
    def pairs(self) -> int:
        return len(mapped(self.folder / "pairs.item.npy"))

    def sums(self, side: Side) -> NDArray[np.int64]:
        return mapped(self.work / f"{side}.sum.npy")

    def degree(self, side: Side) -> NDArray[np.int64]:
        return np.diff(
            mapped(self.folder / ("pairs.indptr.npy" if side == "user" else "pairs.item_indptr.npy"))
        )

    def macro(self, r: int, side: Side) -> NDArray[np.int32]:
        return mapped(self.folder / f"r{r}.{side}_macro.npy")

    def read(self, side: Side, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        return self.graph.engine.read(self.folder, self.work, side, reading, advance)

    def read_nodes(self, advance: Advance) -> None:
        """Own pairs of every node: sums, counts and recent neighbours. Pairs are brought in the order of item on the way."""
        own = OwnPairs(self.graph.scores, self.graph.tasks, self.graph.settings.recents)
        with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as held:
            for side in SIDES:
                parts = (
                    self.read(side, own, advance)
                    if side == "user"
                    else self.graph.engine.turn(self.folder, self.work, own, advance)
                )
                for part in parts:
                    recent, code = part.pop("recent"), part.pop("recent_task_mask")
                    out.append({f"recent_{OTHER[side]}s": recent, f"recent_{OTHER[side]}s_task_mask": code})
                    held.append({f"{side}.{name}": array for name, array in part.items()})
        check_overflow(*(self.sums(side) for side in SIDES))
        for side in SIDES:
            self._finish_counts(side)

    def _finish_counts(self, side: Side) -> None:
        done, events, last, total = (
            mapped(self.work / f"{side}.{name}.npy") for name in ("done", "events", "last", "sum")
        )
        degree = self.degree(side)
        share = task_share(done.sum(axis=0, dtype=np.int64), int(degree.sum()))
        with ArrayFolder(self.folder) as out:
            for first in range(0, max(1, len(degree)), ROWS):
                rows = slice(first, first + ROWS)
                idle = np.where(degree[rows] > 0, self.cut - last[rows] // self.graph.bucket, 0)
                counts = node_counts(done[rows], degree[rows], events[rows], idle, share)
                out.append({f"{side}_counts": counts, f"{side}_sum": edges.to_units(total[rows], UNIT)})

    @as_on_one_thread
    def learn_sketch(self) -> None:
        """Learn what projects users and items, from a sample of the users. Items of a sketch of all users need no projection."""
        s, rows = self.graph.settings, PairRows.by_user(self.folder)
        users, share = self.sample()
        matrix = score_matrix(
            rows, users, self.graph.scores, {side: self.sums(side) for side in SIDES}, s.normalize
        )
        found = sketch(matrix, s.rank, s.power_iterations, s.scale, s.seed, share, available_threads())
        save_arrays(
            self.folder, {"basis": found.basis, "singular": found.singular, "basis_sum": self.sums("item")}
        )
        save_arrays(self.work, {"given_vectors": found.items if users is None else found.basis[:0]})

    def sample(self) -> tuple[NDArray[np.int64] | None, float]:
        """Users that are learned from, rising, and their share of those with edges; None where all of them are."""
        linked, most = np.flatnonzero(self.degree("user")), self.graph.settings.sample
        if len(linked) <= most:
            return None, 1.0
        return np.sort(
            np.random.default_rng(self.graph.settings.seed).choice(linked, most, replace=False)
        ), most / len(linked)

    def keep_sketch(self, learned: Learned) -> None:
        """Take over what projects users, and the items that it knows; those that came later are projected."""
        save_arrays(
            self.folder,
            {
                "basis": learned.sketch.basis,
                "singular": learned.sketch.singular,
                "basis_sum": learned.item_sums,
            },
        )
        save_arrays(self.work, {"given_vectors": learned.items})

    def project(self, advance: Advance) -> None:
        """Vectors of all users, and of the items that were not given one."""
        found = read_sketch(self.folder, self.graph.settings.scale)
        with ArrayFolder(self.folder) as out:
            for part in self._projected(
                "user", mapped(self.folder / "basis_sum.npy"), found.basis, found.stretch, advance
            ):
                out.append({"user_vectors": part})
        given, n_items = mapped(self.work / "given_vectors.npy"), len(self.sums("item"))
        with ArrayFolder(self.folder) as out:
            out.append({"item_vectors": given})
            if len(given) == n_items:
                advance(self.pairs)
                return
            users, inverse = (
                mapped(self.folder / "user_vectors.npy"),
                divided(np.ones_like(found.singular), found.singular),
            )
            first = 0
            for part in self._projected("item", self.sums("user"), users, inverse, advance):
                out.append({"item_vectors": part[max(0, len(given) - first) :]})
                first += len(part)

    def _projected(
        self,
        side: Side,
        other_sums: NDArray[np.int64],
        vectors: NDArray[np.float32],
        stretch: NDArray[np.float32],
        advance: Advance,
    ) -> Iterator[NDArray[np.float32]]:
        scores, sums, normalize = (
            self.graph.scores / UNIT,
            self.sums(side) / UNIT,
            self.graph.settings.normalize,
        )
        for part in self.read(
            side, Projection(scores, sums, other_sums / UNIT, vectors, stretch, normalize), advance
        ):
            yield part["vectors"]

    def read_first_order(self, advance: Advance) -> None:
        """1st-order edges at every resolution; dense ones and the task table at one. From the users' comes the drift."""
        for r, sizes in enumerate(self.graph.sizes):
            k, macro = dict(zip(SIDES, sizes, strict=True)), {side: self.macro(r, side) for side in SIDES}
            tasks = self.graph.tasks if r == self.graph.dense else 0
            for side in SIDES:
                reading = edges.FirstOrder(
                    self.graph.scores, macro[OTHER[side]], k[OTHER[side]], self._score_type(side), tasks
                )
                self._write_edges(r, side, reading, advance)
            users = self.saved_edges(r, "user")
            arrays = {f"{side}_mass": edges.by_macro(macro[side], self.sums(side), k[side]) for side in SIDES}
            arrays["macro_edges"] = edges.between(users, macro["user"], k["user"], k["item"])
            save_arrays(
                self.folder, {f"r{r}.{name}": edges.to_units(fixed, UNIT) for name, fixed in arrays.items()}
            )
            save_arrays(self.work, {f"r{r}.drift": np.array(self._drift(r, users))})

    def _drift(self, r: int, users: edges.SparseEdges) -> float:
        if self.graph.settings.clusters == "random":
            return 0.0
        best = likelihood.likeliest(users, mapped(self.folder / f"r{r}.user_chances.npy"))
        return likelihood.drift(self.macro(r, "user"), best, self.sums("user"))

    def _write_edges(self, r: int, side: Side, reading: edges.FirstOrder, advance: Advance) -> None:
        degrees = []
        with ArrayFolder(self.folder) as out:
            for part in self.read(side, reading, advance):
                degrees.append(part["degree"])
                out.append({f"r{r}.{side}_edges.{name}": part[name] for name in ("macro", "score")})
                if reading.tasks:
                    out.append({f"{side}_table": part["table"], f"{side[0]}1": part["dense"]})
        save_arrays(self.folder, {f"r{r}.{side}_edges.indptr": starts(np.concatenate(degrees))})

    def _score_type(self, side: Side) -> type[np.integer]:
        """Of 1st-order edges: wide enough for the largest sum."""
        return np.uint32 if int(self.sums(side).max(initial=0)) < 1 << 32 else np.int64

    def saved_edges(self, r: int, side: Side) -> edges.SparseEdges:
        """Saved 1st-order edges."""
        return edges.SparseEdges(
            *(mapped(self.folder / f"r{r}.{side}_edges.{name}.npy") for name in ("indptr", "macro", "score"))
        )

    def read_second_order(self, advance: Advance) -> None:
        """2nd-order edges: to the own macro node at every resolution, all of them at one; and their sums."""
        for side in SIDES:
            with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as held:
                for part in self.read(
                    side, edges.SecondSums(self.graph.scores, self.sums(OTHER[side])), advance
                ):
                    held.append({f"{side}.second_sum": part["second_sum"]})
                    out.append({f"{side}_second_sum": edges.to_units(part["second_sum"], UNIT**2)})
        for r, sizes in enumerate(self.graph.sizes):
            for side, width in zip(SIDES, sizes, strict=True):
                self._second_order(r, side, width, advance)

    def _second_order(self, r: int, side: Side, width: int, advance: Advance) -> None:
        own, other, matrix = self.macro(r, side), self.saved_edges(r, OTHER[side]), None
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
        mass = edges.by_macro(own, mapped(self.work / f"{side}.second_sum.npy"), width, np.float64)
        save_arrays(self.folder, {f"r{r}.{side}_second_mass": edges.to_units(mass, UNIT**2)})
