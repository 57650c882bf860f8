"""Counting records in cells, in any number of parts."""

import itertools
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mgoe.graph.build.cells import CellCounter, Marks, joined

COLUMNS = 5
RECORDS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 31), st.integers(1, 3), st.integers(0, 9))
)


def marks_of(records: list[tuple[int, ...]]) -> Marks:
    columns = np.ascontiguousarray(np.array(records, np.int64).reshape(-1, 5).T)
    first, second = columns[:2].astype(np.int32)
    return Marks(first, second, *columns[2:4], np.ascontiguousarray(columns[4:].T))


def counted(parts: list[Marks]) -> dict[tuple[int, int], list[int]]:
    """Count records, and check that cells ascend."""
    counter = CellCounter(COLUMNS, 1)
    cells = joined([*map(counter.add, parts), counter.rest()])
    keys = list(zip(cells.first.tolist(), cells.other.tolist(), strict=True))
    assert keys == sorted(set(keys))
    return dict(zip(keys, np.hstack([cells.counts, cells.values]).tolist(), strict=True))


def by_hand(records: list[tuple[int, ...]]) -> dict[tuple[int, int], list[int]]:
    cells = defaultdict(lambda: [0] * (COLUMNS + 1))
    for first, second, bits, times, value in records:
        cell = cells[first, second]
        for column in range(COLUMNS):
            cell[column] += (bits >> column & 1) * times
        cell[-1] += value
    return dict(cells)


@given(RECORDS, st.lists(st.integers(0, 20)))
def test_cells_equal_a_count_by_hand_whatever_the_parts(records, cuts):
    records = sorted(records, key=lambda record: record[0])
    ends = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    parts = [marks_of(records[low:high]) for low, high in itertools.pairwise(ends)]
    assert counted(parts) == by_hand(records)


@given(RECORDS, st.lists(st.sets(st.integers(0, 6)), min_size=10, max_size=10))
def test_a_record_counts_once_for_each_value_of_its_node(records, values):
    records = sorted(records, key=lambda record: record[0])
    indptr = np.cumsum([0, *map(len, values)])
    flat = np.array([value for one in values for value in sorted(one)], np.int32)
    spread = [(first, value, *rest) for first, node, *rest in records for value in values[node]]
    assert counted([marks_of(records).spread(indptr, flat)]) == by_hand(spread)
