import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph import counts, edges, likelihood
from mgoe.graph.pair_rows import (
    BYTES_PER_PAIR,
    OTHER,
    PairColumns,
    PairRows,
    block_bounds,
    by_item,
    starts,
    write_by_item,
)
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import projected
from tests.graph.random_pairs import SCORES, TASKS, draw, macro_nodes, pairs, read

K = 3
sides = st.sampled_from(["user", "item"])
few = st.integers(1, 6)
memories = st.integers(1, 100 * BYTES_PER_PAIR)


@given(degrees=st.lists(st.integers(0, 9), max_size=30), pairs=st.integers(1, 40), rows=st.integers(1, 40))
def test_blocks_cover_all_nodes_once_and_keep_their_limits(degrees, pairs, rows):
    indptr = starts(np.array(degrees, np.int64))
    found = list(block_bounds(indptr, pairs, rows))
    if not degrees:
        assert found == [(0, 0)]  # so that a side without nodes has arrays, of no rows
        return
    assert [node for first, last in found for node in range(first, last)] == list(range(len(degrees)))
    for first, last in found:
        assert 1 <= last - first <= rows
        assert indptr[last] - indptr[first] <= pairs or last == first + 1


def own_pairs(graph, side):
    return partial(counts.own_pairs, scores=SCORES, tasks=TASKS, recents=3)


def first_order(graph, side, tasks=TASKS):
    macro = macro_nodes(graph, K, K, 0)[OTHER[side]]
    given = {"scores": SCORES, "macro": macro, "width": K, "score_type": np.uint32, "tasks": tasks}
    return partial(likelihood.read_first_order, **given)


def first_order_alone(graph, side):
    return first_order(graph, side, 0)


def second_order(graph, side, dense=True, matrix=False):
    macro = macro_nodes(graph, K, K, 0)
    other = edges.first_order(graph.block(OTHER[side]), SCORES, macro[side], K)
    given = {"scores": SCORES, "edges": other, "own": macro[side], "width": K, "dense": dense}
    return partial(edges.read_second_order, matrix=other.dense(K) if matrix else None, **given)


def second_order_alone(graph, side):
    return second_order(graph, side, dense=False)


def second_order_by_matrix(graph, side):
    return second_order(graph, side, matrix=True)


def second_sums(graph, side):
    return partial(edges.second_sums, scores=SCORES, sums=graph.sums[OTHER[side]])


def projection(graph, side):
    vectors = np.random.default_rng(0).normal(size=(graph.nodes(OTHER[side]), 4)).astype(np.float32)
    sums = {node: total / UNIT for node, total in graph.sums.items()}
    return partial(
        projected,
        scores=SCORES / UNIT,
        sums=sums[side],
        other_sums=sums[OTHER[side]],
        vectors=vectors,
        stretch=np.float32([1, 2, 3, 0]),
        normalize="degree",
    )


READINGS = (
    own_pairs,
    first_order,
    first_order_alone,
    second_order,
    second_order_alone,
    second_order_by_matrix,
    second_sums,
    projection,
)


@pytest.mark.parametrize("reading", READINGS)
@given(graph=pairs, side=sides, most=few, rows=few)
def test_reading_by_blocks_of_any_size_equals_reading_at_once(reading, graph, side, most, rows):
    made = reading(graph, side)
    at_once, by_blocks = made(graph.block(side)), read(graph.rows(side), made, most, rows)
    assert at_once.keys() == by_blocks.keys()
    for name in at_once:
        assert_array_equal(by_blocks[name], at_once[name], err_msg=name)
        assert by_blocks[name].dtype == at_once[name].dtype


def check_same_pairs(found: list[PairRows], expected: PairRows):
    """Blocks follow each other and hold every array of the rows."""
    indptr = np.concatenate([[0], *(block.indptr[1:] + expected.indptr[block.start] for block in found)])
    assert [block.start for block in found] == list(np.cumsum([0, *(len(block) for block in found)])[:-1])
    assert_array_equal(indptr, expected.indptr)
    for name in PairColumns._fields:
        assert_array_equal(
            np.concatenate([getattr(block, name) for block in found]), getattr(expected, name), err_msg=name
        )


