"""Building a macro graph: history in, one folder of snapshots out.

Task codes of all snapshots come from one pass over the log, in its own engine. Then each snapshot in turn starts from the macro nodes of
the one before. Nothing a snapshot holds depends on later events.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.assemble import Assembler, Stages
from mgoe.graph.macro_graph import FORMAT, MacroGraph
from mgoe.graph.pairs import Pairs, pair_steps, pairs_at, read_steps
from mgoe.graph.scores import UNIT, check_overflow, merging_score, score_table

AUTO_RESOLUTIONS = ((6, 8), (12, 20), (25, 50), (100, 100), (300, 300))
NODES_A_MACRO_NODE = 10
"""`auto` keeps a resolution only where the first snapshot has so many nodes a macro node."""


def build_graph(
    history: ir.Table,
    cuts: NDArray[np.int32],
    users_at: NDArray[np.int64],
    items_at: NDArray[np.int64],
    ranks: Sequence[float],
    settings: GraphSettings,
    out: Path,
    report: Callable[[str], None] = lambda stage: None,
) -> MacroGraph:
    """Build every snapshot and save the graph.

    Args:
        history: One row an event and task: `user`, `item`, `time`, `bucket`, `snapshot`, `task`.
        cuts: Last bucket of each snapshot but the latest. Shape (n,).
        users_at, items_at: Nodes known at each snapshot. Shape (n + 1,).
        ranks: Of the tasks, weakest first. Shape (T,).
        settings: Of the graph.
        out: Folder to write; it appears only when it is whole.
        report: Called with the name of each stage as it starts.

    Raises:
        GraphError: There is no history, an explicit number of macro nodes exceeds the nodes, or a sum would overflow.
    """
    stages = Stages(report)
    scores = score_table(np.asarray(ranks, float), settings.beta, settings.code)
    with whole(out) as folder:
        with stages("scores"):
            file = folder / "steps.parquet"
            pair_steps(history, len(users_at), scores).to_parquet(file)
            steps = read_steps(file)
        if len(steps["user"]) == 0:
            raise GraphError("graph", "there is no history to build from: no event of any task lies in the log")
        snapshots = [Pairs.at(steps, s, int(users), int(items)) for s, (users, items) in enumerate(zip(users_at, items_at, strict=True))]
        check_overflow(*(snapshots[-1].sums[side] * UNIT for side in ("user", "item")))
        last = [*map(int, cuts), int(steps["bucket"].max())]
        sizes = choose_resolutions(settings, *(int((snapshots[0].sums[side] > 0).sum()) for side in ("user", "item")))
        assembler = Assembler(settings, len(ranks), sizes, min(settings.dense, len(sizes) - 1), stages)
        engine = ibis.duckdb.connect()
        table, before = engine.read_parquet(file), None
        for s, pairs in enumerate(snapshots):
            before = assembler.snapshot(pairs, pairs_at(table, s), last[s], before)
            with stages("saving"):
                before.save(folder / "snapshots" / f"{s:02d}")
        engine.disconnect()
        file.unlink()
        meta = {
            "format": FORMAT,
            "settings": settings.model_dump(mode="json"),
            "ranks": list(ranks),
            "code_scores": merging_score(np.arange(len(scores)), np.asarray(ranks, float), settings.beta, settings.code).tolist(),
            "resolutions": [list(size) for size in sizes],
            "dense": assembler.dense,
            "cuts": last,
            "users": users_at.tolist(),
            "items": items_at.tolist(),
            "pairs": [len(pairs) for pairs in snapshots],
            "seconds": {name: round(value, 3) for name, value in stages.seconds.items()},
        }
        (folder / "graph.json").write_text(json.dumps(meta, indent=1))
    return MacroGraph.open(out)


def choose_resolutions(settings: GraphSettings, users: int, items: int) -> tuple[tuple[int, int], ...]:
    """Numbers of macro nodes, from the size of the first snapshot, so that later events do not change them.

    Args:
        settings: Of the graph.
        users, items: Nodes with history at the first snapshot.

    Raises:
        GraphError: An explicit number exceeds the nodes.
    """
    if settings.resolutions == "auto":
        fits = [size for size in AUTO_RESOLUTIONS if size[0] * NODES_A_MACRO_NODE <= users and size[1] * NODES_A_MACRO_NODE <= items]
        small = (max(1, min(6, users // 3)), max(1, min(8, items // 3)))
        return tuple(fits) or (small,)
    for ku, ki in settings.resolutions:
        for name, k, n in (("user", ku, users), ("item", ki, items)):
            if k < 1:
                raise GraphError("graph.resolutions", f"needs at least one {name} macro node, found {k}")
            if k > n:
                raise GraphError(
                    "graph.resolutions",
                    f"{k} {name} macro nodes are more than the {n} {name}s of the first snapshot; ask for fewer, or `auto`",
                )
    return tuple(settings.resolutions)


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write to, which takes its place when all went well and is removed otherwise."""
    folder = out.with_name(out.name + ".partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        shutil.rmtree(out, ignore_errors=True)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
