"""Linear models of items: each item's column of the matrix is predicted from the others (EASE, SLIM).

Both forbid an item to predict itself, so a user's own items come back only through others. The setting `own`
adds them, which helps where known items stay in lists.

Axes: `U` users, `I` items.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

from mgoe._util.kernels import kernel
from mgoe.config import RangeSettings
from mgoe.errors import TrainingError
from mgoe.topn.baselines.baseline import HALF_LIFE, NEIGHBORS, Baseline, Budget, by_similarity, fit_similarity
from mgoe.topn.lists import Events, Scores

SWEEPS = 50
"""Passes of coordinate descent, at most."""
CONVERGED = 1e-4
"""Largest change of a weight at which coordinate descent stops."""
AT_ONCE = 512
"""Items whose diagonal entries are computed together."""
Inverse = tuple[Callable[[sp.csr_array], NDArray[np.float32]], NDArray[np.float32]]
"""Rows (B, I) to their product with P (B, I); and the diagonal of P (I,)."""
OWN = [0.0, 0.03, 0.1, 0.3, 1.0]
"""Weights of a user's own items."""


def fit_ease(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """EASE (Steck 2019): ridge regression without self-loops, in closed form.

    With P = (X'X + l2)^-1 the weights are B = I - P diag(P)^-1, so X B = X - X P diag(P)^-1.
    """
    users, items = events.shape
    invert = inverse_by_users if users < items else inverse_by_items
    multiply, diagonal = invert(events.matrix(), settings["l2"])
    profiles, own = events.profiles.matrix(settings["half_life"]), 1 + settings["own"]
    return lambda chosen: own * profiles[chosen].toarray() - multiply(profiles[chosen]) / diagonal


def inverse_by_items(known: sp.csr_array, l2: float) -> Inverse:
    """Invert X'X + l2, one row and column per item."""
    inverse = inverted_in_place((known.T @ known).toarray(order="F"), l2)
    return lambda rows: rows @ inverse, np.diagonal(inverse).copy()


def inverse_by_users(known: sp.csr_array, l2: float) -> Inverse:
    """Invert X'X + l2 where users are fewer, by P = (I - X'K^-1 X) / l2 with K = XX' + l2."""
    inverse = inverted_in_place((known @ known.T).toarray(order="F"), l2)

    def multiply(rows: sp.csr_array) -> NDArray[np.float32]:
        return (rows.toarray() - ((rows @ known.T) @ inverse) @ known) / l2

    turned = known.T.tocsr()
    items = np.arange(len(turned.indptr) - 1)
    parts = np.array_split(items, max(1, len(items) // AT_ONCE))
    explained = [(turned[part] @ inverse * turned[part].toarray()).sum(axis=1) for part in parts]
    return multiply, ((1 - np.concatenate(explained)) / l2).astype(np.float32)


def inverted_in_place(gram: NDArray[np.float32], l2: float) -> NDArray[np.float32]:
    """Return the inverse of a symmetric matrix with `l2` added to its diagonal; the matrix is overwritten.

    Args:
        gram: Column by column in memory (`order="F"`). Shape (n, n).
        l2: Positive.

    Raises:
        TrainingError: The sum is not positive definite in float32.
    """
    gram[np.diag_indices_from(gram)] += l2
    spotrf, spotri = get_lapack_funcs(("potrf", "potri"), dtype=np.float32)
    factor, failed = spotrf(gram, lower=True, overwrite_a=True)
    if not failed:
        factor, failed = spotri(factor, lower=True, overwrite_c=True)
    if failed:
        raise TrainingError("ease", f"the matrix must be positive definite, found l2 = {l2:g}; raise it")
    mirror(factor)
    return factor


@kernel("lower")
def mirror(lower: NDArray[np.float32]) -> None:
    """Copy the lower triangle of a matrix to the upper one."""
    for row in range(len(lower)):
        for column in range(row):
            lower[column, row] = lower[row, column]


def fit_slim(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """SLIM (Ning & Karypis 2011): sparse, positive weights with an l1 and an l2 penalty.

    An item is predicted from its nearest neighbours by cosine alone, the paper's fsSLIM.
    """
    known = events.matrix()
    near = fit_similarity("CosineRecommender", known, settings["neighbors"] + 1)
    gram = (known.T @ known).tocsr()
    near.sort_indices()
    gram.sort_indices()
    weights = sp.csc_array(
        (
            slim_weights(
                near.indptr,
                near.indices,
                gram.indptr,
                gram.indices,
                gram.data,
                settings["l1"],
                settings["l2"],
            ),
            near.indices,
            near.indptr,
        ),
        shape=near.shape,
    )
    own = sp.diags_array(np.full(events.shape[1], settings["own"], np.float32))
    return by_similarity(events.profiles.matrix(settings["half_life"]), (weights + own).tocsr())


@kernel()
def slim_weights(
    near_start: NDArray[np.integer],
    near: NDArray[np.integer],
    gram_start: NDArray[np.integer],
    gram_item: NDArray[np.integer],
    gram: NDArray[np.float32],
    l1: float,
    l2: float,
) -> NDArray[np.float32]:
    """Minimise |x_j - X w|^2 / 2 + l1 |w| + l2 |w|^2 / 2 over w >= 0, w_j = 0, for every item j by coordinate
    descent.

    Args:
        near_start, near: Items that may predict each item, rising; compressed rows.
        gram_start, gram_item, gram: X'X; compressed rows, columns rising.
        l1, l2: Penalties.

    Returns:
        Weights of `near`. Shape (len(near),).
    """
    found = np.zeros(len(near), np.float32)
    for j in range(len(near_start) - 1):
        mine = near[near_start[j] : near_start[j + 1]]
        size = len(mine)
        products, target = np.zeros((size, size), np.float32), np.zeros(size, np.float32)
        for a in range(size):
            b, position = 0, gram_start[mine[a]]
            while b < size and position < gram_start[mine[a] + 1]:
                if gram_item[position] == mine[b]:
                    products[a, b] = gram[position]
                    b += 1
                    position += 1
                elif gram_item[position] < mine[b]:
                    position += 1
                else:
                    b += 1
            if mine[a] == j:
                target[:] = products[a]
        weights, left = np.zeros(size, np.float32), target.copy()  # left: X'(x_j - X w)
        for _ in range(SWEEPS):
            largest = 0.0
            for a in range(size):
                if mine[a] == j or products[a, a] == 0:
                    continue
                new = max(0.0, left[a] + products[a, a] * weights[a] - l1) / (products[a, a] + l2)
                change = np.float32(new - weights[a])
                if change != 0:
                    left -= change * products[a]
                    weights[a] += change
                    largest = max(largest, abs(change))
            if largest < CONVERGED:
                break
        found[near_start[j] : near_start[j + 1]] = weights
    return found


EASE = Baseline(
    fit_ease,
    {"l2": 100.0, "half_life": 30.0, "own": 0.1},
    {"l2": RangeSettings(low=1.0, high=10_000.0, log=True), "half_life": HALF_LIFE, "own": OWN},
    by_profile=True,
)
SLIM = Baseline(
    fit_slim,
    {"l1": 0.1, "l2": 1.0, "neighbors": 100, "half_life": 30.0, "own": 0.1},
    {
        "l1": RangeSettings(low=0.001, high=10.0, log=True),
        "l2": RangeSettings(low=0.01, high=100.0, log=True),
        "neighbors": NEIGHBORS.model_copy(update={"high": 300}),
        "half_life": HALF_LIFE,
        "own": OWN,
    },
    by_profile=True,
    by_implicit=True,
)
