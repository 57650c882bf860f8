"""The order of streamed rows: readers take turns, each with rows of its own, which it shuffles in windows.

Row groups in random order are cut into `V` consecutive stretches of equal numbers of rows, one per reader.
Place `j` of the order is row `j // V` of reader `j mod V`. So the order is a function of the seed, the row
groups, `V` and the windows, and not of the number of processes. A process that needs every `P`-th place reads
`V / P` of the stretches if `P` is a divisor of `V` (ours).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe.data.examples import Examples, join

Part = TypeVar("Part")


class Piece(NamedTuple):
    """Consecutive rows of one row group.

    Attributes:
        group: Number of the row group.
        first: Its first row in the group.
        rows: Number of rows.
    """

    group: int
    first: int
    rows: int


def stretches(sizes: NDArray[np.int64], order: NDArray[np.int64], readers: int) -> list[list[Piece]]:
    """Return what each reader reads: consecutive parts of all rows, equal to within one row.

    Args:
        sizes: Rows of each row group. Shape (G,).
        order: Order of the row groups. Shape (G,).
        readers: Number of readers; the first ones have a row more where rows are left.

    Example:
        >>> first, second = stretches(np.array([3, 2]), np.array([1, 0]), readers=2)
        >>> first
        [Piece(group=1, first=0, rows=2), Piece(group=0, first=0, rows=1)]
        >>> second
        [Piece(group=0, first=1, rows=2)]
    """
    ends = np.cumsum(sizes[order])
    each, more = divmod(int(sizes.sum()), readers)
    starts = np.arange(readers + 1) * each + np.minimum(np.arange(readers + 1), more)
    edges = np.union1d(starts, ends)
    number = np.searchsorted(ends, edges[:-1], side="right")
    first = edges[:-1] - (ends - sizes[order])[number]
    columns = order[number].tolist(), first.tolist(), np.diff(edges).tolist()
    pieces = [Piece(*piece) for piece in zip(*columns, strict=True)]
    return [pieces[low:high] for low, high in pairwise(np.searchsorted(edges, starts).tolist())]


class StretchReader:
    """Read the rows of a stretch in their own order or in that of a shuffle, one window at a time.

    Args:
        pieces: The stretch.
        rows: Rows of a window at most, unless one piece has more.
        read: Returns the rows of a window.
        seed: Seed of the shuffle; None keeps the order.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        rows: int,
        read: Callable[[Sequence[Piece]], Examples],
        seed: Sequence[int] | None,
    ):
        self._windows = list(together(((piece, piece.rows) for piece in pieces), rows))
        self._starts = np.cumsum([0, *(sum(piece.rows for piece in window) for window in self._windows)])
        self._read, self._seed = read, seed
        self._number, self._window, self._order = -1, None, np.arange(0)

    def take(self, rows: NDArray[np.int64]) -> Iterator[Examples]:
        """Yield rows of the stretch, whose numbers rise from call to call, in one part per window."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            if number != self._number:
                self._window = None  # before the next one is read
                self._window, self._number = self._read(self._windows[number]), number
                self._order = np.arange(len(self._window))
                if self._seed is not None:
                    self._order = np.random.default_rng([*self._seed, number]).permutation(self._order)
            assert self._window is not None
            yield self._window.take(self._order[rows[numbers == number] - self._starts[number]])


def rows_at(places: NDArray[np.int64], readers: Sequence[StretchReader]) -> Examples:
    """Return the rows at places of the order, at least one; places rise from call to call."""
    if len(readers) == 1:
        return join(list(readers[0].take(places)))
    turns = places % len(readers)
    by_reader = np.argsort(turns, kind="stable")
    numbers, firsts = np.unique(turns[by_reader], return_index=True)
    rows = np.split((places // len(readers))[by_reader], firsts[1:])
    parts = (
        part
        for number, mine in zip(numbers.tolist(), rows, strict=True)
        for part in readers[number].take(mine)
    )
    return gathered(len(places), parts, by_reader)


def together(parts: Iterable[tuple[Part, int]], rows: int) -> Iterator[list[Part]]:
    """Yield parts that follow each other, as many together as have at most so many rows, at least one."""
    held, taken = [], 0
    for part, size in parts:
        if held and taken + size > rows:
            yield held
            held, taken = [], 0
        held.append(part)
        taken += size
    if held:
        yield held


def gathered(count: int, parts: Iterable[Examples], places: NDArray[np.int64] | None = None) -> Examples:
    """Return all parts as one; besides it, memory holds one part at a time.

    Args:
        count: Rows of all parts, at least one.
        parts: The parts.
        places: Where their rows belong; one after the other by default. Shape (N,).
    """
    whole, start = None, 0
    for part in parts:
        if whole is None:
            whole = part.changed(lambda column: np.empty((count, *column.shape[1:]), column.dtype))
        rows = slice(start, start + len(part))
        for column, values in zip(whole.columns(), part.columns(), strict=True):
            column[rows if places is None else places[rows]] = values
        start += len(part)
    assert whole is not None
    return whole
