"""Where macro nodes start: spherical k-means over the sketch, weighted by preference, at all resolutions of a
side at once.

Similar rows of `S S^T` belong together (paper). A node with a score sum below a threshold belongs to a macro
node but does not move its centre (eq. 8). Every node is assigned to the closest centre.

The first snapshot starts from seeds. K-means from as many seeds as macro nodes ends with two of them in one
community and with two communities in one of them: seeds are random, and no step of k-means moves one across.
With three times as many seeds, each community has one, and merging those that cost least (Ward, 1963) joins
the seeds of one community. On planted communities the result is as good as a start from the truth. Groups are
merged from the finest resolution to the coarsest, so one set of seeds serves all of them. A few iterations of
k-means over a sample of the nodes follow.

Every later snapshot takes one step of k-means from the snapshot before: a centre is the mean of its former
members. So numbers keep their meaning. More steps make no difference, because nodes are then moved by their
edges (`mgoe.graph.likelihood`).

A node without edges belongs to the cold node, number `k`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.sketch import unit_rows

LEARNING_SAMPLE, LEAST_SAMPLE = 256, 50_000
"""K-means learns from at most so many nodes per macro node, but from at least so many in all."""
ROWS = 1 << 16
"""Nodes assigned at once."""
GRID = 1 << 24
"""Vectors of a length of at most 1 are compared as whole numbers of this unit. Sums of their products stay
below 2^53, so that double precision holds them exactly: BLAS may add them in any order, on any processor.
"""
PRODUCTS_AT_ONCE = 1 << 17
"""Products of nodes and centres at once: a megabyte, which stays in a cache."""
FINER, MOST = 3, 3_000
"""Seeds per macro node of the finest resolution, and in all: the memory to merge grows with their square. A
resolution with more macro nodes has a seed for each, and takes no part in the merging.
"""
MEMBERS = 40
"""Most nodes per seed that k-means learns from."""
ITERATIONS = 8
"""Iterations of k-means over all seeds, before they are merged."""
FIRST_ITERATIONS = 5
"""Iterations of k-means at the first snapshot; later ones take one step from the snapshot before."""


def preference_weights(sums: NDArray[np.number], threshold: float) -> NDArray[np.float32]:
    """Return the weight of each node in its macro node's centre (eq. 8; a quantile as the threshold is ours).

    Args:
        sums: Score sum of each node. Shape (U,) or (I,).
        threshold: Quantile, of the nodes with any score, below which a node is inactive and has weight 0.
    """
    linked = sums > 0
    if not linked.any():
        return np.zeros(len(sums), np.float32)
    return (linked & (sums >= np.quantile(sums[linked], threshold, method="lower"))).astype(np.float32)


def learn_centers(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float32],
    sizes: Sequence[int],
    previous: Sequence[NDArray[np.int32]] | None,
    seed: int,
    sample: int,
    iterations: int = FIRST_ITERATIONS,
) -> list[NDArray[np.float32]]:
    """Return the centres of the macro nodes of one side at every resolution.

    Args:
        vectors: Of every node; those without edges have weight 0. Shape (U, rank).
        weights: Of each node in the centres. Shape (U,).
        sizes: Number of macro nodes, k, of each resolution.
        previous: Macro node of each node known at the previous snapshot, to start from, per resolution.
            Shape (at most U,) each.
        seed: Of the random draws.
        sample: Most nodes to learn from.
        iterations: Of k-means, without a previous snapshot.

    Returns:
        Unit rows: means of the former members, and seeds where there are none; a centre of zeros has no
            member. Shape (k, rank) each.
    """
    moving = np.flatnonzero(weights > 0)
    learned = min(sample, max(LEAST_SAMPLE, LEARNING_SAMPLE * max(sizes)))
    if len(moving) > learned:
        moving = np.sort(np.random.default_rng(seed).choice(moving, learned, replace=False))
    if previous is not None:
        means = member_means(vectors, weights, previous, sizes)
        return [_seeded(centers, vectors, moving, seed) for centers in means]
    rows, weights = unit_rows(vectors[moving]), weights[moving]
    starts = [_seeded(centers, vectors, moving, seed) for centers in find_seeds(rows, weights, sizes, seed)]
    return [
        trained(rows, weights, centers, iterations, seed) if len(rows) > len(centers) else centers
        for centers in starts
    ]


def moving_weights(weights: NDArray[np.float32], linked: NDArray[np.bool_], k: int) -> NDArray[np.float32]:
    """Return the weights, or equal ones for all linked nodes if fewer than `k` nodes would move a centre."""
    return weights if (weights > 0).sum() >= k else linked.astype(np.float32)


def member_means(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float32],
    macro: Sequence[NDArray[np.int32]],
    sizes: Sequence[int],
) -> list[NDArray[np.float32]]:
    """Return the unit mean of each macro node's members, zero if none of them has weight.

    Args:
        vectors: Shape (U, rank).
        weights: Of each node in the mean. Shape (U,).
        macro: Macro node of the first nodes, per resolution. Shape (at most U,) each, all alike.
        sizes: Number of macro nodes, k, of each resolution.

    Returns:
        Shape (k, rank) each.
    """
    total = [np.zeros((k + 1, vectors.shape[1])) for k in sizes]
    for first in range(0, len(macro[0]), ROWS):
        part = slice(first, min(first + ROWS, len(macro[0])))
        rows = unit_rows(vectors[part])
        for sums, own in zip(total, macro, strict=True):
            _add_members(rows, weights[part], own[part].astype(np.int64), sums)
    return [unit_rows(sums[:-1]) for sums in total]


def assign(
    vectors: NDArray[np.float32], linked: NDArray[np.bool_], centers: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.int32]]:
    """Return the macro node with the closest centre by cosine, among those that have a centre.

    Args:
        vectors: Shape (U, rank).
        linked: Whether a node has edges. Shape (U,).
        centers: Of each resolution. Shape (k, rank) each.

    Returns:
        One array per resolution. Shape (U,) each.
    """
    macro = [np.empty(len(vectors), np.int32) for _ in centers]
    filled = [np.flatnonzero(one.any(axis=1)) for one in centers]
    filled = [some if len(some) else np.arange(len(one)) for some, one in zip(filled, centers, strict=True)]
    for first in range(0, len(vectors), ROWS):
        part = slice(first, first + ROWS)
        rows = unit_rows(vectors[part])
        for own, some, one in zip(macro, filled, centers, strict=True):
            own[part] = np.where(linked[part], some[closest(rows, one[some])], len(one))
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
    rows: NDArray[np.float32], weights: NDArray[np.float32], sizes: Sequence[int], seed: int
) -> list[NDArray[np.float32]]:
    """Return where the macro nodes of every resolution start; zeros where there are too few distinct nodes.

    Args:
        rows: Unit vectors of the nodes to learn from. Shape (n, rank).
        weights: Of each node, positive. Shape (n,).
        sizes: Number of macro nodes, k, of each resolution.
        seed: Of the random draws.

    Returns:
        Shape (k, rank) each.
    """
    found = {k: draw_seeds(rows, k, seed) for k in sizes if k > MOST}
    merged = sorted({k for k in sizes if k <= MOST}, reverse=True)
    if merged:
        means, mass = _fine_groups(rows, weights, min(FINER * merged[0], MOST), seed)
        for k in merged:
            means, mass = merge(means, mass, k)
            found[k] = means.astype(np.float32)
    return [np.pad(found[k], ((0, k - len(found[k])), (0, 0))) for k in sizes]


def _fine_groups(
    rows: NDArray[np.float32], weights: NDArray[np.float32], number: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and weights of many small groups of nodes. Shapes (number or fewer, rank), the same."""
    if len(rows) > MEMBERS * number:
        few = np.sort(np.random.default_rng(seed).choice(len(rows), MEMBERS * number, replace=False))
        rows, weights = rows[few], weights[few]
    seeds = draw_seeds(rows, number, seed)
    if len(rows) > number:
        seeds = trained(rows, weights, seeds, ITERATIONS, seed)
    members, sums = closest(rows, seeds), np.zeros(seeds.shape)
    mass = np.bincount(members, weights, len(seeds)).astype(np.float64)
    _add_members(rows, weights, members, sums)
    filled = mass > 0
    return sums[filled] / mass[filled, None], mass[filled]


