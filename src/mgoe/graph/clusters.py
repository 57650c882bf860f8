"""Macro nodes: spherical k-means over the sketch, weighted by preference, warm-started from the snapshot before.

Similar rows of `S S^T` belong together (paper); nodes whose score sum stays below a threshold belong to a macro node but do not move its
centre (eq. 8). Numbers keep their meaning from snapshot to snapshot because each centre starts as the mean of its former members.

`rows` are unit rows of the sketch; `linked` says which nodes have edges. One without belongs to the cold node, number `k`.
"""

import faiss
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from mgoe.graph.sketch import unit_rows

SEEDING_SAMPLE = 50_000
"""Nodes that k-means++ looks at; its cost is sample x K."""


def preference_weights(sums: NDArray[np.floating], threshold: float, low_weight: float) -> NDArray[np.float32]:
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


def cluster(
    rows: NDArray[np.float32],
    linked: NDArray[np.bool_],
    weights: NDArray[np.float32],
    k: int,
    before: NDArray[np.int32] | None,
    iterations: int,
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign every node to one of `k` macro nodes.

    Args:
        rows: Shape (U, rank).
        linked: Shape (U,).
        weights: Of each node in the centres. Shape (U,).
        k: Macro nodes.
        before: Assignment at the snapshot before, of the nodes known then, to start from. Shape (at most U,).
        iterations: Of k-means.
        seed: Of the k-means++ start.

    Returns:
        Macro node of each node, shape (U,), and the centres, unit rows, shape (k, rank); a centre of zeros has no member.
    """
    moving = np.flatnonzero(weights > 0)
    if len(moving) < k:
        moving = np.flatnonzero(linked)
        weights = np.ones_like(weights)
    centres = _start(rows, moving, k, before, seed)
    if len(moving) > k:
        kmeans = faiss.Kmeans(
            rows.shape[1], k, niter=iterations, spherical=True, seed=seed, max_points_per_centroid=1 << 30, min_points_per_centroid=1
        )
        kmeans.train(np.ascontiguousarray(rows[moving]), weights=np.ascontiguousarray(weights[moving]), init_centroids=centres)
        centres = np.asarray(kmeans.centroids, np.float32)
    return nearest(rows, linked, centres), centres


def keep(
    rows: NDArray[np.float32], linked: NDArray[np.bool_], k: int, before: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The macro nodes of the snapshot before, and the nearest of them for nodes that are new or were cold."""
    centres = member_means(rows, before, k)
    macro = nearest(rows, linked, centres)
    known = np.flatnonzero(before < k)
    macro[known] = before[known]
    return macro, centres


def random_groups(
    rows: NDArray[np.float32], linked: NDArray[np.bool_], k: int, seed: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Groups of nearly equal size, for ablations. Drawn by node number, so a node keeps its group from snapshot to snapshot."""
    macro = np.where(linked, np.random.default_rng(seed).integers(0, k, len(rows)), k).astype(np.int32)
    return macro, member_means(rows, macro, k)


def member_means(rows: NDArray[np.float32], macro: NDArray[np.int32], k: int) -> NDArray[np.float32]:
    """Unit mean of the members of each macro node; zero for one without. Shape (k, rank)."""
    n = len(macro)
    membership = sp.csc_array((np.ones(n, np.float32), macro, np.arange(n + 1)), shape=(k + 1, n))
    return unit_rows((membership @ rows[:n])[:k])


def nearest(rows: NDArray[np.float32], linked: NDArray[np.bool_], centres: NDArray[np.float32]) -> NDArray[np.int32]:
    """The macro node whose centre has the largest cosine, among those that have a centre at all. Shape (U,)."""
    filled = np.flatnonzero(centres.any(axis=1))
    if len(filled) == 0:
        filled = np.arange(len(centres))
    index = faiss.IndexFlatIP(centres.shape[1])
    index.add(np.ascontiguousarray(centres[filled]))  # type: ignore[call-arg]  (faiss wraps the C++ signature at import)
    closest = index.search(np.ascontiguousarray(rows), 1)[1][:, 0]  # type: ignore[call-arg]
    return np.where(linked, filled[closest], len(centres)).astype(np.int32)


def _start(
    rows: NDArray[np.float32], moving: NDArray[np.int64], k: int, before: NDArray[np.int32] | None, seed: int
) -> NDArray[np.float32]:
    """Means of the former members where there are any, k-means++ seeds elsewhere; zero where the nodes do not suffice. Shape (k, rank)."""
    centres = np.zeros((k, rows.shape[1]), np.float32) if before is None else member_means(rows, before, k)
    empty = np.flatnonzero(~centres.any(axis=1))
    sample = moving if len(moving) <= SEEDING_SAMPLE else np.random.default_rng(seed).choice(moving, SEEDING_SAMPLE, replace=False)
    seeds = min(len(empty), len(sample))
    if seeds:
        centres[empty[:seeds]] = kmeans_plusplus(rows[sample].astype(np.float64), seeds, random_state=seed)[0]
    return centres
