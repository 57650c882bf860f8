"""What each item adds to a model's first layers: one stored row of floats per item.

Compiled loops add the rows of one request's items to its users' rows. A row is fetched into the cache before
it is read. Rows are floats of 32 bits, or the upper 16 of these (bfloat16), given as words: `word << shift`
are the 32 bits.

Axes: `B` items of a request, `U` users, `F` floats per row.
"""

import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgoe._util.kernels import kernel
from mgoe.graph.memory_hints import prefetch_far

AHEAD = 4
"""Items between fetching a row and reading it: rows have some kilobytes."""
BLOCK_ROWS = 4096
ComputeRows = Callable[[NDArray[np.int64]], Tensor]
"""Computes the rows of some items by index, -1 for an item without history: (B,) -> (B, F)."""


@kernel()
def take(words, items, shift, users, own, ends):  # pragma: no cover - compiled
    """Return rows of items, with those of their users added, from rows (U, F) and each item's user, (B,),
    piece by piece. Shape (B F,): of each piece, which ends at the next of `ends` in a row, (B, floats of the
    piece)."""
    n, length = len(items), words.shape[1]
    bits, flat = np.empty(n * length, np.uint32), words.reshape(-1)
    floats = bits.view(np.float32)
    for b in range(n):
        if b + AHEAD < n:
            prefetch_far(flat, items[b + AHEAD] * length, length)
        row, user, start = words[items[b]], users[own[b]], 0
        for end in ends:
            at = n * start + b * (end - start)
            place = slice(at, at + end - start)
            held, sums, out, added = row[start:end], floats[place], bits[place], user[start:end]
            for k in range(len(out)):  # over slices, the loops run on vectors
                out[k] = np.uint32(held[k]) << shift
            for k in range(len(out)):
                sums[k] += added[k]
            start = end
    return floats


class ItemRows:
    """Rows of all items, and one before them for items without history.

    Args:
        compute: Computes rows. It is not kept, since it usually belongs to the owner of these rows: a
            reference back would keep both in memory.
        items: How many items there are.
        width: F; rows of width 0 are never computed.
        dtype: What rows are stored in: float32 or bfloat16.
    """

    def __init__(self, compute: ComputeRows, items: int, width: int, dtype: torch.dtype):
        self._held = (
            allocate(_capacity(items), width, dtype),
            0,
        )  # one reference, as readers need both as of one time
        self.update(np.arange(items), items, compute)
        self.update(np.array([-1]), items, compute)

    def take(
        self, items: NDArray[np.int64], users: Tensor, own: NDArray[np.int64], pieces: Sequence[int]
    ) -> Sequence[Tensor]:
        """Return the pieces of the sum of each item's row and its user's in float32, from rows (U, F) and the
        place of each item's user, (B,). Shapes (B, floats of the piece)."""
        taken = take(*self._words(items), users.numpy(), own, np.cumsum(pieces))
        apart = torch.from_numpy(taken).split([len(items) * floats for floats in pieces])
        return [piece.view(len(items), floats) for piece, floats in zip(apart, pieces, strict=True)]

    def update(self, items: NDArray[np.int64], total: int, compute: ComputeRows) -> None:
        """Recompute some rows in place; nobody may read meanwhile. From now on there are `total` items."""
        rows, count = self._held
        if total >= len(rows):
            larger = allocate(_capacity(total), rows.shape[1], rows.dtype)
            larger[: count + 1] = rows[: count + 1]
            rows = larger
        for start in range(0, len(items), BLOCK_ROWS) if rows.shape[1] else ():
            block = items[start : start + BLOCK_ROWS]
            rows[torch.from_numpy(block + 1)] = compute(block).to(rows.dtype)
        self._held = rows, max(total, count)

    def _words(self, items: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64], np.uint32]:
        """Return all rows as the words of `take`, the places of items among them, and the shift."""
        rows, count = self._held
        words = rows.view(torch.uint16 if rows.dtype == torch.bfloat16 else torch.uint32).numpy()
        places = np.where((items < 0) | (items >= count), 0, items + 1)
        return words, places, np.uint32(32 - 8 * rows.dtype.itemsize)


def _capacity(items: int) -> int:
    """Rows to allocate: those of an eighth more items take no memory before they come."""
    return items + items // 8 + 1


def allocate(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return a matrix, in large memory pages if the system has them: they make random reads faster."""
    size = rows * width * dtype.itemsize
    if not size or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty((rows, width), dtype=dtype)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory rarely gets large pages
    memory = mmap.mmap(-1, size, flags=private)
    with suppress(OSError):  # a system without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(rows, width)
