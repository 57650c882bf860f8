"""Macro nodes: spherical k-means over the sketch, weighted by preference, warm-started from the snapshot before.

Similar rows of `S S^T` belong together (paper); nodes whose score sum stays below a threshold belong to a macro node but do not move its
centre (eq. 8). Numbers keep their meaning from snapshot to snapshot because each centre starts as the mean of its former members.
"""

import faiss
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from mgoe.graph.sketch import unit_rows

SEEDING_SAMPLE = 50_000
"""Nodes that k-means++ looks at; its cost is sample x K."""


def preference_weights(sums: NDArray[np.int64], threshold: float, low_weight: float) -> NDArray[np.float32]:
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
    vectors: NDArray[np.float32],
    weights: NDArray[np.float32],
    k: int,
    before: NDArray[np.int32] | None,
    iterations: int,
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign every node to one of `k` macro nodes.

    Args:
        vectors: Sketch vectors; a zero row has no edges and goes to the cold node, number `k`. Shape (U, rank).
        weights: Of each node in the centres. Shape (U,).
        k: Macro nodes.
        before: Assignment at the snapshot before, of the nodes known then, to start from. Shape (at most U,).
        iterations: Of k-means.
        seed: Of the k-means++ start.

    Returns:
        Macro node of each node, shape (U,), and the centres, unit rows, shape (k, rank).
    """
    rows = unit_rows(vectors)
    moving = np.flatnonzero(weights > 0)
    if len(moving) < k:
        moving = np.flatnonzero(rows.any(axis=1))
    centres = _start(rows, moving, k, before, seed)
    if len(moving) > k:
        kmeans = faiss.Kmeans(
            rows.shape[1], k, niter=iterations, spherical=True, seed=seed, max_points_per_centroid=1 << 30, min_points_per_centroid=1
        )
        part = np.maximum(weights[moving], np.float32(1e-6))
        kmeans.train(np.ascontiguousarray(rows[moving]), weights=np.ascontiguousarray(part), init_centroids=centres)
        centres = np.asarray(kmeans.centroids, np.float32)
    return nearest(vectors, centres), centres


def keep(vectors: NDArray[np.float32], before: NDArray[np.int32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The macro nodes of the snapshot before, and the nearest of them for nodes that are new or were cold."""
    rows = unit_rows(vectors)
    centres = member_means(rows, before, k)
    macro = nearest(rows, centres)
    known = np.flatnonzero((before < k) & rows[: len(before)].any(axis=1))
    macro[known] = before[known]
    return macro, centres


def member_means(rows: NDArray[np.float32], macro: NDArray[np.int32], k: int) -> NDArray[np.float32]:
    """Unit mean of the members of each macro node; zero for one without. Shape (k, rank)."""
    members = np.flatnonzero(macro < k)
    sums = np.zeros((k, rows.shape[1]), np.float64)
    np.add.at(sums, macro[members], rows[members])
    return unit_rows(sums.astype(np.float32))


def nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int32]:
    """The macro node whose centre has the largest cosine; a zero vector goes to the cold node, number `k`. Shape (rows,)."""
    index = faiss.IndexFlatIP(centres.shape[1])
    index.add(np.ascontiguousarray(centres))  # type: ignore[call-arg]  (faiss wraps the C++ signature at import)
    found = index.search(np.ascontiguousarray(vectors), 1)[1][:, 0].astype(np.int32)  # type: ignore[call-arg]
    found[~vectors.any(axis=1)] = len(centres)
    return found


def random_groups(n: int, k: int, linked: NDArray[np.bool_], seed: int) -> NDArray[np.int32]:
    """Groups of nearly equal size drawn by node number, for ablations; nodes without edges are cold. Shape (n,)."""
    return np.where(linked, np.random.default_rng(seed).integers(0, k, n), k).astype(np.int32)


def _start(
    rows: NDArray[np.float32], moving: NDArray[np.int64], k: int, before: NDArray[np.int32] | None, seed: int
) -> NDArray[np.float32]:
    """Means of the former members where there are any, k-means++ seeds elsewhere."""
    sample = moving if len(moving) <= SEEDING_SAMPLE else np.random.default_rng(seed).choice(moving, SEEDING_SAMPLE, replace=False)
    if before is None:
        return (
            np.ascontiguousarray(kmeans_plusplus(rows[sample], min(k, len(sample)), random_state=seed)[0], np.float32)
            if len(sample) >= k
            else _padded(rows[sample], k)
        )
    centres = member_means(rows, before, k)
    empty = ~centres.any(axis=1)
    if empty.any() and len(sample):
        fresh = kmeans_plusplus(rows[sample], min(int(empty.sum()), len(sample)), random_state=seed)[0]
        centres[np.flatnonzero(empty)[: len(fresh)]] = fresh
    return np.ascontiguousarray(centres)


def _padded(rows: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    out = np.zeros((k, rows.shape[1]), np.float32)
    out[: len(rows)] = rows
    return out
