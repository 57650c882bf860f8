"""Where macro nodes start: spherical k-means over the sketch, weighted by preference, warm-started from a
snapshot.

Similar rows of `S S^T` belong together (paper). A node with a score sum below a threshold belongs to a macro
node but does not move its centre (eq. 8). Centres are learned on a sample, and every node is assigned in one
pass. Numbers keep their meaning from snapshot to snapshot because each centre starts as the mean of its
former members.

A node without edges belongs to the cold node, number `k`.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.graph.build.seeds import closest, draw_seeds, find_seeds, trained
from mgoe.graph.sketch import unit_rows

LEARNING_SAMPLE, LEAST_SAMPLE = 256, 50_000
"""K-means learns from at most so many nodes per macro node, but from at least so many in all."""
ROWS = 1 << 16
"""Nodes assigned at once."""


def preference_weights(sums: NDArray[np.number], threshold: float, low_weight: float) -> NDArray[np.float32]:
    """Return the weight of each node in its macro node's centre (eq. 8; a quantile as the threshold is ours).

    Args:
        sums: Score sum of each node. Shape (U,) or (I,).
        threshold: Quantile, of the nodes with any score, below which a node is inactive.
        low_weight: Weight of an inactive node. A node without any score has weight 0.
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
    previous: NDArray[np.int32] | None,
    iterations: int,
    seed: int,
    sample: int,
) -> NDArray[np.float32]:
    """Return the centres of `k` macro nodes.

    Args:
        vectors: Of every node; those without edges have weight 0. Shape (U, rank).
        weights: Of each node in the centres. Shape (U,).
        k: Number of macro nodes.
        previous: Macro node of each node known at the previous snapshot, to start from. Shape (at most U,).
        iterations: Of k-means.
        seed: Of the random draws.
        sample: Most nodes to learn from.

    Returns:
        Unit rows; a centre of zeros has no member. Shape (k, rank).
    """
    moving = np.flatnonzero(weights > 0)
    learned = min(sample, max(LEAST_SAMPLE, LEARNING_SAMPLE * k))
    if len(moving) > learned:
        moving = np.sort(np.random.default_rng(seed).choice(moving, learned, replace=False))
    rows, weights = unit_rows(vectors[moving]), weights[moving]
    centres = _start(rows, weights, k, None if previous is None else member_means(vectors, previous, k), seed)
    return trained(rows, weights, centres, iterations, seed) if len(rows) > k else centres


def moving_weights(weights: NDArray[np.float32], linked: NDArray[np.bool_], k: int) -> NDArray[np.float32]:
    """Return the weights, or equal ones for all linked nodes if fewer than `k` nodes would move a centre."""
    return weights if (weights > 0).sum() >= k else linked.astype(np.float32)


def member_means(vectors: NDArray[np.float32], macro: NDArray[np.int32], k: int) -> NDArray[np.float32]:
    """Return the unit mean of each macro node's members, zero if it has none. Shape (k, rank)."""
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
) -> NDArray[np.int32]:
    """Return the nearest macro node of every node.

    Args:
        vectors: Shape (U, rank).
        linked: Whether a node has edges. Shape (U,).
        centres: Shape (k, rank).

    Returns:
        Shape (U,).
    """
    macro = np.empty(len(vectors), np.int32)
    for first in range(0, len(vectors), ROWS):
        rows = slice(first, first + ROWS)
        macro[rows] = nearest(unit_rows(vectors[rows]), linked[rows], centres)
    return macro


def keep(kept: NDArray[np.int32], linked: NDArray[np.bool_], k: int) -> NDArray[np.int32]:
    """Return the former macro node of every node that still has edges, else the cold node, number `k`. Shape
    (U,).
    """
    macro = np.full(len(linked), k, np.int32)
    macro[: len(kept)] = np.where(linked[: len(kept)], kept, k)
    return macro


def nearest(
    rows: NDArray[np.float32], linked: NDArray[np.bool_], centres: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return the macro node with the closest centre by cosine, among those that have a centre. Shape (U,)."""
    filled = np.flatnonzero(centres.any(axis=1))
    if len(filled) == 0:
        filled = np.arange(len(centres))
    return np.where(linked, filled[closest(rows, centres[filled])], len(centres)).astype(np.int32)


def random_groups(linked: NDArray[np.bool_], k: int, seed: tuple[int, ...]) -> NDArray[np.int32]:
    """Return random groups of nearly equal size, for ablations. A node keeps its group from snapshot to
    snapshot.
    """
    return np.where(linked, np.random.default_rng(seed).integers(0, k, len(linked)), k).astype(np.int32)


def _start(
    rows: NDArray[np.float32],
    weights: NDArray[np.float32],
    k: int,
    former: NDArray[np.float32] | None,
    seed: int,
) -> NDArray[np.float32]:
    """Return means of the former members, and seeds for centres without any; zeros if nodes run out. Shape
    (k, rank).
    """
    centres = np.zeros((k, rows.shape[1]), np.float32) if former is None else former
    empty = np.flatnonzero(~centres.any(axis=1))
    number = min(len(empty), len(rows))
    if number:
        centres[empty[:number]] = (
            find_seeds(rows, weights, number, seed) if former is None else draw_seeds(rows, number, seed)
        )
    return centres
