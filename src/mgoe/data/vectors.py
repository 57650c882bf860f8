"""Vectors of users and items, such as an encoder makes of texts and images: whitened once, stored per node.

A vector is centred and projected onto the directions in which those of its table differ most, each scaled to
a deviation of 1. What encoders make has a few directions that hold nearly all of the variance, and the means
of all numbers are far from 0: unscaled, a model would read those few alone.

Axes: `n` vectors, `W` their width, `P` numbers that are kept of each.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.linalg import eigh

from mgoe.data.arrow import is_list, pc, to_arrow
from mgoe.errors import DataError

logger = logging.getLogger(__name__)

WIDEST = 4096
"""Numbers of a vector, at most."""
DIRECTIONS = 64
"""Numbers that are kept of each vector, at most."""
FITTED = 1 << 25
"""Numbers of a table that directions are learned from, at most: those of evenly spaced rows."""
FLAT = 1e-6
"""A direction with less than this share of the variance of the first is left out."""
LIMIT = 100.0
"""Whitened numbers are clipped here, so that 16 bits hold each."""
RANGE = (0.001, 0.999)
"""Quantiles of the distances from the mean between which a vector is usual."""
ANY = (0.0, 1e300)
"""Usual distances where there are too few vectors to tell."""


@dataclass(frozen=True)
class Space:
    """The vectors of one encoder: where they lie, and how they are whitened.

    Attributes:
        base: The mean, and below it the directions, each divided by its deviation. Shape (P + 1, W).
        noise: Variance of a number in the directions that are left out.
        usual: Between which distances nearly all vectors lie that it was fitted on, see `distances`.

    Example:
        >>> space = Space.fit(np.random.default_rng(0).normal(3, 2, (50, 4)), "titles")
        >>> space.encode(np.full((1, 4), np.nan))
        array([[0., 0., 0., 0., 0.]], dtype=float16)
    """

    base: NDArray[np.float32]
    noise: float
    usual: tuple[float, float]

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.base.shape[1]

    @classmethod
    def fit(cls, vectors: NDArray[np.floating], place: str) -> Space:
        """Find mean and directions (principal components) of some vectors; signs are fixed.

        Args:
            vectors: Rows of NaN are missing. Shape (n, W).
            place: What they are, for messages.

        Raises:
            DataError: All are missing.
        """
        held = vectors[~np.isnan(vectors[:, 0])].astype(np.float64)
        if not len(held):
            raise DataError(place, "some row must have a vector, found none; leave the feature out")
        mean = held.mean(0)
        held -= mean
        covariance = held.T @ held / len(held)
        width = len(mean)
        values, axes = eigh(covariance, subset_by_index=(max(0, width - DIRECTIONS), width - 1))
        kept = values > max(FLAT * values[-1], 1e-12)
        values, axes = values[kept][::-1], axes.T[kept][::-1]
        axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
        rest = max(0.0, float(covariance.trace() - values.sum())) / max(1, width - len(values))
        base = np.vstack([mean, axes / np.sqrt(values)[:, None]]).astype(np.float32)
        space = cls(base, max(rest, FLAT * float(values.max(initial=1.0))), ANY)
        if len(held) < 10 * len(values):  # too few to tell what is usual
            return space
        low, high = np.quantile(space.distances(held + mean), RANGE).tolist()
        return cls(base, space.noise, (low, high))

    def encode(self, vectors: NDArray[np.floating]) -> NDArray[np.float16]:
        """Return the whitened numbers of each vector, then 1; 0 throughout where it is missing.

        Args:
            vectors: Rows of NaN are missing. Shape (n, W).

        Returns:
            Shape (n, P + 1).
        """
        white = np.ones((len(vectors), len(self.base)))
        # in 64 bits, so that a vector gives the same 16 bits alone and among others
        white[:, :-1] = (vectors.astype(np.float64) - self.base[0]) @ self.base[1:].T.astype(np.float64)
        white[np.isnan(white).any(1)] = 0
        return white.clip(-LIMIT, LIMIT).astype(np.float16)

    def distances(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the squared distance of each vector from the mean, per number, in deviations: 1 on average.

        It is that of Mahalanobis, with one variance for all directions that are left out. Shape (n,).
        """
        centred = vectors.astype(np.float64) - self.base[0]
        axes = self.base[1:].astype(np.float64)
        white = centred @ axes.T
        rest = (centred**2).sum(1) - (white**2) @ (1 / (axes**2).sum(1))
        return ((white**2).sum(1) + np.maximum(rest, 0) / self.noise) / self.width

    def warn(self, vectors: NDArray[np.floating], place: str) -> None:
        """Log a warning if most of some vectors are unlike nearly all of those that it was fitted on."""
        held = vectors[~np.isnan(vectors[:, 0])]
        if len(held) and not self.usual[0] <= np.median(self.distances(held)) <= self.usual[1]:
            logger.warning(
                "%s: vectors must come from the encoder of those that the model learned from, found most of "
                "%s unlike nearly all of these; encode them as before, or train again",
                place,
                f"{len(held):,}",
            )


