"""Embedding tables, and when their values are drawn: at once, late where they are held, or never where they are read next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

SPREAD = 0.05
"""Standard deviation of fresh embeddings."""
LATE_ROWS = 1 << 22
"""Rows from which a table may be made late."""
DRAWN = 1 << 16
"""Rows that are drawn together."""
_late: ContextVar[bool] = ContextVar("late", default=False)


def table(rows: int, width: int, sparse: bool = True) -> nn.Embedding:
    """Embeddings with one last row, of zeros, for what training never saw; `rows` counts it."""
    late = sparse and rows >= LATE_ROWS and _late.get()
    embedding = nn.Embedding(rows, width, sparse=sparse, device="meta" if late else None)
    with torch.no_grad():
        embedding.weight.normal_(0, SPREAD)[-1] = 0
    return embedding


@contextmanager
def late_tables() -> Iterator[None]:
    """Inside, models are made whose largest tables have no values yet (device `meta`): `fit` draws them where they are held."""
    token = _late.set(True)
    try:
        yield
    finally:
        _late.reset(token)


def draw_rows(rows: Tensor, first: int, total: int, seed: tuple[int, ...]) -> None:
    """Fill rows of a table that was made late, as many as they are, with what they are in it whatever part of it is drawn.

    Args:
        rows: From row `first` on. Shape (n, width).
        first: Their place in the table.
        total: Rows of the table.
        seed: Of the table, none of them negative.
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


class Undrawn(TorchDispatchMode):
    """Inside, models are made whose weights are not drawn, for those that are read next: drawing takes as long as reading."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func.overloadpacket in (torch.ops.aten.normal_, torch.ops.aten.uniform_)
        return args[0] if drawn else func(*args, **(kwargs or {}))
