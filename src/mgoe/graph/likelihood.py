"""Placing nodes by their own pairs: in the macro node that ties a node best (ours), and in the sketch.

The score of a macro node's members is split among the macro nodes of the other side in certain shares. A node
with edges `n_k` belongs where `sum_k n_k log(share_k)` is largest: the likelihood of its edges if they were
drawn by those shares. For a node with few edges a sketch holds little but noise, while the shares are sums
over all members. So macro nodes start from the sketch. Then a sample of users and the items move in turn to
where they are likeliest, until few still move. Every node, and any that comes later, is placed by the same
rule from its edges alone. All sums are of integers, logarithms included: the same in any order, on any
engine, with any number of threads.

A node that a snapshot has not placed gets a vector too. With `S = P Sigma Q^T`, users are stored as
`S Q Sigma^(scale - 1)`. So a user's vector is the sum, over the user's own pairs, of score times a row of
`Q`, times a stretch: a user with pairs can be placed without the rest of the graph. Since `S^T P = Q Sigma`,
an item's vector is the sum of score times user vector, divided by `Sigma`, as exactly as the power steps have
converged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import log
from mgoe.graph.edges import SparseEdges, between, first_order, log_scores
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.pair_rows import OTHER, PairRows, Side, available_threads
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import Sketch, divided, projected
from mgoe.graph.task_table import task_table

FRACTION_BITS = 10
"""Log shares are kept as integers of 2^-10."""
NEVER = -(1 << 17)
"""Log share of a macro node without members; real ones are above -45 x 2^10."""
SETTLED = 0.01
"""A round in which a smaller share of the nodes moves is the last."""


def placed(
    block: PairRows, scores: NDArray[np.int64], other_macro: NDArray[np.int32], chances: NDArray[np.int32]
) -> dict[str, NDArray]:
    """Read the macro node that ties each node best; the lowest of equals.

    Pairs with cold nodes do not count, and a node without other pairs stays cold.

    Args:
        block: Of n nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        other_macro: Macro node of each node of the other side; number `other K` is the cold node. Shape (I,)
            or (U,).
        chances: Of `log_chances`. Shape (other K, K).

    Returns:
        `macro` (n,); number `K` is the cold node.
    """
    edges = first_order(block, scores, other_macro, len(chances))
    return {"macro": likeliest(edges, chances)}


def read_first_order(
    block: PairRows,
    scores: NDArray[np.int64],
    macro: NDArray[np.int32],
    width: int,
    score_type: type[np.integer],
    tasks: int,
    chances: NDArray[np.int32] | None = None,
) -> dict[str, NDArray]:
    """Read 1st-order edges and what follows from them; arguments as for `first_order`.

    Args:
        tasks: T if the task table and dense edges are wanted, else 0.
        chances: Of `log_chances`, if the macro node that ties each node best is wanted. Shape (other K, K).

    Returns:
        `degree`, edges of each node (n,), and `macro` and `score` of the edges. With tasks, also `table`
            (n, T) and `dense`, log1p (n, width). With chances, also `best` (n,).
    """
    edges = first_order(block, scores, macro, width, score_type)
    out = {"degree": np.diff(edges.indptr), "macro": edges.macro, "score": edges.score}
    if tasks:
        out["table"] = task_table(block, scores, macro, width, tasks)
        out["dense"] = log_scores(edges.dense(width), UNIT)
    if chances is not None:
        out["best"] = likeliest(edges, chances)
    return out


def reassign(
    rows: Mapping[Side, PairRows],
    macro: Mapping[Side, NDArray[np.int32]],
    k: Mapping[Side, int],
    scores: NDArray[np.int64],
    rounds: int,
) -> tuple[dict[Side, NDArray[np.int32]], dict[Side, NDArray[np.int32]]]:
    """Move items and users in turn to the macro node that ties them best, until few still move.

    Args:
        rows: The same pairs by user and by item.
        macro: Where nodes start; those without pairs stay.
        k: Macro nodes.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        rounds: At most; with 0, only chances are measured.

    Returns:
        Macro node of every node, and the chances by side, as `log_chances` returns them.
    """
    macro = dict(macro)
    with ThreadPoolExecutor(available_threads()) as pool:
        for _ in range(rounds):
            moved = linked = 0
            for side in ("item", "user"):
                edges, table = _edges(rows, scores, macro, k, side, pool)
                reading = partial(likeliest, chances=log_chances(table))
                best = np.concatenate(list(pool.map(reading, edges)))
                tied, before = best < k[side], macro[side]
                macro[side] = np.where(tied, best, before)
                moved, linked = moved + int((macro[side] != before).sum()), linked + int(tied.sum())
            if moved <= SETTLED * linked:
                break
        table = _edges(rows, scores, macro, k, "user", pool)[1]
    return macro, {"user": log_chances(table), "item": log_chances(table.T)}


def log_chances(table: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the log of the share of a macro node's score that goes to each macro node of the other side.

    Shares are smoothed by one unit of score each.

    Args:
        table: Fixed-point score between macro nodes. Shape (K, other K).

    Returns:
        Natural logarithms, unit 2^-10; `NEVER` for a macro node without score. Shape (other K, K).
    """
    score = table / UNIT
    share = (score + 1) / (score.sum(axis=1, keepdims=True) + table.shape[1])
    logs = np.rint(log(share) * (1 << FRACTION_BITS)).astype(np.int32)
    logs[~table.any(axis=1)] = NEVER
    return np.ascontiguousarray(logs.T)