def as_vectors(values: Any, width: int, place: str, first: int = 0, step: int = 1) -> NDArray[np.floating]:
    """Return a column of vectors as an array, with rows of NaN where one is missing. Shape (n, W).

    Args:
        values: A two-dimensional array, or a column of lists that `to_arrow` takes.
        width: W.
        place: What they are, for messages.
        first, step: Number of the first row, from 0, and the distance to the next, for messages.

    Raises:
        DataError: They are no lists of numbers, one has another width, is not finite, or is 0 throughout.
    """
    if getattr(values, "ndim", 1) == 2:
        numbers = np.asarray(values)
        lengths = np.full(len(numbers), numbers.shape[1])
    else:
        held = to_arrow(values, place)
        if pa.types.is_null(held.type):
            return np.full((len(held), width), np.nan, np.float32)
        if not is_list(held.type) or not _is_number(held.type.value_type):
            raise DataError(place, f"a vector is a list of numbers, found {held.type}; convert it")
        lengths = pc.fill_null(pc.list_value_length(held), width).to_numpy(zero_copy_only=False)
        flat = pc.list_flatten(held).to_numpy(zero_copy_only=False)
        numbers = np.full((len(held), width), np.nan, np.result_type(flat, np.float16))
        if (lengths == width).all():
            numbers[held.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, width)
    empty = np.isnan(numbers).all(1)
    for bad, rule, found, fix in (
        (lengths != width, f"each has {width} numbers", lengths, "cut or encode it again"),
        (
            ~np.isfinite(numbers).all(1) & ~empty,
            "the numbers of a vector must be finite",
            "NaN or infinity",
            "encode it again, or leave it missing",
        ),
        (
            (numbers == 0).all(1),
            "a vector must say something",
            "only zeros",
            "leave it missing: null, or NaN throughout in an array",
        ),
    ):
        if len(rows := np.flatnonzero(bad)):
            shown = found if isinstance(found, str) else found[rows[0]]
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            raise DataError(place, f"{rule}, found {shown} in row {first + step * rows[0] + 1}{more}; {fix}")
    return numbers


def open_vectors(file: Path, rows: int) -> NDArray[np.floating]:
    """Open the vectors of a table in a `.npy` file, memory-mapped. Shape (rows, W).

    Raises:
        DataError: It cannot be read, or does not fit the table.
    """
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(file, f"must be an array that `numpy.save` wrote, found that {error}") from None
    if found.dtype.kind != "f" or found.ndim != 2 or len(found) != rows:
        raise DataError(
            file,
            f"must hold a vector of floats for each of the {rows:,} rows of its table, in their order, found "
            f"the shape {found.shape} of {found.dtype}; save it again beside the table",
        )
    return found


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
