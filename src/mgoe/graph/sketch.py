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
NOISE = 1e-5
"""A direction of the result this much weaker than the strongest is rounding of single precision, and left out."""
ROUNDING = 5e-8
"""The same for a basis on the way there. Less is left out: a random draw can make a direction weak that the graph does not, and one that
is left out cannot come back (singular values were wrong by up to .005 of the largest)."""


@dataclass(frozen=True)
class Sketch:
    """Vectors of users and items in one space. Columns beyond the rank of the graph itself are zero.

    Attributes:
        users: `S Q Sigma^(scale - 1)`, the profile of a user's items; a node without edges is zero. Shape (U, rank).
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
    shape = pairs.shape
    score = pairs.score / UNIT
    if normalize == "degree":
        score /= np.sqrt(np.bincount(pairs.user, score, shape[0])[pairs.user] * np.bincount(pairs.item, score, shape[1])[pairs.item])
    return sp.csr_array((score.astype(np.float32), pairs.item.astype(np.int32), pairs.indptr), shape=shape)


def sketch(matrix: sp.csr_array, rank: int, power_iterations: int, scale: float, seed: int) -> Sketch:
    """Randomised truncated singular value decomposition, scaled by a power of the singular values.

    Only products with the matrix touch all nodes; factorisations are of small Gram matrices, in double precision. Random draws go by item
    number, so items that arrive later change nothing. Signs are fixed by the largest entry of each item vector.

    Args:
        matrix: Shape (U, I).
        rank: Columns of the result.
        power_iterations: Each multiplies the spectrum's decay; without any, sparse logs give noise.
        scale: Power of the singular values.
        seed: Of the range finder.
    """
    n_users, n_items = matrix.shape or (0, 0)
    width = min(rank + OVERSAMPLING, n_users, n_items)
    transposed = matrix.T.tocsr()
    basis = _orthonormal(matrix @ np.random.default_rng(seed).standard_normal((n_items, width), dtype=np.float32))
    for _ in range(power_iterations):
        basis = _orthonormal(matrix @ _orthonormal(transposed @ basis))
    profile = transposed @ basis  # (I, width): the matrix is close to basis @ profile.T
    rotation, strength = _principal(profile, NOISE)
    rotation, strength = rotation[:, :rank], strength[:rank]
    right = profile @ (rotation / strength).astype(np.float32)  # Q
    sign = np.where(right[np.abs(right).argmax(axis=0), np.arange(len(strength))] < 0, -1, 1) if n_items else np.ones(0)
    stretch = (sign * strength**scale).astype(np.float32)
    pad = (0, rank - len(strength))
    return Sketch(
        users=np.pad((matrix @ right) * (stretch / strength.astype(np.float32)), ((0, 0), pad)),
        items=np.pad(right * stretch, ((0, 0), pad)),
        singular=np.pad(strength.astype(np.float32), pad),
    )


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided by their length, zero rows left alone: else popularity fills the first direction."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """An orthonormal basis of the columns' span. As wide as the span, so columns that add nothing are left out."""
    rotation, strength = _principal(columns, ROUNDING)
    return columns @ (rotation / strength).astype(np.float32)


def _principal(columns: NDArray[np.float32], noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right singular vectors and singular values above the noise, falling, from the small Gram matrix. Shapes (width, span), (span,)."""
    wide = columns.astype(np.float64)
    squares, rotation = np.linalg.eigh(wide.T @ wide)
    strength = np.sqrt(np.maximum(squares[::-1], 0))
    span = int((strength > noise * strength.max(initial=0)).sum())
    return rotation[:, ::-1][:, :span], strength[:span]
