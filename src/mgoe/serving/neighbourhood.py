"""The cosines of one user with the recent users of many items, read from a quarter of the memory and yet exact (ours).

Vectors of the recent users of every item are what a request waits for. So each user's direction is also kept in 8 bits a number: they tell
a cosine up to an error that is known, and only a neighbour that may be the closest is read in full. The mean of the cosines is the product
with a mean of directions, which is kept an item.

Axes: `U` users, `I` items, `R` recent users.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from mgoe.graph.prefetch import prefetch, prefetch_row

BLOCK_ROWS = 1 << 15
AHEAD, NEAR = 8, 2
"""Items between asking for what a row begins with, or for the directions of its users, and reading them."""
FAINT = 1e-14
"""Product of squared lengths from which `graph.gather` divides by lengths alone, to single precision."""


class Neighbourhood:
    """Directions of all users, and the mean direction of each item's recent ones: rank + 4 bytes a user, 4 rank an item.

    Args:
        vectors: Of users. Shape (U, rank).
        recent: Recent users of items, -1 at the end. Shape (I, R).
    """

    def __init__(self, vectors: NDArray[np.float32], recent: NDArray[np.int32]):
        self._vectors, self._recent = vectors, recent
        self.codes = np.empty(vectors.shape, np.int8)
        self.scale = np.zeros(len(vectors), np.float32)
        lengths = np.zeros(len(vectors), np.float32)
        for start in range(0, len(vectors), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            lengths[rows] = np.linalg.norm(vectors[rows], axis=1)
            direction = vectors[rows] / np.maximum(lengths[rows], 1e-30)[:, None]
            self.scale[rows] = np.abs(direction).max(1, initial=0) / 127
            self.codes[rows] = np.rint(direction / np.maximum(self.scale[rows], 1e-30)[:, None])
        self.mean = np.zeros((len(recent), vectors.shape[1]), np.float32)
        _means(vectors, lengths, recent, self.mean)
        self._shortest = float(lengths[lengths > 0].min(initial=np.inf))

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes + self.mean.nbytes

    def read(self, user: NDArray[np.float32], items: NDArray[np.int64], skip: NDArray[np.int32], out: NDArray[np.float32]) -> bool:
        """Largest and mean cosine of a user with the recent users of each item.

        Args:
            user: Its vector. Shape (rank,).
            items: Codes, -1 without history. Shape (B,).
            skip: Items whose entry is not negative are left out. Shape (I,) or (0,).
            out: Shape (B, 2).

        Returns:
            False, and nothing is read, where vectors are so short that a cosine depends on their lengths.
        """
        length = float(np.linalg.norm(user))
        if (length * self._shortest) ** 2 < FAINT:
            return False
        _read(user / np.float32(length), self._vectors, self._recent, self.codes, self.scale, self.mean, items, skip, out)
        return True


@numba.njit(cache=True, nogil=True)
def _means(vectors, lengths, recent, out):  # pragma: no cover - compiled
    flat, rank = vectors.reshape(-1), vectors.shape[1]
    for row in range(len(recent)):
        for neighbour in recent[min(row + 1, len(recent) - 1)]:
            if neighbour >= 0:
                prefetch_row(flat, neighbour, rank)
        n = 0
        while n < recent.shape[1] and recent[row, n] >= 0:
            neighbour = recent[row, n]
            if lengths[neighbour] > 0:
                for d in range(rank):
                    out[row, d] += vectors[neighbour, d] / lengths[neighbour]
            n += 1
        for d in range(rank):
            out[row, d] /= max(n, 1)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _rough(direction, codes):  # pragma: no cover - compiled
    total = np.float32(0)
    for d in range(len(direction)):
        total += direction[d] * np.float32(codes[d])
    return total


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _exact(direction, vector):  # pragma: no cover - compiled
    product, square = np.float32(0), np.float32(0)
    for d in range(len(direction)):
        product += direction[d] * vector[d]
        square += vector[d] * vector[d]
    return product / np.sqrt(square) if square > 0 else np.float32(0)


@numba.njit(cache=True, nogil=True)
def _read(direction, vectors, recent, codes, scale, mean, items, skip, out):  # pragma: no cover - compiled
    n, rank, length = len(items), len(direction), recent.shape[1]
    flat_codes, flat_recent, flat_mean, flat = codes.reshape(-1), recent.reshape(-1), mean.reshape(-1), vectors.reshape(-1)
    error = np.float32(0.5001) * np.abs(direction).sum() + np.float32(1e-5)
    rough = np.empty(length, np.float32)
    for row in range(n):
        far = items[row + AHEAD] if row + AHEAD < n else -1
        if 0 <= far < len(recent):
            prefetch_row(flat_recent, far, length)
        near = items[row + NEAR] if row + NEAR < n else -1
        if 0 <= near < len(recent):
            prefetch_row(flat_mean, near, rank)
            for neighbour in recent[near]:
                if neighbour >= 0:
                    prefetch_row(flat_codes, neighbour, rank)
                    prefetch(scale, neighbour)
        i = items[row]
        if i < 0 or i >= len(recent) or recent[i, 0] < 0 or (i < len(skip) and skip[i] >= 0):
            continue
        least = np.float32(-2)
        for k in range(length):
            neighbour = recent[i, k]
            if neighbour < 0:
                break
            rough[k] = scale[neighbour] * _rough(direction, codes[neighbour])
            least = max(least, rough[k] - error * scale[neighbour])
        largest = np.float32(-1)
        for k in range(length):
            neighbour = recent[i, k]
            if neighbour < 0:
                break
            if rough[k] + error * scale[neighbour] >= least:
                prefetch_row(flat, neighbour, rank)
        for k in range(length):
            neighbour = recent[i, k]
            if neighbour < 0:
                break
            if rough[k] + error * scale[neighbour] >= least:
                largest = max(largest, _exact(direction, vectors[neighbour]))
        out[row, 0], out[row, 1] = largest, _rough(direction, mean[i])
