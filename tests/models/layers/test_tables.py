"""Tables that are made without values and drawn by parts."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.models import draw_rows, late_tables, make_model
from mgoe.models.layers import tables
from tests.models.batches import make_spec


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tables, "LATE_ROWS", 30)
    monkeypatch.setattr(tables, "DRAWN", 8)


@given(total=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 2**40))
def test_parts_of_a_table_are_the_table(total, cuts, seed):
    whole, parts = torch.empty(total, 3), torch.empty(total, 3)
    draw_rows(whole, 0, total, (seed, 1))
    edges = sorted({0, total, *(cut for cut in cuts if cut < total)})
    for low, high in pairwise(edges):
        draw_rows(parts[low:high], low, total, (seed, 1))
    assert torch.equal(whole, parts)
    assert not whole[-1].any()
    assert whole[:-1].isfinite().all()


def test_tables_and_seeds_differ_and_spread_as_they_should():
    drawn = torch.empty(3, 4000, 4)
    for number, seed in enumerate([(0, 0), (0, 1), (1, 0)]):
        draw_rows(drawn[number], 0, 4000, seed)
    assert len(drawn.unique()) > 40_000
    assert float(drawn.std()) == pytest.approx(tables.SPREAD, rel=0.02)
    assert float(drawn.mean()) == pytest.approx(0, abs=1e-3)


def test_only_large_tables_are_late_and_only_inside():
    spec = make_spec(2)
    with late_tables():
        late = make_model("mgoe-paper", spec, 0)
    assert any(table.is_meta for table in late.tables())
    assert all(table.is_meta == (len(table) >= 30) for table in late.tables())
    assert not any(parameter.is_meta for parameter in late.dense())
    assert not any(parameter.is_meta for parameter in make_model("mgoe-paper", spec, 0).parameters())
