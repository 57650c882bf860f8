"""Embedding tables, and when their values are drawn: at once, late on their device, or never before
loading."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SPREAD = 0.05
"""Standard deviation of fresh embeddings."""
LATE_ROWS = 1 << 22
"""Smallest number of rows of a table that may be drawn late."""
DRAWN = 1 << 16
"""Rows that are drawn together."""
_late: ContextVar[bool] = ContextVar("late", default=False)


def table(rows: int, width: int, sparse: bool = True) -> nn.Embedding:
    """Return embeddings whose last row, of zeros, is for what training never saw; `rows` counts it."""
    late = sparse and rows >= LATE_ROWS and _late.get()
    embedding = nn.Embedding(rows, width, sparse=sparse, device="meta" if late else None)
    with torch.no_grad():
        embedding.weight.normal_(0, SPREAD)[-1] = 0
    return embedding


@contextmanager
def late_tables() -> Iterator[None]:
    """Make models whose largest tables have no values yet (device `meta`); `fit` draws them on their
    device.

    Example:
        >>> with late_tables():
        ...     found = table(rows=LATE_ROWS, width=1)
        >>> found.weight.device
        device(type='meta')
    """
    token = _late.set(True)
    try:
        yield
    finally:
        _late.reset(token)


def draw_rows(rows: Tensor, first: int, total: int, seed: tuple[int, ...]) -> None:
    """Fill rows of a late table. The values of a row do not depend on which part of the table is drawn.

    Args:
        rows: Rows to fill. Shape (n, width).
        first: Index of the first of them in the table.
        total: Number of rows of the table.
        seed: Seed of the table, not negative.

    Example:
        >>> rows = torch.empty(2, 4)
        >>> draw_rows(rows, first=0, total=100, seed=(0,))
        >>> bool(rows.isfinite().all())
        True
    """
    for block in range(first // DRAWN, -(-(first + len(rows)) // DRAWN)):
        low, high = max(block * DRAWN, first), min((block + 1) * DRAWN, first + len(rows))
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((*seed, block)).generate_state(1, np.uint64)[0])
        )
        drawn = torch.empty(DRAWN, rows.shape[1]).normal_(0, SPREAD, generator=generator)
        rows[low - first : high - first] = drawn[low - block * DRAWN : high - block * DRAWN].to(rows.device)
    if first <= total - 1 < first + len(rows):
        rows[total - 1 - first] = 0


class Undrawn(TorchFunctionMode):
    """Make models without drawing weights that are loaded next: drawing takes as long as loading.

    Example:
        >>> with Undrawn():
        ...     layer = nn.Linear(2, 3)
        >>> layer.weight.shape
        torch.Size([3, 2])
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave a tensor as it is in place of drawing (`uniform_`, `kaiming_normal_`, ...)."""
        kwargs = kwargs or {}
        if func.__name__.endswith(("uniform_", "normal_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
