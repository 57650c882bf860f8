"""Building one snapshot from its pairs, stage by stage.

Every stage reads files and writes files, so a build that was killed resumes with the stage that it was in.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import GIB
from mgoe.graph import edges, likelihood
from mgoe.graph.build import clusters
from mgoe.graph.build.plan import GraphPlan, snapshot_folder
from mgoe.graph.build.workplace import WORK, Advance
from mgoe.graph.counts import node_counts, own_pairs, task_share
from mgoe.graph.latest import LatestPairs, latest_rows
from mgoe.graph.links import MOST_LINKS, cosine_links
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Reading, Side, available_threads, starts
from mgoe.graph.placing import ROWS, TELLS, Placing, SomeNodes
from mgoe.graph.scores import UNIT, check_overflow
from mgoe.graph.sketch import Sketch, divided, projected, score_matrix, sketch
from mgoe.graph.snapshot import LINKS

MATRIX_SHARE = 0.4
"""Share of the memory that the 1st-order edges of one side may take as a matrix."""
NODES_AT_ONCE = 1 << 18
"""Nodes whose counts are finished at once."""
Macro = dict[Side, NDArray[np.int32]]


@dataclass(frozen=True)
class SnapshotBuilder:
    """Writes everything that a model reads as of one moment.

    Attributes:
        plan: Of the graph.
        number: Of the snapshot.
        cut: Last bucket of the snapshot.
        previous: Folder of the snapshot whose macro nodes are the start of this one's.
        kept: Folder of a snapshot whose sketch and macro nodes are kept, instead of learning them.
    """

    plan: GraphPlan
    number: int
    cut: int
    previous: Path | None = None
    kept: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the pairs are, and where the arrays go."""
        return snapshot_folder(self.plan.folder, self.number)

    @property
    def work(self) -> Path:
        """For arrays that only the build reads."""
        return self.plan.folder / WORK / self.folder.name

    def build(self) -> None:
        """Run the stages that are not done yet. What only the previous snapshot's build read is removed."""
        shutil.rmtree(self.work.with_name(f"{self.number - 1:02d}"), ignore_errors=True)
        n, resolutions = self.pairs, len(self.plan.sizes)
        for name, total, stage in (
            ("nodes", 2 * n, self.read_own_pairs),
            ("links", 0, self.find_links),
            ("sketch", 0, self.find_sketch),
            ("vectors", 2 * n, self.project),
            ("clusters", 3 * n * resolutions, self.find_macro_nodes),
            ("1st order", 2 * n * resolutions, self.read_first_order),
            ("2nd order", 2 * n * (resolutions + 1), self.read_second_order),
        ):
            self.plan.stages.run(f"{self.number:02d}: {name}", total, stage)
        if self.plan.content:
            self.plan.stages.run(f"{self.number:02d}: content", 0, self.place, unit="nodes")
        if self.plan.rates is not None:
            self.plan.stages.run(f"{self.number:02d}: rates", 0, self.count_exposures, unit="records")

    @property
    def pairs(self) -> int:
        """Distinct pairs of the snapshot."""
        return len(mapped(self.folder / "pairs.item.npy"))

    def tells(self, side: Side) -> bool:
        """Return whether the content of a side's nodes tells something."""
        return bool(mapped(self.folder / f"{side}_placed.worth.npy")[-1] > TELLS)

    @property
    def drift(self) -> list[float]:
        """How far users have drifted from their macro nodes, for each resolution."""
        if self.plan.settings.clusters == "random":
            return [0.0 for _ in self.plan.sizes]
        best = (mapped(self.work / f"r{r}.user.best.npy") for r in range(len(self.plan.sizes)))
        return [likelihood.drift(self.macro(r, "user"), one, self.sums("user")) for r, one in enumerate(best)]

    def sums(self, side: Side) -> NDArray[np.int64]:
        """Map the fixed-point score sum of every node."""
        return mapped(self.work / f"{side}.sum.npy")

    def degree(self, side: Side) -> NDArray[np.int64]:
        """Return the number of pairs of every node."""
        return np.diff(mapped(self.folder / f"pairs.{'' if side == 'user' else 'item_'}indptr.npy"))

    def macro(self, r: int, side: Side) -> NDArray[np.int32]:
        """Map the macro node of every node at a resolution."""
        return mapped(self.folder / f"r{r}.{side}_macro.npy")

    def saved_edges(self, r: int, side: Side) -> edges.SparseEdges:
        """Map the 1st-order edges at a resolution."""
        return edges.SparseEdges.read(lambda name: mapped(self.folder / f"{name}.npy"), f"r{r}.{side}_edges")

    def read(self, side: Side, reading: Reading, advance: Advance) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order."""
        return self.plan.engine.read(self.folder, self.work, side, reading, advance)

    def _write(self, parts: Iterable[dict[str, NDArray]], names: Mapping[str, str], work: str) -> None:
        """Write what a reading makes of all blocks.

        Args:
            parts: Of the blocks, in order.
            names: Files of the arrays that are kept. The others go to the work folder.
            work: Start of their names there.
        """
        with ArrayFolder(self.folder) as out, ArrayFolder(self.work) as rest:
            for part in parts:
                out.append({names[name]: array for name, array in part.items() if name in names})
                rest.append({f"{work}.{name}": array for name, array in part.items() if name not in names})

    def read_own_pairs(self, advance: Advance) -> None:
        """Sum and count the own pairs of every node, find its recent neighbours, and sort pairs by item on
        the way.
        """
        plan = self.plan
        own = partial(
            own_pairs,
            scores=plan.scores,
            tasks=len(plan.ranks),
            recents=plan.settings.recents,
            end=(self.cut + 1) * plan.bucket,
        )
        parts: dict[Side, Iterator[dict[str, NDArray]]] = {
            "user": self.read("user", own, advance),
            "item": plan.engine.sort_by_item(self.folder, self.work, own, advance),
        }
        for side, blocks in parts.items():
            recent = f"recent_{OTHER[side]}s"
            names = {"recent": recent, "recent_task_mask": f"{recent}_task_mask"}
            names |= {name: f"{side}_{name}" for name in ("first", "last", "total", "again", "ages")}
            self._write(blocks, names, side)
        check_overflow(*(self.sums(side) for side in SIDES))
        for side in SIDES:
            done, events = (mapped(self.work / f"{side}.{name}.npy") for name in ("done", "events"))
            last = mapped(self.folder / f"{side}_last.npy")
            total, degree = self.sums(side), self.degree(side)
            share = task_share(done.sum(axis=0, dtype=np.int64), int(degree.sum()))
            with ArrayFolder(self.folder) as out:
                for first in range(0, max(1, len(degree)), NODES_AT_ONCE):
                    rows = slice(first, first + NODES_AT_ONCE)
                    idle = np.where(degree[rows] > 0, self.cut - last[rows] // plan.bucket, 0)
                    counts = node_counts(done[rows], degree[rows], events[rows], idle, share)
                    out.append({f"{side}_counts": counts, f"{side}_sum": edges.to_units(total[rows], UNIT)})

    def find_links(self, advance: Advance) -> None:
        """Write how items are tied to others through the latest pairs of a sample of the users."""
        rows = PairRows.by_user(self.folder)
        pairs = rows.indptr, rows.other, rows.task_mask, rows.time
        latest = latest_rows(*pairs, self.plan.scores / UNIT, self.sample()[0])
        both = LatestPairs.of(latest, len(self.sums("item")))
        found = cosine_links(both, MOST_LINKS, available_threads()).by_item()
        save_arrays(self.folder, dict(zip(LINKS, found, strict=True)))

    def find_sketch(self, advance: Advance) -> None:
        """Write what projects users, and the item vectors that need no projection.

        The sketch is learned from a sample of the users. If that holds all users, items need no projection.
        """
        if self.kept:
            arrays = {name: mapped(self.kept / f"{name}.npy") for name in ("basis", "singular", "basis_sum")}
            given = mapped(self.kept / "item_vectors.npy")
        else:
            s, (users, share) = self.plan.settings, self.sample()
            sums = self.sums("user")
            if users is not None:
                sums = sums[users]
            matrix = score_matrix(
                PairRows.by_user(self.folder).some(users),
                self.plan.scores,
                sums,
                self.sums("item"),
                s.normalize,
            )
            found = sketch(matrix, s.rank, s.power_iterations, s.scale, s.seed, share, available_threads())
            arrays = {"basis": found.basis, "singular": found.singular, "basis_sum": self.sums("item")}
            given = found.items if users is None else found.basis[:0]
        save_arrays(self.folder, arrays)
        save_arrays(self.work, {"given_vectors": given})

    def sample(self) -> tuple[NDArray[np.int64] | None, float]:
        """Return the users to learn from, ascending (None: all), and their share of those with edges."""
        linked, most = np.flatnonzero(self.degree("user")), self.plan.settings.sample
        if len(linked) <= most:
            return None, 1.0
        drawn = np.random.default_rng(self.plan.settings.seed).choice(linked, most, replace=False)
        return np.sort(drawn), most / len(linked)

    def project(self, advance: Advance) -> None:
        """Write the vectors of all users, and of the items that were not given one."""
        basis, singular = (mapped(self.folder / f"{name}.npy") for name in ("basis", "singular"))
        found = Sketch(basis, singular, self.plan.settings.scale)
        given, basis_sums = mapped(self.work / "given_vectors.npy"), mapped(self.folder / "basis_sum.npy")
        projected = self._projected("user", basis_sums, basis, found.stretch, advance)
        self._write(projected, {"vectors": "user_vectors"}, "user")
        with ArrayFolder(self.folder) as out:
            out.append({"item_vectors": given})
            if len(given) == len(self.sums("item")):
                advance(self.pairs)
                return
            users, first = mapped(self.folder / "user_vectors.npy"), 0
            inverse = divided(np.ones_like(singular), singular)
            for part in self._projected("item", self.sums("user"), users, inverse, advance):
                out.append({"item_vectors": part["vectors"][max(0, len(given) - first) :]})
                first += len(part["vectors"])

    def _projected(
        self,
        side: Side,
        other_sums: NDArray[np.int64],
        vectors: NDArray[np.float32],
        stretch: NDArray[np.float32],
        advance: Advance,
    ) -> Iterator[dict[str, NDArray]]:
        reading = partial(
            projected,
            scores=self.plan.scores / UNIT,
            sums=self.sums(side) / UNIT,
            other_sums=other_sums / UNIT,
            vectors=vectors,
            stretch=stretch,
            normalize=self.plan.settings.normalize,
        )
        return self.read(side, reading, advance)

    def find_macro_nodes(self, advance: Advance) -> None:
        """Write the macro node of every node at every resolution, and the chances by which later nodes find
        theirs. They are learned from a sample of the users, kept, or random groups.
        """
        kept = self.kept or (None if self.plan.settings.refresh else self.previous)
        pairs: dict[Side, PairRows] = {}
        starts: dict[Side, list[NDArray[np.int32]]] = {}
        if kept is None:  # the pairs of the sampled users, in memory
            pairs["user"] = PairRows.by_user(self.folder).some(self.sample()[0])
            pairs["item"] = pairs["user"].transposed(len(self.sums("item")))
            starts = {side: self._starts(side) for side in SIDES}
        for r, sizes in enumerate(self.plan.sizes):
            k: dict[Side, int] = dict(zip(SIDES, sizes, strict=True))
            macro, chances = (
                self._learned_nodes(k, {side: starts[side][r] for side in SIDES}, pairs, advance)
                if kept is None
                else self._kept_nodes(r, k, kept, advance)
            )
            save_arrays(self.folder, {f"r{r}.{side}_macro": macro[side] for side in SIDES})
            save_arrays(self.folder, {f"r{r}.{side}_chances": chances[side] for side in SIDES})

    def _learned_nodes(
        self, k: dict[Side, int], macro: Macro, pairs: dict[Side, PairRows], advance: Advance
    ) -> tuple[Macro, Macro]:
        """Settle on the sampled users, then place every node; users last, so that their edges agree."""
        s, users = self.plan.settings, self.sample()[0]
        start: Macro = macro if users is None else {**macro, "user": macro["user"][users]}
        random = s.clusters == "random"
        settled, chances = likelihood.reassign(pairs, start, k, self.plan.scores, 0 if random else s.rounds)
        if random:
            advance(3 * self.pairs)
            return macro, chances
        if users is None:
            advance(self.pairs)
        sides: tuple[Side, ...] = ("item", "user") if users is None else ("user", "item", "user")
        for side in sides:
            settled[side] = self._placed(side, settled[OTHER[side]], chances[side], advance)
        return settled, chances

    def _starts(self, side: Side) -> list[NDArray[np.int32]]:
        """Return the macro node whose centre is closest to each node's vector, at every resolution."""
        s, linked = self.plan.settings, self.sums(side) > 0
        sizes = [size[SIDES.index(side)] for size in self.plan.sizes]
        if s.clusters == "random":
            return [self._random(side, k) for k in sizes]
        previous = self.previous and [
            mapped(self.previous / f"r{r}.{side}_macro.npy") for r in range(len(sizes))
        ]
        vectors = mapped(self.folder / f"{side}_vectors.npy")
        preference = clusters.preference_weights(self.sums(side), s.threshold)
        weights = clusters.moving_weights(preference, linked, max(sizes))
        centers = clusters.learn_centers(vectors, weights, sizes, previous, s.seed, s.sample)
        return clusters.assign(vectors, linked, centers)

    def _random(self, side: Side, k: int) -> NDArray[np.int32]:
        return clusters.random_groups(self.sums(side) > 0, k, (self.plan.settings.seed, SIDES.index(side)))

    def _kept_nodes(self, r: int, k: dict[Side, int], kept: Path, advance: Advance) -> tuple[Macro, Macro]:
        """Keep former macro nodes. New nodes, users first, join the one that ties them best to nodes that
        have one.

        Users whose items are all new wait for these. A node that is tied to new nodes alone joins the first
        macro node.
        """
        chances: Macro = {side: mapped(kept / f"r{r}.{side}_chances.npy") for side in SIDES}
        linked = {side: self.sums(side) > 0 for side in SIDES}
        macro: Macro = {
            side: clusters.keep(mapped(kept / f"r{r}.{side}_macro.npy"), linked[side], k[side])
            for side in SIDES
        }
        for side in (*SIDES, *SIDES):
            new = linked[side] & (macro[side] == k[side])
            if self.plan.settings.clusters == "random":
                macro[side][new] = self._random(side, k[side])[new]
            elif new.any():
                macro[side][new] = self._placed(side, macro[OTHER[side]], chances[side])[new]
        for side in SIDES:
            macro[side][linked[side] & (macro[side] == k[side])] = 0
        advance(3 * self.pairs)
        return macro, chances

    def _placed(
        self,
        side: Side,
        macro: NDArray[np.int32],
        chances: NDArray[np.int32],
        advance: Advance = lambda pairs: None,
    ) -> NDArray[np.int32]:
        """Return the macro node that ties every node of a side best to the macro nodes of the other."""
        reading = partial(likelihood.placed, scores=self.plan.scores, other_macro=macro, chances=chances)
        return np.concatenate([part["macro"] for part in self.read(side, reading, advance)])

    def read_first_order(self, advance: Advance) -> None:
        """Write 1st-order edges at every resolution, and the task table and dense edges at one."""
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

    def _write_edges(
        self, r: int, side: Side, macro: NDArray[np.int32], width: int, advance: Advance
    ) -> None:
        """Write the edges of one side; and for the drift, where users are likeliest."""
        drifts = side == "user" and self.plan.settings.clusters != "random"
        reading = partial(
            likelihood.read_first_order,
            scores=self.plan.scores,
            macro=macro,
            width=width,
            score_type=edges.type_of_scores(int(self.sums(side).max(initial=0))),
            tasks=len(self.plan.ranks) if r == self.plan.dense else 0,
            chances=mapped(self.folder / f"r{r}.user_chances.npy") if drifts else None,
        )
        names = {name: f"r{r}.{side}_edges.{name}" for name in ("macro", "score")}
        names |= {"table": f"{side}_table", "dense": f"{side[0]}1"}
        self._write(self.read(side, reading, advance), names, f"r{r}.{side}")
        degree = mapped(self.work / f"r{r}.{side}.degree.npy")
        save_arrays(self.folder, {f"r{r}.{side}_edges.indptr": starts(degree)})

    def read_second_order(self, advance: Advance) -> None:
        """Write 2nd-order edges: to the own macro node at every resolution, all of them at one; and their
        sums.
        """
        for side in SIDES:
            reading = partial(edges.second_sums, scores=self.plan.scores, sums=self.sums(OTHER[side]))
            self._write(self.read(side, reading, advance), {}, side)
            sums = mapped(self.work / f"{side}.second_sum.npy")
            save_arrays(self.folder, {f"{side}_second_sum": edges.to_units(sums, UNIT**2)})
        for r, sizes in enumerate(self.plan.sizes):
            for side, width in zip(SIDES, sizes, strict=True):
                self._second_order(r, side, width, advance)

    def count_exposures(self, advance: Advance) -> None:
        """Write the cells of every group of exposures."""
        assert self.plan.rates is not None
        macro: dict[tuple[Side, int], NDArray[np.int32]] = {
            (side, r): self.macro(r, side) for side in SIDES for r in range(len(self.plan.sizes))
        }
        sizes: dict[Side, int] = {side: len(self.degree(side)) for side in SIDES}
        self.plan.rates.count(self.folder, self.work, self.cut, macro, sizes, advance)

    def place(self, advance: Advance) -> None:
        """Write what nodes read with their content, as learned from this snapshot, or as it was kept."""
        for side, content in self.plan.content.items():
            parts = range(len(self.plan.sizes))
            chances = [mapped(self.folder / f"r{r}.{side}_chances.npy") for r in parts]
            gather = partial(
                SomeNodes.of,
                content=content,
                sums=self.sums(side),
                vectors=mapped(self.folder / f"{side}_vectors.npy"),
                edges=[self.saved_edges(r, side) for r in parts],
                macro=[self.macro(r, side) for r in parts],
                sizes=[table.shape[::-1] for table in chances],
            )
            files = [f"{side}_placed.{name}" for name in Placing._fields]
            if self.kept and (self.kept / f"{files[0]}.npy").exists():
                placing = Placing(*(mapped(self.kept / f"{file}.npy") for file in files))
            else:
                masses = [mapped(self.folder / f"r{r}.{OTHER[side]}_mass.npy") for r in parts]
                both = content[: len(self.sums(side))].any(axis=1) & (self.sums(side)[: len(content)] > 0)
                placing = Placing.fit(gather, np.flatnonzero(both), masses, self.plan.dense)
            save_arrays(self.folder, dict(zip(files, placing, strict=True)))
            with ArrayFolder(self.folder) as out:
                for first in range(0, end := max(1, len(content), len(self.sums(side))), ROWS):
                    some = gather(np.arange(first, min(first + ROWS, end)))
                    read = placing.read(some, chances, self.plan.dense)
                    out.append(
                        {
                            f"{side}_placed.{name}": array
                            for name, array in read.items()
                            if not name.startswith("edges")
                        }
                    )

    def _second_order(self, r: int, side: Side, width: int, advance: Advance) -> None:
        own, other = self.macro(r, side), self.saved_edges(r, OTHER[side])
        second_sums, dense, matrix = mapped(self.work / f"{side}.second_sum.npy"), r == self.plan.dense, None
        if dense:
            most, back = int(second_sums.max(initial=0)), int(self.sums(side).max(initial=0))
            largest = most + back * int(self.plan.scores.max())
            memory = int(self.plan.engine.memory * MATRIX_SHARE * GIB)
            kind = edges.use_matrix(other, self.degree(OTHER[side]), width, largest, memory)
            matrix = other.dense(width, kind) if kind else None
        reading = partial(
            edges.read_second_order,
            scores=self.plan.scores,
            edges=other,
            own=own,
            width=width,
            dense=dense,
            matrix=matrix,
        )
        names = {"own": f"r{r}.{side}_second", "dense": f"{side[0]}2"}
        self._write(self.read(side, reading, advance), names, side)
        mass = edges.by_macro(own, second_sums, width, np.float64)
        save_arrays(self.folder, {f"r{r}.{side}_second_mass": edges.to_units(mass, UNIT**2)})
