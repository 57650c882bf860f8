import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.metrics import normalized_mutual_info_score

from mgoe.config import GraphSettings
from mgoe.graph import MacroGraph, likelihood
from mgoe.graph.build import clusters
from mgoe.graph.edges import SparseEdges, first_order
from mgoe.graph.pair_rows import NO_TIMES, OTHER, SIDES, PairRows
from mgoe.graph.scores import UNIT, score_table
from tests.graph.histories import history, planted

numbers = st.integers(0, 2**32 - 1)


def sparse(dense):
    """Edges of a matrix; its last column is the cold node."""
    row, macro = dense.nonzero()
    indptr = np.concatenate([[0], np.cumsum((dense > 0).sum(axis=1))])
    return SparseEdges(indptr, macro.astype(np.uint16), dense[row, macro].astype(np.uint32))


@given(seed=numbers, n=st.integers(1, 30), k=st.integers(1, 6), other=st.integers(1, 6))
def test_a_node_joins_the_macro_node_under_whose_shares_its_edges_are_likeliest(seed, n, k, other):
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 9 * UNIT, (n, other + 1)) * (rng.random((n, other + 1)) < 0.5)
    table = rng.integers(0, 50 * UNIT, (k, other)) * (rng.random((k, 1)) < 0.8)
    chances = likelihood.log_chances(table)
    linked = dense[:, :other].any(axis=1)
    found = likelihood.likeliest(sparse(dense), chances)
    assert (found[~linked] == k).all()
    filled = table.any(axis=1)
    share = (table / UNIT + 1) / (table.sum(axis=1, keepdims=True) / UNIT + other)
    likely = dense[:, :other] @ np.log(share).T
    likely[:, ~filled] = -np.inf
    for node in np.flatnonzero(linked):
        if filled.any():
            assert filled[found[node]]
            rounding = dense[node].sum() / (1 << likelihood.FRACTION_BITS)
            assert likely[node, found[node]] >= likely[node].max() - rounding
        else:
            assert found[node] == 0


def some_rows(rng, n, others):
    """Random pairs of `n` nodes with others, three tasks."""
    present = rng.random((n, others)) < 0.3
    other = present.nonzero()[1]
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return PairRows(
        indptr,
        other.astype(np.int32),
        rng.integers(1, 8, len(other)).astype(np.uint8),
        *NO_TIMES,
    )


SCORES = score_table(np.array([1.0, 2.0, 3.0]), 0.0)


@given(seed=numbers, part=st.integers(1, 40))
def test_nodes_are_placed_alike_by_pairs_and_by_edges_in_blocks_of_any_size(seed, part):
    rng = np.random.default_rng(seed)
    rows, macro = some_rows(rng, 40, 20), rng.integers(0, 5, 20).astype(np.int32)  # number 4 is cold
    chances = likelihood.log_chances(rng.integers(0, 50 * UNIT, (3, 4)))
    edges = first_order(rows.block(0, 40), SCORES, macro, 4, np.uint32)
    found = likelihood.likeliest(edges, chances)
    placed = [likelihood.placed(block, SCORES, macro, chances)["macro"] for block in rows.blocks(part)]
    assert_array_equal(np.concatenate(placed), found)


def naive_settle(dense, macro, k, rounds):
    """With matrices of scores."""
    macro = dict(macro)

    def chances(side):
        own, other = np.eye(k[side])[macro[side]], np.eye(k[OTHER[side]])[macro[OTHER[side]]]
        return likelihood.log_chances(
            (own.T @ (dense if side == "user" else dense.T) @ other).astype(np.int64)
        )

    for _ in range(rounds):
        moved = 0
        for side in ("item", "user"):
            score = dense if side == "user" else dense.T
            logs = chances(side)
            total = score @ logs[macro[OTHER[side]]]
            total[:, (logs == likelihood.NEVER).all(axis=0)] = total.min() - 1
            best = np.where(score.any(axis=1), total.argmax(axis=1), macro[side])
            moved += (best != macro[side]).sum()
            macro[side] = best
        if not moved:
            break
    return macro, {side: chances(side) for side in SIDES}


@given(seed=numbers, rounds=st.integers(0, 5))
def test_settling_by_definition(seed, rounds):
    rng = np.random.default_rng(seed)
    rows = some_rows(rng, 30, 20)
    dense = np.zeros((30, 20), np.int64)
    dense[np.repeat(np.arange(30), np.diff(rows.indptr)), rows.other] = SCORES[rows.task_mask]
    k = {"user": 3, "item": 4}
    start = {side: rng.integers(0, k[side], n).astype(np.int32) for side, n in (("user", 30), ("item", 20))}
    found, chances = likelihood.reassign(
        {"user": rows, "item": rows.transposed(20)}, start, k, SCORES, rounds
    )
    expected, logs = naive_settle(dense, start, k, rounds)
    for side in SIDES:
        assert_array_equal(found[side], expected[side])
        assert_array_equal(chances[side], logs[side])


def test_the_largest_sums_do_not_overflow():
    """A node with a hundred billion units of score, to macro nodes of which one is all but impossible."""
    table = np.array([[1, 1 << 60], [1 << 60, 1]], np.int64)
    edges = SparseEdges(
        np.array([0, 2]), np.array([0, 1], np.uint16), np.array([100_000_000_000 * UNIT // 16, 1], np.int64)
    )
    assert likelihood.likeliest(edges, likelihood.log_chances(table)) == [1]
    assert likelihood.log_chances(table).min() > likelihood.NEVER


def test_drift_is_the_share_of_score_of_nodes_that_another_macro_node_ties_better():
    macro, best, sums = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 2]), np.array([10, 20, 40, 30])
    assert likelihood.drift(macro, best, sums) == 0.4
    assert likelihood.drift(macro, macro, sums) == 0
    assert likelihood.drift(macro, best, np.zeros(4, int)) == 0


EVENTS = planted(600, 240, 12, 4800)
"""Eight events a user."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> MacroGraph:
    """Of a sketch that holds a third of the groups."""
    return history(EVENTS, ()).build(
        tmp_path_factory.mktemp("likelihood") / "graph", rank=4, resolutions=[(12, 12)]
    )


def test_users_are_where_their_edges_are_likeliest_as_built(graph):
    part = graph.latest.resolutions[0]
    best = likelihood.likeliest(SparseEdges(*part.user_edges), part.user_chances)
    assert_array_equal(part.user_macro, best)
    assert graph.manifest.drift == [0.0]


def test_it_recovers_planted_groups_where_a_sketch_does_not(graph):
    log, at, s = history(EVENTS, ()), graph.latest, GraphSettings()
    ids = dict(zip(log.rows["user"], [event[0] for event in EVENTS], strict=True))
    truth = np.array([ids[index] % 12 for index in range(at.n_users)])
    vectors, linked = at.arrays["user_vectors"], np.ones(at.n_users, bool)
    centers = clusters.learn_centers(vectors, linked.astype(np.float32), [12], None, s.seed, s.sample)
    start = clusters.assign(vectors, linked, centers)[0]
    before, after = (
        normalized_mutual_info_score(truth, macro) for macro in (start, at.resolutions[0].user_macro)
    )
    assert before < 0.95
    assert after > 0.99
