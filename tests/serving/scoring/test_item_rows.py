"""Rows of items are what was computed for them, and what a kernel mixes of them is what the model mixes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import ModelSettings
from mgoe.models import FoldedDecomposition, make_model
from mgoe.serving.scoring.item_rows import ItemRows, allocate
from tests.models.batches import make_spec
from tests.models.test_decomposition import of_one_user, part

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


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    tasks=st.integers(1, 4), one_gate=st.booleans(), table=st.booleans(),
    transfer=st.sampled_from(["none", "aitm", "concat"]), rows=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_what_a_kernel_mixes_is_what_the_model_joins(dtype, tasks, one_gate, table, transfer, rows, seed):
    spec, options = make_spec(tasks), {"one_gate": one_gate, "table": table, "transfer": transfer}
    model = make_model(ModelSettings(name="x", base="mgoe-paper", inputs=INPUTS, options=options), spec, seed)
    decomposition, batch = model.decompose(), of_one_user(spec, rows, seed)
    assert isinstance(decomposition, FoldedDecomposition)
    assert decomposition.mixed is not None
    with torch.inference_mode():
        user, items = (
            decomposition.user(part(batch, "user", decomposition.user_keys)),
            decomposition.item(part(batch, "item", decomposition.item_keys)),
        )
        kept = rows_of(items, dtype)
        rng = np.random.default_rng(seed)
        order, own = rng.permutation(rows), rng.integers(0, 2, rows)
        users = torch.cat([user, -user])
        expected = decomposition.rest(kept.take(order, users, own, decomposition.pieces), {})
        found = decomposition.towers(kept.mix(order, users, own, *decomposition.mixed))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


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