def draw_seeds(rows: NDArray[np.float32], number: int, seed: int) -> NDArray[np.float32]:
    """Return random rows, no more than there are. Shape (number, rank)."""
    return rows[np.random.default_rng(seed).permutation(len(rows))[:number]]


def _seeded(
    centers: NDArray[np.float32], vectors: NDArray[np.float32], moving: NDArray[np.intp], seed: int
) -> NDArray[np.float32]:
    """Return the centres with a seed wherever one is zero, while there are nodes to draw from."""
    empty = np.flatnonzero(~centers.any(axis=1))[: len(moving)]
    if len(empty):
        centers[empty] = draw_seeds(unit_rows(vectors[moving]), len(empty), seed)
    return centers


def trained(
    rows: NDArray[np.float32],
    weights: NDArray[np.float32],
    centers: NDArray[np.float32],
    iterations: int,
    seed: int,
) -> NDArray[np.float32]:
    """Return centres after some iterations of spherical k-means; there must be more nodes than centres.

    A centre without members starts again from a random node.
    """
    for _ in range(iterations):
        sums = np.zeros(centers.shape)
        _add_members(rows, weights, closest(rows, unit_rows(centers)), sums)
        centers = _seeded(unit_rows(sums), rows, np.arange(len(rows)), seed)
    return centers


