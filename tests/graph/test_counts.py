import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph.counts import own_pairs
from tests.graph.naive import recent_of
from tests.graph.random_pairs import SCORES, TASKS, Pairs, neighbors_of, pairs

ALIKE = Pairs(
    np.zeros(4, int), np.arange(4), np.ones(4, np.uint8), np.zeros(4, int), np.ones(4, np.uint16), (1, 4)
)
"""Pairs of one user that differ in their items alone."""
sides = st.sampled_from(["user", "item"])


@given(graph=pairs, side=sides, length=st.integers(1, 6))
@example(graph=ALIKE, side="user", length=2)
def test_recents_are_the_newest_then_the_strongest_then_the_first(graph, side, length):
    found = own_pairs(graph.block(side), SCORES, TASKS, length)
    neighbors, masks = found["recent"], found["recent_task_mask"]
    for node, others in enumerate(neighbors_of(graph, side)):
        row = recent_of(others, length)
        row += [(-1, 0)] * (length - len(row))
        assert_array_equal(neighbors[node], [j for j, _ in row])
        assert_array_equal(masks[node], [mask for _, mask in row])