def likeliest(edges: SparseEdges, chances: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the same as `placed`, from 1st-order edges.

    Args:
        edges: Of the nodes.
        chances: Of `log_chances`. Shape (other K, K).

    Returns:
        Shape (U,).
    """
    macro = np.full(edges.nodes, chances.shape[1], np.int32)
    _likeliest(edges, chances, macro)
    return macro


def drift(macro: NDArray[np.int32], best: NDArray[np.int32], sums: NDArray[np.integer]) -> float:
    """Return the share of all score that belongs to nodes that another macro node ties better than their own.

    It is 0 right after clustering.
    """
    total = int(sums.sum())
    return float(sums[macro != best].sum() / total) if total else 0.0


def _edges(
    rows: Mapping[Side, PairRows],
    scores: NDArray[np.int64],
    macro: Mapping[Side, NDArray[np.int32]],
    k: Mapping[Side, int],
    side: Side,
    pool: ThreadPoolExecutor,
) -> tuple[list[SparseEdges], NDArray[np.int64]]:
    """Return the 1st-order edges of one side, in blocks, and the score between its macro nodes and those of
    the other; arguments as for `reassign`."""
    blocks, other = list(rows[side].blocks()), OTHER[side]
    reading = partial(first_order, scores=scores, macro=macro[other], width=k[other])
    edges = list(pool.map(reading, blocks))
    parts = (
        between(one, block.of(macro[side]), k[side], k[other])
        for one, block in zip(edges, blocks, strict=True)
    )
    return edges, sum(parts, np.zeros((), np.int64))


@dataclass(frozen=True)
class Placement:
    """Places nodes of one side from blocks of their pairs.

    Attributes:
        scores: Fixed-point score of every task mask. Shape (2^T,).
        other_sums: Score sum of each node of the other side. Shape (I,) or (U,).
        other_vectors: Their vectors, or rows of `Q` if they are items. Shape (I, rank) or (U, rank).
        stretch: Factor of each column of a vector. Shape (rank,).
        normalize: `degree` or `none`.
        chances: Of `likelihood.log_chances`, per resolution. Shape (other K, K) each.
    """

    scores: NDArray[np.int64]
    other_sums: NDArray[np.float64]
    other_vectors: NDArray[np.float32]
    stretch: NDArray[np.float32]
    normalize: str
    chances: tuple[NDArray[np.int32], ...]

    @classmethod
    def of(cls, graph: MacroGraph, side: Side, snapshot: int = -1) -> Placement:
        """Return the placement of users or of items by a snapshot."""
        at, settings = graph.snapshots[snapshot], graph.manifest.settings
        arrays, sketch = at.arrays, Sketch(at.arrays["basis"], at.arrays["singular"], settings.scale)
        if side == "user":
            sums, vectors, stretch = arrays["basis_sum"] / UNIT, sketch.basis, sketch.stretch
        else:
            sums, vectors = arrays["user_sum"].astype(np.float64), arrays["user_vectors"]
            stretch = divided(np.ones_like(sketch.singular), sketch.singular)
        return cls(
            graph.fixed_scores,
            sums,
            vectors,
            stretch,
            settings.normalize,
            chances=tuple(getattr(part, f"{side}_chances") for part in at.resolutions),
        )

    @classmethod
    def both(
        cls, graph: MacroGraph, user_sums: NDArray[np.int64], snapshot: int = -1
    ) -> dict[Side, Placement]:
        """Return the placements of both sides, that of items by fixed-point score sums of users (U,), which
        are not rounded as the snapshot's are."""
        items = replace(cls.of(graph, "item", snapshot), other_sums=user_sums / UNIT)
        return {"user": cls.of(graph, "user", snapshot), "item": items}

    def vectors(self, block: PairRows, sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the vectors of a block's nodes, given their score sums (n,). Shape (n, rank)."""
        others = self.other_sums, self.other_vectors, self.stretch
        return projected(block, self.scores / UNIT, sums, *others, self.normalize)["vectors"]

    def macro(self, block: PairRows, other_macro: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Return the macro nodes of a block's nodes.

        Args:
            block: Of n nodes.
            other_macro: Macro node of each node of the other side, per resolution; a cold one says nothing.

        Returns:
            The cold macro node for a node without others. Shape (n, resolutions).
        """
        return np.stack(
            [
                placed(block, self.scores, *part)["macro"]
                for part in zip(other_macro, self.chances, strict=True)
            ],
            axis=1,
        )


@kernel("macro")
def _likeliest(edges, chances, macro):  # pragma: no cover - compiled
    indptr, other, score = edges
    width, total = len(chances), np.empty(chances.shape[1], np.int64)
    for row in range(len(macro)):
        total[:] = 0
        known = False
        for e in range(indptr[row], indptr[row + 1]):
            if other[e] < width:
                known = True
                _add(np.int64(score[e]), chances[other[e]], total)
        if known:
            macro[row] = _best(total, chances[0])


@kernel("total", inline="always")
def _add(score, logs, total):  # pragma: no cover - compiled
    for c in range(len(total)):
        total[c] += score * np.int64(logs[c])


@kernel(inline="always")
def _best(total, logs):  # pragma: no cover - compiled
    best = -1
    for c in range(len(total)):
        if logs[c] != NEVER and (best < 0 or total[c] > total[best]):
            best = c
    return max(best, 0)
