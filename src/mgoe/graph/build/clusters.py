"""Where macro nodes start: spherical k-means over the sketch, weighted by preference, warm-started from a
snapshot.

Similar rows of `S S^T` belong together (paper). A node with a score sum below a threshold belongs to a macro
node but does not move its centre (eq. 8). Centres are learned on a sample, and every node is assigned in one
pass. Numbers keep their meaning from snapshot to snapshot because each centre starts as the mean of its
former members.

Without former members it starts from seeds. K-means from as many seeds as macro nodes ends with two of them
in one community and with two communities in one of them: seeds are random, and no step of k-means moves one
across. With three times as many seeds, each community has one, and merging those that cost least (Ward, 1963)
joins the seeds of one community. On planted communities the result is as good as a start from the truth.

A node without edges belongs to the cold node, number `k`.
"""

import faiss
import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from mgoe.graph.sketch import unit_rows

LEARNING_SAMPLE, LEAST_SAMPLE = 256, 50_000
"""K-means learns from at most so many nodes per macro node, but from at least so many in all."""
ROWS = 1 << 16
"""Nodes assigned at once."""
FINER, MOST = 3, 3_000
"""Seeds per macro node, and in all if there are fewer macro nodes: the time to merge grows with their square.
"""
SAMPLE = 10
"""Nodes per seed that k-means++ draws from; its cost is their number times that of the seeds."""
MEMBERS = 40
"""Most nodes per seed that k-means learns from."""
ITERATIONS = 8
"""Iterations of k-means over all seeds, before they are merged."""


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


