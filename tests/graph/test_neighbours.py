from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph.neighbours import recent, task_table
from mgoe.graph.pair_rows import OTHER
from tests.effort import up_to
from tests.graph.naive import recent_of, table_of
from tests.graph.random_pairs import SCORES, TASKS, macro_nodes, pairs

bounded = up_to(60)

sides = st.sampled_from(["user", "item"])


def neighbours_of(graph, side):
    """For each node, its neighbours with code, time and score."""
    found = [{} for _ in range(graph.nodes(side))]
    for node, j, code, time in zip(
        getattr(graph, side), getattr(graph, OTHER[side]), graph.task_mask, graph.time, strict=True
    ):
        found[node][int(j)] = (int(code), int(time), int(SCORES[code]))
    return found


@bounded
@given(graph=pairs, side=sides, length=st.integers(1, 6))
def test_recents_are_the_newest_then_the_strongest_then_the_first(graph, side, length):
    neighbours, codes = recent(graph.block(side), SCORES, length)
    for node, others in enumerate(neighbours_of(graph, side)):
        row = recent_of(others, length)
        row += [(-1, 0)] * (length - len(row))
        assert_array_equal(neighbours[node], [j for j, _ in row])
        assert_array_equal(codes[node], [code for _, code in row])


@bounded
@given(graph=pairs, side=sides, width=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_task_table_holds_the_favourite_of_each_task(graph, side, width, seed):
    macro = macro_nodes(graph, width, width, seed)[OTHER[side]]
    table = task_table(graph.block(side), SCORES, macro, width, TASKS)
    for node, others in enumerate(neighbours_of(graph, side)):
        assert_array_equal(table[node], [table_of(others, macro, width, t) for t in range(TASKS)])
