"""Where k-means starts: more seeds than macro nodes, merged until the wanted number is left.

K-means from as many seeds as macro nodes ends with two of them in one community and with two communities in
one of them: seeds are random, and no step of k-means moves one across. With three times as many seeds, each
community has one, and merging those that cost least (Ward, 1963) joins the seeds of one community. On planted
communities the result is as good as a start from the truth.
"""

import faiss
import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

FINER, MOST = 3, 3_000
"""Seeds per macro node, and in all if there are fewer macro nodes: the time to merge grows with their square.
"""
SAMPLE = 10
"""Nodes per seed that k-means++ draws from; its cost is their number times that of the seeds."""
MEMBERS = 40
"""Most nodes per seed that k-means learns from."""
ITERATIONS = 8
"""Iterations of k-means over all seeds, before they are merged."""


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
    centres: NDArray[np.float32],
    iterations: int,
    seed: int,
) -> NDArray[np.float32]:
    """Return centres after some iterations of spherical k-means; there must be more nodes than centres."""
    kmeans = faiss.Kmeans(
        rows.shape[1],
        len(centres),
        niter=iterations,
        spherical=True,
        seed=seed,
        max_points_per_centroid=1 << 30,
        min_points_per_centroid=1,
    )
    kmeans.train(rows, weights=np.ascontiguousarray(weights), init_centroids=np.ascontiguousarray(centres))
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
    left: NDArray[np.int64] = _merge(means, sizes, k)
    return means[left]


def closest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the index of the centre with the largest product. Shape (n,)."""
    index = faiss.IndexFlatIP(centres.shape[1])
    index.add(np.ascontiguousarray(centres))  # type: ignore[call-arg]  (faiss wraps the C++ signature at import)
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