def merge(
    means: NDArray[np.float64], sizes: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merge groups into at most `k`: in each step the two that add least to the squares within groups.

    Args:
        means: Of the groups. Shape (n, rank).
        sizes: Weight of each. Shape (n,).
        k: Number of groups to leave.

    Returns:
        Their means and weights. Shapes (min(n, k), rank), (min(n, k),).
    """
    whole, group = on_grid(means), np.arange(len(means))
    products = whole @ whole.T / GRID**2
    _merge(products, products.diagonal().copy(), sizes.copy(), k, group)
    left, group = np.unique(group, return_inverse=True)
    merged = np.bincount(group, sizes, len(left)).astype(np.float64)
    sums = np.zeros((len(left), means.shape[1]))
    np.add.at(sums, group, sizes[:, None] * means)
    return sums / merged[:, None], merged


def closest(rows: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the index of the centre with the largest product, the first of equals. Shape (n,)."""
    out, step = np.empty(len(rows), np.int64), 1 + PRODUCTS_AT_ONCE // (len(centers) + 1)
    to = np.ascontiguousarray(on_grid(centers).T)
    for first in range(0, len(rows), step):
        np.argmax(on_grid(rows[first : first + step]) @ to, axis=1, out=out[first : first + step])
    return out


def on_grid(vectors: NDArray) -> NDArray[np.float64]:
    """Return vectors as whole numbers of the unit of the grid. The same shape."""
    return np.rint(vectors * float(GRID)).astype(np.float64)


@kernel("out")
def _add_members(rows, weights, groups, out):  # pragma: no cover - compiled
    """Add the rows to the sums of their groups, each times its weight."""
    for row in range(len(rows)):
        weight = np.float64(weights[row])
        for d in range(rows.shape[1]):
            out[groups[row], d] += weight * rows[row, d]


@kernel("cost", "sizes", "group")
def _merge(cost, squares, sizes, k, group):  # pragma: no cover - compiled
    """Merge until `k` groups are left. `cost` holds products of means, and then the price of joining two."""
    n = len(sizes)
    left = np.ones(n, np.bool_)
    partner, price = np.empty(n, np.int64), np.empty(n)
    for i in range(n):
        for j in range(n):
            apart = max(squares[i] + squares[j] - 2 * cost[i, j], 0.0)
            cost[i, j] = apart * sizes[i] * sizes[j] / (sizes[i] + sizes[j])
    for i in range(n):
        partner[i], price[i] = _cheapest(i, cost, left)
    for _ in range(n - k):
        i = int(np.argmin(price))
        j, paid = partner[i], price[i]
        left[j] = False
        price[j] = np.inf
        for m in range(n):
            if left[m] and m != i:  # Lance and Williams, 1967
                both = (sizes[i] + sizes[m]) * cost[i, m] + (sizes[j] + sizes[m]) * cost[j, m]
                cost[i, m] = cost[m, i] = (both - sizes[m] * paid) / (sizes[i] + sizes[j] + sizes[m])
        sizes[i] += sizes[j]
        for m in range(n):
            if group[m] == j:
                group[m] = i
            if left[m] and (m == i or partner[m] == i or partner[m] == j):
                partner[m], price[m] = _cheapest(m, cost, left)
            elif left[m] and cost[i, m] < price[m]:
                partner[m], price[m] = i, cost[i, m]


@kernel(inner=True)
def _cheapest(i, cost, left):  # pragma: no cover - compiled
    best, least = -1, np.inf
    for j in range(len(left)):
        if left[j] and j != i and cost[i, j] < least:
            best, least = j, cost[i, j]
    return best, least
