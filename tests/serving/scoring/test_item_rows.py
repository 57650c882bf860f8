"""Rows of items are what was computed for them, and what a kernel mixes of them is what the model mixes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.serving.scoring.item_rows import ItemRows, allocate

DTYPES = (torch.float32, torch.bfloat16)
INPUTS = ("ids", "side", "context", "aggregates")


def rows_of(values: torch.Tensor, dtype: torch.dtype) -> ItemRows:
    """Keeps the rows of `values`, and zeros for an item without history."""
    whole = torch.cat([values, torch.zeros_like(values[:1])])
    return ItemRows(lambda items: whole[torch.from_numpy(items)], len(values), values.shape[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    pairs=st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 2)), max_size=40),
    pieces=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_pieces_of_rows_are_taken_with_those_of_their_users(dtype, pairs, pieces, seed):
    items, own = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    width = sum(pieces)
    values = torch.randn(10, width, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack(
        [values[one] if 0 <= one < 10 else torch.zeros(width) for one in items.tolist()] or [torch.empty(0)]
    )
    users = torch.randn(3, width, generator=torch.Generator().manual_seed(seed + 1))
    found = rows_of(values, dtype).take(items, users, own, pieces)
    assert [piece.shape for piece in found] == [(len(items), floats) for floats in pieces]
    expected = expected.to(dtype).float().reshape(-1, width) + users[torch.from_numpy(own)]
    assert torch.equal(torch.cat([*found], 1), expected)


def test_large_pages_hold_what_they_are_given():
    room = allocate(3, 5, torch.bfloat16)
    room[:] = torch.arange(15).view(3, 5)
    assert room.float().sum() == 105
    assert allocate(4, 0, torch.float32).shape == (4, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_newcomers_find_room_and_all_others_stay(dtype):
    values = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).to(dtype).float()
    held, copies = rows_of(values[:80], dtype), set()
    for total in range(81, 401):
        held.update(np.array([total - 1, 5]), total, lambda items: values[torch.from_numpy(items)])
        copies.add(held._held[0].data_ptr())
        assert torch.equal(
            held.take(np.arange(-1, total + 1), torch.zeros(1, 3), np.zeros(total + 2, np.int64), [3])[0],
            torch.cat([torch.zeros(1, 3), values[:total], torch.zeros(1, 3)]),
        )
    assert len(copies) < 20  # an eighth more each time
