"""The stages of a snapshot, in their order. Every stage reads files and writes files, so that a build which was cut off goes on."""

from __future__ import annotations

from pathlib import Path

from mgoe.graph.build.learned import Learned
from mgoe.graph.build.macro_nodes import find_macro_nodes
from mgoe.graph.build.snapshot_builder import SnapshotBuild
from mgoe.graph.engines.engine import Assembler


def assemble(
    assembler: Assembler,
    number: int,
    folder: Path,
    work: Path,
    cut: int,
    before: Path | None,
    learned: Learned | None,
) -> None:
    """Write everything that a model reads as of one moment.

    Args:
        assembler: Of the graph.
        number: Of the snapshot.
        folder: Where its pairs lie and its arrays go.
        work: For arrays that only the build reads.
        cut: Last bucket of the snapshot.
        before: The snapshot before, whose macro nodes are the start of this one's.
        learned: Macro nodes to keep, instead of learning them.
    """
    at = SnapshotBuild(assembler, number, folder, work, cut)
    n, resolutions = at.pairs, len(assembler.sizes)
    at.run("nodes", 2 * n, at.read_nodes)
    at.run("sketch", 0, lambda advance: at.learn_sketch() if learned is None else at.keep_sketch(learned))
    at.run("vectors", 2 * n, at.project)
    at.run("clusters", 3 * n * resolutions, lambda advance: find_macro_nodes(at, before, learned, advance))
    at.run("1st order", 2 * n * resolutions, at.read_first_order)
    at.run("2nd order", 2 * n * (resolutions + 1), at.read_second_order)
