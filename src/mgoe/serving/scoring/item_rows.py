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

from mgoe.serving.scoring.row_kernels import mix, take

BLOCK_ROWS = 4096
ComputeRows = Callable[[NDArray[np.int64]], Tensor]
"""Rows of some items by code: (B,) -> (B, F)."""


class ItemRows:
    """Rows of all items, and before them that of those without history.

    Args:
        rows: Computes some of them. It is not kept: it belongs to who keeps these, and both shall end together.
        items: I.
        width: F.
        dtype: Rows are kept in.
    """

    def __init__(self, rows: ComputeRows, items: int, width: int, dtype: torch.dtype):
        kept = in_large_pages(_room(items), width, dtype)
        for start in range(0, items, BLOCK_ROWS) if width else ():
            codes = np.arange(start, min(start + BLOCK_ROWS, items))
            kept[start + 1 : start + 1 + len(codes)] = rows(codes)
        kept[0] = rows(np.array([-1]))[0] if width else 0
        self._held = kept, items  # in one, as others replace both while some read

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        kept, items = self._held
        return kept[: items + 1].nbytes

    def take(self, items: NDArray[np.int64]) -> Tensor:
        """Rows of items, in float32. Shape (B, F)."""
        kept, known = self._found(items)
        words, shift = _words(kept)
        return torch.from_numpy(take(words, known, shift))

    def mix(self, items: NDArray[np.int64], user: Tensor, experts: int, tasks: int, gates: int) -> Tensor:
        """See `row_kernels.mix`; the user has one row, or one an item. Shape (T, B, W)."""
        kept, known = self._found(items)
        if len(user) > 1:
            kept, known, user = self.take(items) + user, np.arange(len(items)), torch.zeros_like(user[:1])
        words, shift = _words(kept)
        return torch.from_numpy(mix(words, known, shift, user[0].numpy(), experts, tasks, gates))

    def _found(self, items: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """All rows, and the numbers of those of items."""
        kept, count = self._held
        return kept, np.where((items < 0) | (items >= count), 0, items + 1)

    def renew(self, items: NDArray[np.int64], total: int, rows: ComputeRows) -> None:
        """Compute some rows again; items are as many as `total` from now on. Rows are written in place: nobody may take some meanwhile."""
        kept, count = self._held
        if total >= len(kept):
            room = in_large_pages(_room(total), kept.shape[1], kept.dtype)
            room[: count + 1] = kept[: count + 1]
            kept = room
        for start in range(0, len(items), BLOCK_ROWS):
            codes = items[start : start + BLOCK_ROWS]
            kept[torch.from_numpy(codes + 1)] = rows(codes).to(kept.dtype)
        self._held = kept, max(total, count)


def _room(items: int) -> int:
    """Rows to ask the system for: those of an eighth more items take no memory before they come."""
    return items + items // 8 + 1


def _words(rows: Tensor) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], np.uint32]:
    """Rows as `row_kernels` read them, and the shift."""
    return rows.view(torch.uint16 if rows.dtype == torch.bfloat16 else torch.uint32).numpy(), np.uint32(
        32 - 8 * rows.dtype.itemsize
    )


def in_large_pages(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """A matrix in memory that the system maps in large pages where it can, so that fewer look-ups find rows that lie anywhere."""
    size = rows * width * dtype.itemsize
    if not size:
        return torch.empty((rows, width), dtype=dtype)
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty((rows, width), dtype=dtype)
    room = mmap.mmap(
        -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # what is shared seldom gets large pages
    with suppress(OSError):  # a system without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=torch.uint8).view(dtype).view(rows, width)
