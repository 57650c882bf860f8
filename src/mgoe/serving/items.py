"""What each item adds to a model's first layers, computed once and kept: a row of floats an item.

Axes: `I` items, `F` floats a row, `B` items of a request.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgoe.serving.row_kernels import mix, take

BLOCK_ROWS = 4096
Rows = Callable[[NDArray[np.int64]], Tensor]
"""Rows of some items by code: (B,) -> (B, F)."""


class ItemRows:
    """Rows of all items, the last one of those without history.

    Args:
        rows: Computes some of them.
        items: I.
        width: F.
        dtype: Rows are kept in.
        done: Told how many more rows there are, as they come.
    """

    def __init__(self, rows: Rows, items: int, width: int, dtype: torch.dtype, done: Callable[[int], None]):
        self._rows, self.items = rows, items
        self._kept = in_large_pages(items + 1, width, dtype)
        for start in range(0, items, BLOCK_ROWS) if width else ():
            codes = np.arange(start, min(start + BLOCK_ROWS, items))
            self._kept[start : start + len(codes)] = rows(codes)
            done(len(codes))
        self._kept[items] = rows(np.array([-1]))[0] if width else 0

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return self._kept.nbytes

    def take(self, items: NDArray[np.int64]) -> Tensor:
        """Rows of items, in float32. Shape (B, F)."""
        words, shift = _words(self._kept)
        return torch.from_numpy(take(words, self._known(items), shift))

    def mix(self, items: NDArray[np.int64], user: Tensor, experts: int, tasks: int, gates: int) -> Tensor:
        """See `row_kernels.mix`; the user has one row, or one an item. Shape (T, B, W)."""
        kept, known = self._kept, self._known(items)
        if len(user) > 1:
            kept, known, user = self.take(items) + user, np.arange(len(items)), torch.zeros_like(user[:1])
        words, shift = _words(kept)
        return torch.from_numpy(mix(words, known, shift, user[0].numpy(), experts, tasks, gates))

    def _known(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of rows."""
        return np.where((items < 0) | (items >= self.items), self.items, items)

    def renew(self, items: NDArray[np.int64], total: int) -> None:
        """Compute some rows again; items are as many as `total` from now on. Who takes rows meanwhile has all old or all new ones."""
        kept, count = self._kept, self.items
        if total > count:
            room = in_large_pages(max(total, count + count // 8) + 1, kept.shape[1], kept.dtype)
            room[:count] = kept[:count]
            room[total:] = kept[count]
            kept = room
        for start in range(0, len(items), BLOCK_ROWS):
            codes = items[start : start + BLOCK_ROWS]
            kept[torch.from_numpy(codes)] = self._rows(codes).to(kept.dtype)
        self._kept, self.items = kept, max(total, count)


def _words(rows: Tensor) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], np.uint32]:
    """Rows as `row_kernels` read them, and the shift."""
    return rows.view(torch.uint16 if rows.dtype == torch.bfloat16 else torch.uint32).numpy(), np.uint32(32 - 8 * rows.dtype.itemsize)


def in_large_pages(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """A matrix in memory that the system maps in large pages where it can, so that fewer look-ups find rows that lie anywhere."""
    size = rows * width * dtype.itemsize
    if not size:
        return torch.empty((rows, width), dtype=dtype)
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty((rows, width), dtype=dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # what is shared seldom gets large pages
    with suppress(OSError):  # a system without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=torch.uint8).view(dtype).view(rows, width)
