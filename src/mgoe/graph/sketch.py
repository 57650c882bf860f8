"""A low-rank sketch of the merged graph: a few dozen numbers per node that keep which nodes are similar.

With `S = P Sigma Q^T` the rows of `S S^T` are as far apart as the rows of `P Sigma^2`, so similarity never
has to be formed. A randomised range finder with power steps (Halko, Martinsson and Tropp, 2011, algorithm
4.4) finds the leading part from products with `S` alone. It learns from a sample of the users; every node is
then projected by its own pairs.

Each power step is shifted: it multiplies by `S S^T - alpha I`, so that directions fade in proportion to the
distance of their squared singular value from `alpha`, and more of them for the same work. `alpha` is half of
a lower bound on the squared singular value of the last direction that is wanted (Feng and Yu, 2023, algorithm
4). No wanted direction then fades faster than an unwanted one.

Every snapshot starts from the same random draws and takes as many steps, so that all sketches are equally
exact. A start from the previous snapshot would make each more exact than the one before, and a model would
meet features on test that it has not met in training.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import eigen, exp, log, product
from mgoe.graph.memory_hints import AHEAD, prefetch, prefetch_far
from mgoe.graph.pair_rows import PairRows
from mgoe.graph.scores import UNIT

OVERSAMPLING = 10
NOISE = 1e-5
"""A direction of the result that is weaker than this share of the strongest is rounding of single precision:
left out.
"""
ROUNDING = 5e-8
"""The same for a basis on the way there. Less is left out: a random draw can weaken a direction that is
strong in the graph, and a direction that is left out cannot come back (singular values were wrong by up to
.005 of the largest).
"""
STEEP = 1e-2
"""If the weakest direction has a smaller share of the strongest, its square would drown in the rounding of
the strongest one's: then both halves of a power step end with an orthonormal basis, and there is no shift.
"""
GRAM_ROWS = 1 << 8
"""Rows converted to double precision at once: few enough to stay in the cache."""


@dataclass(frozen=True)
class Sketch:
    """Projects a user by its items. Columns beyond the rank of the graph itself are zero.

    Attributes:
        basis: `Q`. Shape (I, rank).
        singular: Singular values, descending. Shape (rank,).
        scale: Power of the singular values on the vectors.
    """

    basis: NDArray[np.float32]
    singular: NDArray[np.float32]
    scale: float

    @property
    def items(self) -> NDArray[np.float32]:
        """`Q Sigma^scale`. Shape (I, rank)."""
        return self.basis * self._powers

    @property
    def stretch(self) -> NDArray[np.float32]:
        """`Sigma^(scale - 1)`, which makes `S Q` a user's vector. Shape (rank,)."""
        return divided(self._powers, self.singular)

    @property
    def _powers(self) -> NDArray[np.float32]:
        """`Sigma^scale`, and zero where a singular value is zero. Shape (rank,)."""
        return exp(self.scale * log(np.maximum(self.singular, 1e-30)), np.float32) * (self.singular > 0)


