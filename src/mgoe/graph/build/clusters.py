"""Where macro nodes start: spherical k-means over the sketch, weighted by preference, warm-started from the snapshot before.

Similar rows of `S S^T` belong together (paper); nodes whose score sum stays below a threshold belong to a macro node but do not move its
centre (eq. 8). Centres are learned on a sample and every node is assigned in one pass. Numbers keep their meaning from snapshot to snapshot
because each centre starts as the mean of its former members.

A node without edges belongs to the cold node, number `k`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.graph.build.seeds import closest, draw_seeds, find_seeds, trained
from mgoe.graph.sketch import unit_rows

LEARNING_SAMPLE, LEAST_SAMPLE = 256, 50_000
"""Nodes a macro node that k-means learns from, where there are more, and nodes in all."""
ROWS = 1 << 16
"""Nodes assigned at once."""


def preference_weights(sums: NDArray[np.number], threshold: float, low_weight: float) -> NDArray[np.float32]:
    """Weight of each node in its macro node's centre (eq. 8; threshold as a quantile of the sums is ours).

    Args:
        sums: Score sum of each node. Shape (U,) or (I,).
        threshold: Quantile, of the nodes with any score, below which a node is inactive.
        low_weight: Weight of an inactive node; one without any score weighs nothing.
    """
    linked = sums > 0
    if not linked.any():
        return np.zeros(len(sums), np.float32)
    active = sums >= np.quantile(sums[linked], threshold, method="lower")
    return np.where(linked, np.where(active, 1.0, low_weight), 0.0).astype(np.float32)


def learn_centres(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float32],
    k: int,
    before: NDArray[np.int32] | None,
    iterations: int,
    seed: int,
    sample: int,
) -> NDArray[np.float32]:
    """Centres of `k` macro nodes.

    Args:
        vectors: Of every node; those without edges weigh nothing. Shape (U, rank).
        weights: Of each node in the centres. Shape (U,).
        k: Macro nodes.
        before: Assignment at the snapshot before, of the nodes known then, to start from. Shape (at most U,).
        iterations: Of k-means.
        seed: Of the draws.
        sample: Nodes to learn from, at most.

    Returns:
        Unit rows; a centre of zeros has no member. Shape (k, rank).
    """
    moving = np.flatnonzero(weights > 0)
    learned = min(sample, max(LEAST_SAMPLE, LEARNING_SAMPLE * k))
    if len(moving) > learned:
        moving = np.sort(np.random.default_rng(seed).choice(moving, learned, replace=False))
    rows, weights = unit_rows(vectors[moving]), weights[moving]
    centres = _start(rows, weights, k, None if before is None else member_means(vectors, before, k), seed)
    return trained(rows, weights, centres, iterations, seed) if len(rows) > k else centres


def moving_weights(weights: NDArray[np.float32], linked: NDArray[np.bool_], k: int) -> NDArray[np.float32]:
    """The weights, or all linked nodes alike where fewer than `k` would move a centre."""
    return weights if (weights > 0).sum() >= k else linked.astype(np.float32)


def member_means(vectors: NDArray[np.float32], macro: NDArray[np.int32], k: int) -> NDArray[np.float32]:
    """Unit mean of the members of each macro node; zero for one without. Shape (k, rank)."""
    total = np.zeros((k + 1, vectors.shape[1]), np.float32)
    for first in range(0, len(macro), ROWS):
        part = macro[first : first + ROWS]
        membership = sp.csc_array(
            (np.ones(len(part), np.float32), part, np.arange(len(part) + 1)), shape=(k + 1, len(part))
        )
        total += membership @ unit_rows(vectors[first : first + len(part)])
    return unit_rows(total[:k])


def assign(
    vectors: NDArray[np.float32],
    linked: NDArray[np.bool_],
    centres: NDArray[np.float32],
    advance: Callable[[int], None] = lambda nodes: None,
) -> NDArray[np.int32]:
    """The nearest macro node of every node.

    Args:
        vectors: Shape (U, rank).
        linked: Whether a node has edges. Shape (U,).
        centres: Shape (k, rank).
        advance: Called with the nodes done.

    Returns:
        Shape (U,).
    """
    macro = np.empty(len(vectors), np.int32)
    for first in range(0, len(vectors), ROWS):
        rows = slice(first, first + ROWS)
        macro[rows] = nearest(unit_rows(vectors[rows]), linked[rows], centres)
        advance(len(macro[rows]))
    return macro


def keep(kept: NDArray[np.int32], linked: NDArray[np.bool_], k: int) -> NDArray[np.int32]:
    """Former macro nodes of nodes that still have edges; the cold node, number `k`, for all others. Shape (U,)."""
    macro = np.full(len(linked), k, np.int32)
    macro[: len(kept)] = np.where(linked[: len(kept)], kept, k)
    return macro


def nearest(
    rows: NDArray[np.float32], linked: NDArray[np.bool_], centres: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The macro node whose centre has the largest cosine, among those that have a centre at all. Shape (U,)."""
    filled = np.flatnonzero(centres.any(axis=1))
    if len(filled) == 0:
        filled = np.arange(len(centres))
    return np.where(linked, filled[closest(rows, centres[filled])], len(centres)).astype(np.int32)


def random_groups(linked: NDArray[np.bool_], k: int, seed: tuple[int, ...]) -> NDArray[np.int32]:
    """Groups of nearly equal size, for ablations. Drawn by node number, so a node keeps its group from snapshot to snapshot."""
    return np.where(linked, np.random.default_rng(seed).integers(0, k, len(linked)), k).astype(np.int32)


def _start(
    rows: NDArray[np.float32],
    weights: NDArray[np.float32],
    k: int,
    former: NDArray[np.float32] | None,
    seed: int,
) -> NDArray[np.float32]:
    """Means of the former members where there are any, seeds elsewhere; zero where the nodes do not suffice. Shape (k, rank)."""
    centres = np.zeros((k, rows.shape[1]), np.float32) if former is None else former
    empty = np.flatnonzero(~centres.any(axis=1))
    number = min(len(empty), len(rows))
    if number:
        centres[empty[:number]] = (
            find_seeds(rows, weights, number, seed) if former is None else draw_seeds(rows, number, seed)
        )
    return centres