def learn_centers(
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
        Unit rows, from means of the former members, and from seeds where there are none; a centre of zeros
            has no member. Shape (k, rank).
    """
    moving = np.flatnonzero(weights > 0)
    learned = min(sample, max(LEAST_SAMPLE, LEARNING_SAMPLE * k))
    if len(moving) > learned:
        moving = np.sort(np.random.default_rng(seed).choice(moving, learned, replace=False))
    rows, weights = unit_rows(vectors[moving]), weights[moving]
    new = previous is None
    centers = np.zeros((k, rows.shape[1]), np.float32) if new else member_means(vectors, previous, k)
    empty = np.flatnonzero(~centers.any(axis=1))[: len(rows)]
    if n := len(empty):
        centers[empty] = find_seeds(rows, weights, n, seed) if new else draw_seeds(rows, n, seed)
    return trained(rows, weights, centers, iterations, seed) if len(rows) > k else centers


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
    centers: NDArray[np.float32],
) -> NDArray[np.int32]:
    """Return the macro node with the closest centre by cosine, among those that have a centre.

    Args:
        vectors: Shape (U, rank).
        linked: Whether a node has edges. Shape (U,).
        centers: Shape (k, rank).

    Returns:
        Shape (U,).
    """
    filled = np.flatnonzero(centers.any(axis=1))
    if len(filled) == 0:
        filled = np.arange(len(centers))
    macro = np.empty(len(vectors), np.int32)
    for first in range(0, len(vectors), ROWS):
        rows = slice(first, first + ROWS)
        found = filled[closest(unit_rows(vectors[rows]), centers[filled])]
        macro[rows] = np.where(linked[rows], found, len(centers))
    return macro


def keep(kept: NDArray[np.int32], linked: NDArray[np.bool_], k: int) -> NDArray[np.int32]:
    """Return the former macro node of every node that still has edges, else the cold node, number `k`. Shape
    (U,).
    """
    macro = np.full(len(linked), k, np.int32)
    macro[: len(kept)] = np.where(linked[: len(kept)], kept, k)
    return macro


def random_groups(linked: NDArray[np.bool_], k: int, seed: tuple[int, ...]) -> NDArray[np.int32]:
    """Return random groups of nearly equal size, for ablations. A node keeps its group from snapshot to
    snapshot.
    """
    return np.where(linked, np.random.default_rng(seed).integers(0, k, len(linked)), k).astype(np.int32)


def find_seeds(
    rows: NDArray[np.float32], weights: NDArray[np.float32], k: int, seed: int
) -> NDArray[np.float32]:
    """Return the starts of `k` macro nodes, or of as many as there are nodes.

    Args:
        rows: Unit vectors of the nodes to learn from. Shape (n, rank).
        weights: Of each node, positive. Shape (n,).
        k: At least 1.
        seed: Of the random draws.

    Returns:
        Shape (min(k, n), rank).
    """
    fine = min(max(k, min(FINER * k, MOST)), len(rows))
    if len(rows) > MEMBERS * fine:
        few = np.sort(np.random.default_rng(seed).choice(len(rows), MEMBERS * fine, replace=False))
        rows, weights = rows[few], weights[few]
    seeds = draw_seeds(rows, fine, seed)
    if fine <= k:
        return seeds
    if len(rows) > fine:
        seeds = trained(rows, weights, seeds, ITERATIONS, seed)
    members = closest(rows, seeds)
    sums = (
        sp.csc_array((weights.astype(np.float64), members, np.arange(len(rows) + 1)), shape=(fine, len(rows)))
        @ rows
    )
    sizes = np.asarray(np.bincount(members, weights, fine), np.float64)
    filled = sizes > 0
    if filled.sum() < k:
        return seeds[:k]
    return merge(sums[filled] / sizes[filled, None], sizes[filled], k).astype(np.float32)


def draw_seeds(rows: NDArray[np.float32], number: int, seed: int) -> NDArray[np.float32]:
    """Return distant rows (k-means++) of a sample. Shape (number, rank)."""
    few = np.random.default_rng(seed).permutation(len(rows))[: SAMPLE * number]
    return kmeans_plusplus(rows[few].astype(np.float64), number, random_state=seed)[0].astype(np.float32)


def trained(
    rows: NDArray[np.float32],
    weights: NDArray[np.float32],
    centers: NDArray[np.float32],
    iterations: int,
    seed: int,
) -> NDArray[np.float32]:
    """Return centres after some iterations of spherical k-means; there must be more nodes than centres."""
    kmeans = faiss.Kmeans(
        rows.shape[1],
        len(centers),
        niter=iterations,
        spherical=True,
        seed=seed,
        max_points_per_centroid=1 << 30,
        min_points_per_centroid=1,
    )
    kmeans.train(rows, weights=np.ascontiguousarray(weights), init_centroids=np.ascontiguousarray(centers))
    return np.asarray(kmeans.centroids, np.float32)


def merge(means: NDArray[np.float64], sizes: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Merge fine groups into `k`: in each step the two that add least to the squares within groups.

    Args:
        means: Of the fine groups. Shape (n, rank).
        sizes: Weight of each. Shape (n,).
        k: Number of groups to leave, at most n.

    Returns:
        Their means. Shape (k, rank).
    """
    means, sizes = means.copy(), sizes.copy()
    return means[_merge(means, sizes, k)]


def closest(rows: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the index of the centre with the largest product. Shape (n,)."""
    index = faiss.IndexFlatIP(centers.shape[1])
    index.add(np.ascontiguousarray(centers))  # type: ignore[call-arg]  (faiss wraps the C++ signature at import)
    return index.search(np.ascontiguousarray(rows), 1)[1][:, 0]  # type: ignore[call-arg]


@numba.njit(cache=True, nogil=True)
def _merge(means, sizes, k):  # pragma: no cover - compiled
    n = len(means)
    left = np.ones(n, np.bool_)
    partner, price = np.zeros(n, np.int64), np.full(n, np.inf)
    for i in range(n):
        partner[i], price[i] = _cheapest(i, means, sizes, left)
    for _ in range(n - k):
        i = int(np.argmin(price))
        j = partner[i]
        total = sizes[i] + sizes[j]
        means[i] = (sizes[i] * means[i] + sizes[j] * means[j]) / total
        sizes[i] = total
        left[j] = False
        price[j] = np.inf
        for m in range(n):
            if left[m] and (m == i or partner[m] == i or partner[m] == j):
                partner[m], price[m] = _cheapest(m, means, sizes, left)
            elif left[m]:
                cost = _cost(m, i, means, sizes)
                if cost < price[m]:
                    partner[m], price[m] = i, cost
    return np.flatnonzero(left)


@numba.njit(cache=True, nogil=True)
def _cheapest(i, means, sizes, left):  # pragma: no cover - compiled
    best, least = -1, np.inf
    for j in range(len(means)):
        if left[j] and j != i:
            cost = _cost(i, j, means, sizes)
            if cost < least:
                best, least = j, cost
    return best, least


@numba.njit(cache=True, nogil=True)
def _cost(i, j, means, sizes):  # pragma: no cover - compiled
    square = 0.0
    for d in range(means.shape[1]):
        square += (means[i, d] - means[j, d]) ** 2
    return square * sizes[i] * sizes[j] / (sizes[i] + sizes[j])
