"""Building a macro graph: history in, one folder of snapshots out.

For each snapshot: pairs, sketch, macro nodes at every resolution (warm-started from the snapshot before), edges, neighbours, counts.
Only the first step and the 1st-order sums touch the log's engine; the rest is arrays.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph import clusters, edges, neighbours
from mgoe.graph.counts import node_counts
from mgoe.graph.macro_graph import FORMAT, MacroGraph
from mgoe.graph.pairs import Pairs, pair_steps, pairs_at, read_steps
from mgoe.graph.scores import UNIT, check_overflow, merging_score, score_table
from mgoe.graph.sketch import Sketch, score_matrix, sketch
from mgoe.graph.snapshot import Resolution, Snapshot

AUTO_RESOLUTIONS = ((6, 8), (12, 20), (25, 50), (100, 100), (300, 300))
NODES_A_MACRO_NODE = 10
"""`auto` keeps a resolution only where the first snapshot has so many nodes a macro node."""
Macro = dict[str, NDArray[np.int32]]


@dataclass
class Stages:
    """Seconds spent in each stage, over all snapshots."""

    report: Callable[[str], None] = lambda stage: None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.report(name)
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


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
    table = score_table(np.asarray(ranks, float), settings.beta, settings.code)
    snapshots = len(users_at)
    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with stages("scores"):
        expression = pair_steps(history, snapshots, table)
        file = temporary / "steps.parquet"
        expression.order_by(["user", "item", "since"]).to_parquet(file)
        steps_table = ibis.duckdb.connect().read_parquet(file)
        steps = read_steps(steps_table)
    if len(steps["user"]) == 0:
        raise GraphError("graph", "there is no history to build from: no event of any task lies in the log")
    last_cuts = [*map(int, cuts), int(steps["bucket"].max())]
    first = Pairs.at(steps, 0, int(users_at[0]), int(items_at[0]))
    sizes = choose_resolutions(settings, len(np.unique(first.user)), len(np.unique(first.item)))
    dense = min(settings.dense, len(sizes) - 1)
    before: list[Macro | None] = [None] * len(sizes)
    for s in range(snapshots):
        pairs = Pairs.at(steps, s, int(users_at[s]), int(items_at[s]))
        check_overflow(np.bincount(pairs.user, pairs.score), np.bincount(pairs.item, pairs.score), "graph.beta")
        with stages("sketch"):
            vectors = sketch_of(pairs, settings)
        arrays = node_arrays(pairs, vectors, steps, s, last_cuts[s], len(ranks), settings, stages)
        parts = []
        for r, (ku, ki) in enumerate(sizes):
            with stages("clusters"):
                macro, centres = macro_nodes(pairs, vectors, ku, ki, before[r], settings, first=s == 0)
            before[r] = macro
            part, extra = resolution(pairs, pairs_at(steps_table, s), macro, centres, ku, ki, stages, dense=r == dense)
            parts.append(part)
            arrays |= extra
        with stages("neighbours"):
            for side, other, width in (("user", "item", sizes[dense][1]), ("item", "user", sizes[dense][0])):
                macro = before[dense] or {}
                arrays[f"{side}_table"] = neighbours.task_table(pairs, side, macro[other], width, len(ranks))
        with stages("saving"):
            Snapshot(arrays, tuple(parts), dense, last_cuts[s]).save(temporary / "snapshots" / f"{s:02d}")
    file.unlink()
    meta = {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json"),
        "ranks": list(ranks),
        "code_scores": merging_score(np.arange(len(table)), np.asarray(ranks, float), settings.beta, settings.code).tolist(),
        "resolutions": [list(size) for size in sizes],
        "dense": dense,
        "cuts": last_cuts,
        "users": users_at.tolist(),
        "items": items_at.tolist(),
        "pairs": [int(((steps["since"] <= s) & (steps["until"] > s)).sum()) for s in range(snapshots)],
        "seconds": {name: round(value, 3) for name, value in stages.seconds.items()},
    }
    (temporary / "graph.json").write_text(json.dumps(meta, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
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


def sketch_of(pairs: Pairs, settings: GraphSettings) -> Sketch:
    """The sketch of a snapshot, padded to the rank of the settings so that every snapshot reads alike."""
    users, items = len(pairs.indptr) - 1, len(pairs.item_indptr) - 1
    out = Sketch(
        np.zeros((users, settings.rank), np.float32), np.zeros((items, settings.rank), np.float32), np.zeros(settings.rank, np.float32)
    )
    if len(pairs):
        found = sketch(score_matrix(pairs, settings.normalize), settings.rank, settings.power_iterations, settings.scale, settings.seed)
        rank = len(found.singular)
        out.users[:, :rank], out.items[:, :rank], out.singular[:rank] = found.users, found.items, found.singular
    return out


def macro_nodes(
    pairs: Pairs, vectors: Sketch, ku: int, ki: int, before: Macro | None, settings: GraphSettings, first: bool
) -> tuple[Macro, dict[str, NDArray[np.float32]]]:
    """Macro nodes of both sides, and their centres."""
    macro: Macro = {}
    centres: dict[str, NDArray[np.float32]] = {}
    for side, rows, k in (("user", vectors.users, ku), ("item", vectors.items, ki)):
        sums = np.bincount(getattr(pairs, side), pairs.score, len(rows)).astype(np.int64)
        start = before[side] if before else None
        if settings.clusters == "random":
            macro[side], centres[side] = (
                clusters.random_groups(len(rows), k, sums > 0, settings.seed),
                np.zeros((k, rows.shape[1]), np.float32),
            )
        elif start is not None and not settings.refresh and not first:
            macro[side], centres[side] = clusters.keep(rows, start, k)
        else:
            weights = clusters.preference_weights(sums, settings.threshold, settings.low_weight)
            macro[side], centres[side] = clusters.cluster(rows, weights, k, start, settings.iterations, settings.seed)
    return macro, centres


def node_arrays(
    pairs: Pairs, vectors: Sketch, steps: dict[str, NDArray], s: int, cut: int, tasks: int, settings: GraphSettings, stages: Stages
) -> dict[str, NDArray]:
    """Everything a snapshot holds a node that does not depend on macro nodes."""
    users, items = len(pairs.indptr) - 1, len(pairs.item_indptr) - 1
    score = pairs.score / UNIT
    sums = {"user": np.bincount(pairs.user, score, users), "item": np.bincount(pairs.item, score, items)}
    second = {
        "user": np.bincount(pairs.user, score * (sums["item"][pairs.item] - score), users),
        "item": np.bincount(pairs.item, score * (sums["user"][pairs.user] - score), items),
    }
    arrays: dict[str, NDArray] = {
        "pairs.indptr": pairs.indptr,
        "pairs.item": pairs.item.astype(np.int32),
        "pairs.code": pairs.code.astype(np.int32),
        "pairs.bucket": pairs.bucket,
        "user_vectors": vectors.users,
        "item_vectors": vectors.items,
        "singular": vectors.singular,
    }
    with stages("neighbours"):
        arrays["recent_items"], arrays["recent_items_code"] = neighbours.recent(pairs, "user", settings.recents)
        arrays["recent_users"], arrays["recent_users_code"] = neighbours.recent(pairs, "item", settings.recents)
    with stages("counts"):
        for side in ("user", "item"):
            arrays[f"{side}_counts"], _ = node_counts(pairs, steps, s, cut, side, tasks)
            arrays[f"{side}_sum"] = sums[side].astype(np.float32)
            arrays[f"{side}_second_sum"] = second[side].astype(np.float32)
    return arrays


def resolution(
    pairs: Pairs, table: ir.Table, macro: Macro, centres: dict[str, NDArray[np.float32]], ku: int, ki: int, stages: Stages, dense: bool
) -> tuple[Resolution, dict[str, NDArray]]:
    """Edges of one resolution, and the dense matrices where the experts read it."""
    with stages("1st order"):
        u1 = edges.read_edges(edges.first_order(table, edges.members_table(macro["item"]), "user", "item"), len(macro["user"]))
        i1 = edges.read_edges(edges.first_order(table, edges.members_table(macro["user"]), "item", "user"), len(macro["item"]))
    extra: dict[str, NDArray] = {}
    with stages("2nd order"):
        if dense:
            u1_dense, i1_dense = u1.dense(ki), i1.dense(ku)
            u2 = edges.second_order(pairs, i1_dense, macro["user"], "user")
            i2 = edges.second_order(pairs, u1_dense, macro["item"], "item")
            extra = {"u1": _scores(u1_dense, UNIT), "i1": _scores(i1_dense, UNIT), "u2": _scores(u2, UNIT**2), "i2": _scores(i2, UNIT**2)}
        user_second = edges.second_order_own(pairs, i1, macro["user"], "user")
        item_second = edges.second_order_own(pairs, u1, macro["item"], "item")
    masses = edges.masses(pairs, macro, ku, ki)
    return (
        Resolution(
            user_macro=macro["user"],
            item_macro=macro["item"],
            user_edges=(u1.indptr, u1.macro, _scores(u1.score, UNIT)),
            item_edges=(i1.indptr, i1.macro, _scores(i1.score, UNIT)),
            user_second=_scores(user_second, UNIT**2),
            item_second=_scores(item_second, UNIT**2),
            **masses,
            user_centres=centres["user"],
            item_centres=centres["item"],
        ),
        extra,
    )


def _scores(fixed: NDArray[np.int64], unit: int) -> NDArray[np.float32]:
    return (fixed / unit).astype(np.float32)
