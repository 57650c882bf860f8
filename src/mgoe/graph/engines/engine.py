"""Where the pairs of a graph lie, and what the building of all its snapshots has in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped
from mgoe.config import GraphSettings
from mgoe.graph.build.stages import Advance, Stages
from mgoe.graph.fold import SnapshotCuts
from mgoe.graph.pair_rows import Reading, Side


class Engine(Protocol):
    """Where pairs lie and readings run."""

    name: str

    def write_pairs(
        self, history: ir.Table, moments: SnapshotCuts, tasks: int, folders: list[Path], advance: Advance
    ) -> None:
        """Fold the history into the pairs of every snapshot, by user."""
        ...

    def turn(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Bring the pairs of a snapshot in the order of item; a reading by item on the way, in the order of items, times included."""
        ...

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """A reading of all nodes of one side, in order."""
        ...


@dataclass(frozen=True)
class Assembler:
    """What the snapshots of one graph are made with.

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

    def drift(self, work: Path) -> list[float]:
        """How far users have drifted from their macro nodes, by resolution."""
        return [float(mapped(work / f"r{r}.drift.npy")) for r in range(len(self.sizes))]