def divided(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one divided by the other, and zero where the other is zero."""
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0).astype(np.float32)


def score_matrix(
    rows: PairRows,
    scores: NDArray[np.int64],
    sums: NDArray[np.int64],
    other_sums: NDArray[np.int64],
    normalize: str,
) -> sp.csr_array:
    """Return rows of the merged graph as a sparse matrix.

    If `normalize` is `degree`, each score is divided by the root of the sums of both its nodes.

    Args:
        rows: By user.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        sums: Fixed-point score sum of each user. Shape (n,).
        other_sums: Of each item. Shape (I,).
        normalize: `degree` or `none`.

    Returns:
        Shape (n, I).
    """
    value, indptr = np.empty(len(rows.other), np.float32), rows.indptr
    _values(rows.scored(scores / UNIT), sums / UNIT, other_sums / UNIT, normalize == "degree", value)
    if indptr[-1] < 1 << 31:
        indptr = indptr.astype(np.int32)  # else SciPy widens every item to 64 bits
    items = np.array(rows.other)  # in memory, as every step reads them
    return sp.csr_array((value, items, indptr), shape=(len(rows), len(other_sums)))


def sketch(
    matrix: sp.csr_array,
    rank: int,
    power_iterations: int,
    scale: float,
    seed: int,
    share: float = 1.0,
    threads: int = 1,
) -> Sketch:
    """Compute a randomised truncated singular value decomposition.

    Only products touch all nodes; factorisations are of small Gram matrices, in double precision. Each item
    has its own random draws, so items that arrive later change nothing. Signs are fixed by the largest entry
    of each item vector.

    Args:
        matrix: Shape (users, I).
        rank: Columns of the result.
        power_iterations: Each multiplies the decay of the spectrum; without any, sparse logs give noise.
        scale: Power of the singular values.
        seed: Of the range finder.
        share: Share of the users that the matrix holds; singular values are scaled to all of them.
        threads: Each multiplies a part of the rows; the result does not depend on their number.
    """
    n_users, n_items = matrix.shape or (0, 0)
    width = min(rank + OVERSAMPLING, n_users, n_items)
    transposed = matrix.T.tocsr()
    first = np.random.default_rng(seed).standard_normal((n_items, width), dtype=np.float32)
    basis, strength = _orthonormal(_product(matrix, first, threads))
    del first
    shift = np.float32(0)
    for _ in range(power_iterations):
        across = _product(transposed, basis, threads)
        if (strength[-1:] < STEEP * strength[:1]).any():
            across = _orthonormal(across)[0]
            basis, strength = _orthonormal(_product(matrix, across, threads))
            del across
            continue
        stepped = _product(matrix, across, threads)
        basis *= shift
        basis = np.subtract(stepped, basis, out=stepped)
        del across, stepped  # they would raise the peak of memory by two thirds
        basis, strength = _orthonormal(basis)
        if len(strength) >= rank:
            shift = max(shift, np.float32(strength[rank - 1] + shift) / 2)
    profile = _product(transposed, basis, threads)  # (I, width): the matrix is close to basis @ profile.T
    rotation, strength = _principal(profile, NOISE)
    rotation, strength = rotation[:, :rank], strength[:rank]
    right = product(profile, rotation / strength)  # Q
    if n_items:
        right *= np.where(right.max(axis=0) < -right.min(axis=0), np.float32(-1), np.float32(1))
    pad = (0, rank - len(strength))
    return Sketch(
        np.pad(right, ((0, 0), pad)), np.pad((strength / np.sqrt(share)).astype(np.float32), pad), scale
    )


def projected(
    block: PairRows,
    scores: NDArray[np.float64],
    sums: NDArray[np.float64],
    other_sums: NDArray[np.float64],
    vectors: NDArray[np.float32],
    stretch: NDArray[np.float32],
    normalize: str,
) -> dict[str, NDArray]:
    """Read a node's vector: the sum over its own pairs of normalised score times the other node's vector,
    stretched.

    Args:
        block: Of n nodes.
        scores: Score of every task mask. Shape (2^T,).
        sums: Score sum of every node of this side. Shape (U,) or (I,).
        other_sums: Of the nodes of the other side, from when the sketch was learned. Shape (at most I,) or
            (at most U,).
        vectors: Of the same nodes; a pair with any other node is skipped. Shape (as other_sums, rank).
        stretch: Factor of each column. Shape (rank,).
        normalize: `degree` or `none`.

    Returns:
        `vectors` (n, rank).
    """
    out = np.zeros((len(block), vectors.shape[1]), np.float32)
    _project(block.scored(scores), block.of(sums), other_sums, normalize == "degree", vectors, out)
    return {"vectors": out * stretch}


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows divided by their length, and zero rows as they are. Otherwise popularity fills the first
    direction.
    """
    columns = vectors.T.astype(np.float64, order="C")
    length = np.sqrt(sum(columns * columns))[:, None]  # one column after another: in one order everywhere
    out = np.zeros(vectors.shape, np.float32)
    return np.divide(vectors, length, out=out, where=length > 0, casting="same_kind")


def _product(matrix: sp.csr_array, dense: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Return `matrix @ dense`, computed on threads in parts of equal work.

    It equals SciPy's product bit for bit, and takes a fraction of the time.
    """
    rows = len(matrix.indptr) - 1
    out = np.zeros((rows, dense.shape[1]), np.float32)
    cuts = [0, *np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, threads + 1)[1:-1]).tolist(), rows]

    def part(first: int, last: int) -> None:
        _multiply(matrix.indptr[first : last + 1], matrix.indices, matrix.data, dense, out[first:last])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, cuts[:-1], cuts[1:]))
    return out


def _orthonormal(columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return an orthonormal basis of the columns' span, and the singular values of its directions.

    Columns that add nothing are left out.
    """
    rotation, strength = _principal(columns, ROUNDING)
    return product(columns, rotation / strength), strength


def _principal(columns: NDArray[np.float32], noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return right singular vectors and singular values above the noise, descending, from the small Gram
    matrix.

    Shapes (width, span), (span,).
    """
    gram = np.zeros((columns.shape[1], columns.shape[1]))
    for first in range(0, len(columns), GRAM_ROWS):
        rows = columns[first : first + GRAM_ROWS].astype(np.float64)
        gram += product(rows.T, rows)
    squares, rotation = eigen(gram)
    strength = np.sqrt(np.maximum(squares, 0))
    span = int((strength > noise * strength.max(initial=0)).sum())
    return rotation[:, :span], strength[:span]


@kernel("out")
def _values(pairs, sums, other_sums, degree, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    for row in range(len(sums)):
        for e in range(indptr[row], indptr[row + 1]):
            value = scores[task_mask[e]]
            if degree:
                value /= np.sqrt(sums[row] * other_sums[other[e]])
            out[e] = value


@kernel("out")
def _multiply(indptr, other, values, dense, out):  # pragma: no cover - compiled
    width, pairs, flat = dense.shape[1], len(other), dense.reshape(-1)
    total = np.empty(width, np.float32)  # with it, and with the value read once, the sums run on vectors
    for row in range(len(out)):
        total[:] = 0
        for e in range(indptr[row], indptr[row + 1]):
            if e + AHEAD < pairs:
                prefetch_far(flat, np.int64(other[e + AHEAD]) * width, width)
            value, column = values[e], other[e]
            for d in range(width):
                total[d] += value * dense[column, d]
        for d in range(width):  # numba takes a second to compile the assignment of a row
            out[row, d] = total[d]


@kernel("out")
def _project(pairs, sums, other_sums, degree, vectors, out):  # pragma: no cover - compiled
    indptr, other, task_mask, scores = pairs
    known, rank, n, flat = len(other_sums), vectors.shape[1], len(other), vectors.reshape(-1)
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            if e + AHEAD < n:
                prefetch(flat, np.int64(other[e + AHEAD]) * rank, rank)
            j = other[e]
            if j >= known or other_sums[j] <= 0:
                continue
            value = scores[task_mask[e]]
            if degree:
                value /= np.sqrt(sums[row] * other_sums[j])
            value = np.float32(value)
            for d in range(rank):
                out[row, d] += value * vectors[j, d]
