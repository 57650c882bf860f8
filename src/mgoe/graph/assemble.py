"""What makes the snapshots of one graph, and the order of a snapshot's stages. Every stage reads files and writes files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe.arrays import mapped
from mgoe.config import GraphSettings
from mgoe.graph.blocks import Reading, Side
from mgoe.graph.learned import Learned
from mgoe.graph.macro_nodes import find_macro_nodes
from mgoe.graph.pairs import Moments
from mgoe.graph.snapshot_build import SnapshotBuild
from mgoe.graph.stages import Advance, Stages


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
        at = SnapshotBuild(self, number, folder, work, cut)
        n = at.pairs
        at.run("nodes", 2 * n, at.read_nodes)
        at.run("sketch", 0, lambda advance: at.learn_sketch() if learned is None else at.keep_sketch(learned))
        at.run("vectors", 2 * n, at.project)
        at.run("clusters", 3 * n * len(self.sizes), lambda advance: find_macro_nodes(at, before, learned, advance))
        at.run("1st order", 2 * n * len(self.sizes), at.read_first_order)
        at.run("2nd order", 2 * n * (len(self.sizes) + 1), at.read_second_order)

    def drift(self, work: Path) -> list[float]:
        """How far users have drifted from their macro nodes, by resolution."""
        return [float(mapped(work / f"r{r}.drift.npy")) for r in range(len(self.sizes))]
