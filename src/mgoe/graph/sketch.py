"""A low-rank sketch of the merged graph: a few dozen numbers a node that keep who is similar to whom.

With `S = P Sigma Q^T` the rows of `S S^T` are as far apart as rows of `P Sigma^2`, so similarity never has to be formed. A randomised range
finder with power steps (Halko, Martinsson and Tropp, 2011, algorithm 4.4) finds the leading part from products with `S` alone.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.graph.pairs import Pairs
from mgoe.graph.scores import UNIT

OVERSAMPLING = 10


@dataclass(frozen=True)
class Sketch:
    """Vectors of users and items in one space.

    Attributes:
        users: `P Sigma^scale`; a node without edges is zero. Shape (U, rank).
        items: `Q Sigma^scale`. Shape (I, rank).
        singular: Singular values, falling. Shape (rank,).
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    singular: NDArray[np.float32]


def score_matrix(pairs: Pairs, normalize: str) -> sp.csr_array:
    """The merged graph as a sparse matrix, each score divided by the root of both its nodes' sums if `normalize` is `degree`.

    Returns:
        Shape (U, I).
    """
    shape = (len(pairs.indptr) - 1, len(pairs.item_indptr) - 1)
    score = pairs.score.astype(np.float64) / UNIT
    if normalize == "degree":
        score /= np.sqrt(np.bincount(pairs.user, score, shape[0])[pairs.user] * np.bincount(pairs.item, score, shape[1])[pairs.item])
    return sp.csr_array((score.astype(np.float32), pairs.item.astype(np.int32), pairs.indptr), shape=shape)


def sketch(matrix: sp.csr_array, rank: int, power_iterations: int, scale: float, seed: int) -> Sketch:
    """Randomised truncated singular value decomposition, scaled by a power of the singular values.

    Random draws go by item number, so items that arrive later change nothing. Signs are fixed by the largest entry of each item vector.

    Args:
        matrix: Shape (U, I).
        rank: Columns kept; fewer where the matrix is smaller.
        power_iterations: Each multiplies the spectrum's decay; without any, sparse logs give noise.
        scale: Power of the singular values.
        seed: Of the range finder.
    """
    users, items = matrix.shape or (0, 0)
    rank = max(1, min(rank, users, items))
    width = min(rank + OVERSAMPLING, users, items)
    draw = np.random.default_rng(seed).standard_normal((items, width), dtype=np.float32)
    transposed = matrix.T.tocsr()
    basis = _orthonormal(matrix @ draw)
    for _ in range(power_iterations):
        basis = _orthonormal(matrix @ _orthonormal(transposed @ basis))
    left, singular, right = np.linalg.svd((transposed @ basis).T, full_matrices=False)
    left, singular, right = (basis @ left)[:, :rank], singular[:rank], right[:rank].T
    sign = np.sign(right[np.abs(right).argmax(axis=0), np.arange(rank)])
    sign[sign == 0] = 1
    stretch = sign * singular**scale
    return Sketch((left * stretch).astype(np.float32), (right * stretch).astype(np.float32), singular.astype(np.float32))


def _orthonormal(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.linalg.qr(matrix)[0]


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided by their length, zero rows left alone: else popularity fills the first direction."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
