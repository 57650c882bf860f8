"""What the snapshots of one graph have in common while it is built, and where each is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe.config import GraphSettings
from mgoe.graph.build.rate_counter import RatePlan
from mgoe.graph.build.workplace import Stages
from mgoe.graph.engines.local import Engine
from mgoe.graph.pair_rows import Side
from mgoe.graph.scores import score_table


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
        rates: How exposures are counted; None without them.
        content: What nodes of a side are about, see `KnownNodes`.
    """

    folder: Path
    settings: GraphSettings
    ranks: Sequence[float]
    bucket: int
    sizes: tuple[tuple[int, int], ...]
    stages: Stages
    engine: Engine
    rates: RatePlan | None = None
    content: Mapping[Side, NDArray[np.float32]] = field(default_factory=dict)

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