@given(graph=pairs, memory=memories, threads=st.integers(1, 4))
def test_pairs_by_item_are_the_pairs_sorted_by_item_with_any_memory_and_threads(graph, memory, threads):
    expected = graph.rows("item")
    check_same_pairs(list(by_item(graph.rows("user"), expected.indptr, memory, threads)), expected)


@given(graph=pairs, memory=memories, threads=st.integers(1, 3))
def test_what_is_written_by_item_is_what_passed(graph, memory, threads):
    expected = graph.rows("item")
    with tempfile.TemporaryDirectory() as folder:
        passed = list(write_by_item(Path(folder), graph.rows("user"), expected.indptr, memory, threads))
        check_same_pairs(passed, expected)
        written = PairRows.by_item(Path(folder))
        for name in ("indptr", "other", "task_mask"):
            assert_array_equal(getattr(written, name), getattr(expected, name), err_msg=name)


def test_no_more_pairs_are_collected_than_the_memory_holds(monkeypatch):
    collected, empty = [], PairColumns.empty
    monkeypatch.setattr(
        PairColumns, "empty", lambda pairs, task_mask: collected.append(pairs) or empty(pairs, task_mask)
    )
    graph = draw(0, 200, 50, 0.3)
    held = 300
    list(by_item(graph.rows("user"), graph.rows("item").indptr, held * BYTES_PER_PAIR, threads=2))
    assert sum(collected) == len(graph.user)
    assert max(collected) <= held
    assert len(collected) < 2 * len(graph.user) / held + 1  # and passes are as few as fit


def test_large_blocks_by_item_are_read_in_small_ones(monkeypatch):
    """What the memory holds is handed on in blocks of the usual size."""
    monkeypatch.setattr(PairRows.blocks, "__defaults__", (100, 7))
    graph = draw(1, 120, 40, 0.4)
    found = list(by_item(graph.rows("user"), graph.rows("item").indptr, 1 << 30))
    check_same_pairs(found, graph.rows("item"))
    assert all(len(block) <= 7 for block in found)


@given(graph=pairs, seed=st.integers(0, 2**32 - 1))
def test_rows_of_some_nodes_are_those_of_the_whole(graph, seed):
    rows = graph.rows("user")
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(rows)) < 0.5)
    some = rows.some(chosen)
    assert len(some) == len(chosen)
    for place, node in enumerate(chosen):
        mine, whole = some.block(place, place + 1), rows.block(node, node + 1)
        assert_array_equal(mine.other, whole.other)
        assert_array_equal(mine.task_mask, whole.task_mask)


@given(graph=pairs, side=sides)
def test_transposed_rows_are_those_of_the_other_side(graph, side):
    transposed, expected = (
        graph.rows(side).some(None).transposed(graph.nodes(OTHER[side])),
        graph.rows(OTHER[side]),
    )
    for name in ("indptr", "other", "task_mask"):
        assert_array_equal(getattr(transposed, name), getattr(expected, name))
        assert getattr(transposed, name).dtype == getattr(expected, name).dtype


@given(graph=pairs, side=sides, data=st.data())
def test_a_block_of_a_block_is_a_block_of_all_rows(graph, side, data):
    rows = graph.rows(side)
    first = data.draw(st.integers(0, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    low = data.draw(st.integers(0, last - first))
    high = data.draw(st.integers(low, last - first))
    found, expected = rows.block(first, last).block(low, high), rows.block(first + low, first + high)
    assert found.start == expected.start == first + low
    assert_array_equal(found.indptr, expected.indptr)
    for one, other in zip(found.columns, expected.columns, strict=True):
        assert_array_equal(one, other)
