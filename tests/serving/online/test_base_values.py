"""Sums over a snapshot are the same in parts, and need no copy of all of it."""

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.graph import Snapshot, counts
from mgoe.graph import snapshot as snapshots
from mgoe.graph.counts import tasks_done
from mgoe.graph.snapshot import score_sums


def snapshot(indptr: np.ndarray, score: np.ndarray) -> Snapshot:
    """With these edges of users."""
    return cast(Snapshot, SimpleNamespace(resolutions=[SimpleNamespace(user_edges=(indptr, None, score))]))


@given(degrees=st.lists(st.integers(0, 5), max_size=30), part=st.integers(1, 9), seed=st.integers(0, 99))
def test_sums_of_nodes_are_those_of_their_edges(degrees, part, seed):
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    score = np.random.default_rng(seed).integers(0, 2**32, indptr[-1], np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "BLOCK_PAIRS", part)
        found = score_sums(snapshot(indptr, score), "user")
    assert found.tolist() == [sum(row.tolist()) for row in np.split(score, indptr[1:-1])][: len(degrees)]


@given(task_masks=st.lists(st.integers(0, 7), max_size=40), part=st.integers(1, 9))
def test_pairs_are_counted_by_the_tasks_done(task_masks, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "BLOCK_PAIRS", part)
        found = tasks_done(np.array(task_masks, np.uint8), 3)
    assert found.tolist() == [sum(mask >> t & 1 for mask in task_masks) for t in range(3)]


@pytest.mark.parametrize("read", [
    lambda values: tasks_done(values, 3),
    lambda values: score_sums(
        snapshot(np.array([0, *range(2, len(values) + 1, len(values) // 50)]), values), "user"
    ),
])  # fmt: skip
def test_sums_need_no_copy(read: Callable[[np.ndarray], Any], monkeypatch: pytest.MonkeyPatch):
    for module in (counts, snapshots):
        monkeypatch.setattr(module, "BLOCK_PAIRS", 10_000)
    values = np.ones(1_000_000, np.uint8)
    tracemalloc.start()
    try:
        read(values)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
