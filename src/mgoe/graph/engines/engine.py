"""The engine of a build: where its pairs are sorted, and where its readings run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
from numpy.typing import NDArray

from mgoe.config import GraphSettings
from mgoe.graph.build.stages import Advance
from mgoe.graph.fold import SnapshotCuts
from mgoe.graph.pair_rows import Reading, Side


class Engine(Protocol):
    """Sorts pairs, and runs readings over them."""

    name: str

    def write_pairs(
        self, history: ir.Table, cuts: SnapshotCuts, tasks: int, folders: list[Path], advance: Advance
    ) -> None:
        """Fold the history into the pairs of every snapshot, by user."""
        ...

    def sort_by_item(
        self, snapshot: Path, work: Path, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Sort the pairs of a snapshot by item, and yield what a reading makes of every block on the way.

        Only here does a block by item hold times.
        """
        ...

    def read(
        self, snapshot: Path, work: Path, side: Side, reading: Reading, advance: Advance
    ) -> Iterator[dict[str, NDArray]]:
        """Yield what a reading makes of every block of one side, in order."""
        ...


def open_engine(settings: GraphSettings, folder: Path) -> AbstractContextManager[Engine]:
    """Return the engine that the settings ask for, until the build in a folder ends."""
    if settings.engine == "spark":
        from mgoe.graph.engines.spark import Spark

        return Spark(folder, settings)
    from mgoe.graph.engines.local import Local

    return nullcontext(Local(settings.memory))
