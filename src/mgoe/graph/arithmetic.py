"""Arithmetic that rounds alike on every machine: on any number of threads, on any kind of processor.

A rounding can decide a macro node, and what a model has learned holds for its own macro nodes alone. BLAS,
LAPACK and the mathematical functions of NumPy, SciPy and the system choose their instructions and the order
of their sums by the processor, and BLAS by the threads too. So a graph is computed from additions,
multiplications, divisions and square roots, which IEEE 754 rounds in one way, in an order of our own. The
compiler neither reorders nor fuses them, since no kernel here asks for that.
"""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mgoe._util.kernels import kernel

LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""The logarithm of 2. The first has zeros at its end, so that its products with exponents are exact."""
HALF_LOG_TWO_PI = 0.9189385332046728
SWEEPS = 60
"""Of rotations; 8 to 25 are usual, and the others find nothing to turn."""


def log(values: NDArray | float, kind: DTypeLike = np.float64) -> NDArray:
    """Return natural logarithms, to 3 units in the last place; minus infinity unless a value is positive.

    Example:
        >>> log(np.array([1.0, 0.0]))
        array([  0., -inf])
    """
    return _each(_log, values, kind)


def exp(values: NDArray | float, kind: DTypeLike = np.float64) -> NDArray:
    """Return exponentials, to 2 units in the last place; those beyond a double are the nearest to it.

    Example:
        >>> float(exp(0.0))
        1.0
    """
    return _each(_exp, values, kind)


def log_gamma(values: NDArray | float) -> NDArray[np.float64]:
    """Return logarithms of the gamma function of positive values.

    Example:
        >>> abs(float(log_gamma(5.0)) - float(log(24.0))) < 1e-12
        True
    """
    x, factor = np.asarray(values, np.float64), 1.0
    for k in range(12):
        factor = factor * (x + k)
    x = x + 12
    z = 1 / (x * x)  # of Stirling's series
    series = 1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z * (1 / 1188 - z * 691 / 360360))))
    return (x - 0.5) * log(x) - x + HALF_LOG_TWO_PI + series / x - log(factor)


def product(one: NDArray, other: NDArray) -> NDArray:
    """Return the product of two matrices, in the precision of the first.

    Example:
        >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
        array([[11.]])
    """
    out = np.zeros((len(one), other.shape[1]), one.dtype)
    _add_product(np.ascontiguousarray(one), np.ascontiguousarray(other, one.dtype), out)
    return out


def eigen(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues, descending, and eigenvectors as columns of a symmetric matrix without negative ones
    (Jacobi's method). Shapes (n,), (n, n).

    Example:
        >>> eigen(np.diag([1.0, 4.0]))[0]
        array([4., 1.])
    """
    both = np.hstack([matrix, np.eye(len(matrix))])
    _rotate(both)
    values, vectors = both.diagonal(), both[:, len(matrix) :].T
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def _each(kernel, values: NDArray | float, kind: DTypeLike) -> NDArray:
    values = np.asarray(values, np.float64)
    out = np.empty(values.shape)
    kernel(np.ravel(values), out.reshape(-1))
    return out.astype(kind, copy=False)


@kernel(inner=True, inline="always")
def exp_of(x):  # pragma: no cover - compiled
    """Return one exponential: a power of 2 times that of a rest of at most ln 2 / 2, by its Taylor series."""
    x = min(max(x, -708.0), 709.0)
    power = np.floor(x / LN2_HIGH + 0.5)
    rest = x - power * LN2_HIGH - power * LN2_LOW
    series = 1.0
    for k in range(14, 0, -1):
        series = 1 + series * rest / k
    return series * np.int64((np.int64(power) + 1023) << 52).view(np.float64)


@kernel("out")
def _log(values, out):  # pragma: no cover - compiled
    """Write logarithms: a value is a power of 2 times m, from the root of 1/2 to that of 2, and ln m is 2
    artanh((m - 1) / (m + 1))."""
    for i in range(len(values)):
        bits = np.float64(values[i]).view(np.int64)
        exponent, series = (bits - 0x3FE6A09E667F3BCD) >> 52, 0.0
        m = np.int64(bits - (exponent << 52)).view(np.float64)
        s = (m - 1) / (m + 1)
        for k in range(10, -1, -1):
            series = series * (s * s) + 1 / (2 * k + 1)
        found = exponent * LN2_HIGH + (exponent * LN2_LOW + 2 * s * series)
        out[i] = found if values[i] > 0 else -np.inf


@kernel("out")
def _exp(values, out):  # pragma: no cover - compiled
    for i in range(len(values)):
        out[i] = exp_of(values[i])


@kernel("out")
def _add_product(one, other, out):  # pragma: no cover - compiled
    depth = one.shape[1]
    for row in range(len(one)):
        for k in range(0, depth - 3, 4):  # in the same order as one at a time, with a quarter of the memory
            a, b, c, d = one[row, k], one[row, k + 1], one[row, k + 2], one[row, k + 3]
            for j in range(out.shape[1]):
                two = out[row, j] + a * other[k, j] + b * other[k + 1, j]
                out[row, j] = two + c * other[k + 2, j] + d * other[k + 3, j]
        for k in range(depth // 4 * 4, depth):
            for j in range(out.shape[1]):
                out[row, j] += one[row, k] * other[k, j]


@kernel("both")
def _rotate(both):  # pragma: no cover - compiled
    """Make the left half diagonal; the rows of the right half are turned along."""
    n = len(both)
    for _ in range(SWEEPS):
        for p in range(n - 1):
            for q in range(p + 1, n):
                low, across, high = both[p, p], both[p, q], both[q, q]
                if abs(across) > 1e-15 * np.sqrt(abs(low * high)):
                    half = (high - low) / (2 * across)
                    tangent = (1.0 if half >= 0 else -1.0) / (abs(half) + np.sqrt(half * half + 1))
                    cosine = 1 / np.sqrt(tangent * tangent + 1)
                    sine = tangent * cosine
                    for k in range(both.shape[1]):
                        one, other = both[p, k], both[q, k]
                        both[p, k], both[q, k] = cosine * one - sine * other, sine * one + cosine * other
                    low, high = low - tangent * across, high + tangent * across
                    both[p, p], both[q, q], both[p, q], both[q, p] = low, high, 0.0, 0.0
                    for k in range(n):  # slices would take a second longer to compile
                        both[k, p], both[k, q] = both[p, k], both[q, k]
