import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import arithmetic, edges, likelihood
from mgoe.graph.edges import SparseEdges, first_order, second_order, second_order_own, second_sums, use_matrix
from mgoe.graph.pair_rows import OTHER, SIDES
from mgoe.graph.scores import UNIT
from mgoe.graph.task_table import task_table
from tests.graph.naive import table_of
from tests.graph.random_pairs import SCORES, TASKS, draw, macro_nodes, matrix, members, neighbors_of, pairs

sizes = st.integers(1, 4)
seeds = st.integers(0, 1000)
GB = 1 << 30


def first(graph, macro, k, scores=SCORES):
    """1st-order edges of users and of items."""
    return {
        side: first_order(graph.block(side), scores, macro[OTHER[side]], k[OTHER[side]]) for side in SIDES
    }


def explicit_second(graph, side):
    """Over two steps, never back. Shape (nodes, nodes)."""
    s = matrix(graph)
    across = s @ s.T if side == "user" else s.T @ s
    return across - np.diag(np.diag(across))


@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_first_order_is_the_product_with_the_members(graph, ku, ki, seed):
    macro, s = macro_nodes(graph, ku, ki, seed), matrix(graph)
    found = first(graph, macro, {"user": ku, "item": ki})
    assert_array_equal(found["user"].dense(ki), s @ members(macro["item"], ki))
    assert_array_equal(found["item"].dense(ku), s.T @ members(macro["user"], ku))
    for sparse in found.values():
        row = np.repeat(np.arange(sparse.nodes), np.diff(sparse.indptr))
        assert_array_equal(
            np.lexsort((sparse.macro, row)), np.arange(len(row))
        )  # columns rise, as the binary search needs
        assert (sparse.score > 0).all()


@given(graph=pairs, ki=sizes, seed=seeds, shift=st.integers(0, 40))
def test_scores_are_of_the_narrower_type_where_no_row_can_exceed_it(graph, ki, seed, shift):
    block, macro, scores = graph.block("user"), macro_nodes(graph, ki, ki, seed)["item"], SCORES << shift
    found, wide = (first_order(block, scores, macro, ki, kind) for kind in (None, np.int64))
    assert_array_equal(found.score, wide.score)
    largest = int(np.diff(block.indptr).max(initial=0)) * int(scores.max())
    assert found.score.dtype == (np.uint32 if largest < 1 << 32 else np.int64)


def test_logarithms_of_both_precisions_are_of_one_kernel():
    exact = arithmetic.log(np.arange(5))
    assert_array_equal(arithmetic.log(np.arange(5), np.float32), exact.astype(np.float32))
    assert len(arithmetic._log.signatures) == 1


@pytest.mark.parametrize("score_type", [np.uint32, np.int64])
@given(graph=pairs, ki=sizes, seed=seeds)
def test_first_order_as_it_is_read_is_the_same_sparse_and_as_logarithms(score_type, graph, ki, seed):
    macro = macro_nodes(graph, ki, ki, seed)["item"]
    found = likelihood.read_first_order(graph.block("user"), SCORES, macro, ki, score_type, TASKS)
    product = matrix(graph) @ members(macro, ki)
    indptr = np.concatenate([[0], np.cumsum(found["degree"])])
    assert found["score"].dtype == score_type
    assert_array_equal(SparseEdges(indptr, found["macro"], found["score"]).dense(ki), product)
    assert found["dense"].dtype == np.float16
    assert_allclose(found["dense"], np.log1p(product / UNIT), rtol=6e-4)
    assert found["table"].shape == (graph.nodes("user"), TASKS)


@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_second_order_is_the_explicit_product_without_the_way_back(graph, ku, ki, seed):
    k, macro = {"user": ku, "item": ki}, macro_nodes(graph, ku, ki, seed)
    found = first(graph, macro, k)
    for side in SIDES:
        explicit = explicit_second(graph, side) @ members(macro[side], k[side])
        linked = macro[side] < k[side]
        own = np.zeros(len(linked), np.int64)
        own[linked] = explicit[linked, macro[side][linked]]
        for dense in (True, False):
            given = graph.block(side), SCORES, found[OTHER[side]], macro[side]
            assert_array_equal(second_order(*given, k[side]), explicit)
            assert_array_equal(second_order_own(*given)[linked], own[linked])
            read = edges.read_second_order(*given, k[side], dense)
            assert_allclose(read["own"], own / UNIT**2, rtol=1e-6)
            assert ("dense" in read) == dense
            if dense:
                assert_allclose(read["dense"], np.log1p(explicit / UNIT**2), rtol=6e-4, atol=1e-7)


@given(
    graph=pairs,
    k=sizes,
    seed=seeds,
    largest=st.sampled_from([1, 100, 8000]),
    kind=st.sampled_from([np.int32, np.int64]),
)
def test_second_order_by_a_matrix_is_the_same_to_the_last_bit(graph, k, seed, largest, kind):
    """Up to sums just below 2^53: scores of 8 million make 81 pairs of products 5e15."""
    scores = SCORES * largest
    macro = macro_nodes(graph, k, k, seed)
    found = first(graph, macro, {"user": k, "item": k}, scores)
    for side in SIDES:
        other = found[OTHER[side]]
        if other.score.max(initial=0) > np.iinfo(kind).max:
            continue
        given = graph.block(side), scores, other, macro[side], k
        assert_array_equal(second_order(*given, other.dense(k, kind)), second_order(*given))


def full(score: int, nodes: int = 10, width: int = 4) -> tuple[SparseEdges, np.ndarray, int]:
    """Edges of every node to every macro node, pairs of each node, and the width."""
    indptr = np.arange(nodes + 1) * width
    return (
        SparseEdges(indptr, np.tile(np.arange(width, dtype=np.uint16), nodes), np.full(nodes * width, score)),
        np.full(nodes, 5),
        width,
    )


def test_a_matrix_is_used_where_it_is_exact_and_fits_and_most_pairs_lead_to_full_rows():
    assert use_matrix(*full(100), largest=2**53 - 1, memory=GB) is np.int32
    assert use_matrix(*full(2**31 - 1), largest=2**53 - 1, memory=GB) is np.int32
    assert use_matrix(*full(2**31), largest=2**53 - 1, memory=GB) is np.int64
    assert use_matrix(*full(100), largest=2**53, memory=GB) is None  # double precision would round
    assert use_matrix(*full(100), largest=1, memory=10 * 4 * 4) is np.int32
    assert use_matrix(*full(100), largest=1, memory=10 * 4 * 4 - 1) is None
    assert use_matrix(*full(2**31), largest=1, memory=10 * 4 * 4) is None
    some = SparseEdges(np.arange(11), np.zeros(10, np.uint16), np.full(10, 100))
    assert use_matrix(some, np.full(10, 5), 4, largest=1, memory=GB) is None
    assert use_matrix(some, np.full(10, 5), 3, largest=1, memory=GB) is np.int32  # a third of all
    none = SparseEdges(np.zeros(4, np.int64), np.empty(0, np.uint16), np.empty(0, np.int64))
    assert use_matrix(none, np.zeros(3, np.int64), 4, largest=0, memory=GB) is None


def test_beyond_what_double_precision_holds_a_matrix_would_be_wrong():
    """The refusal above is needed: two odd products beyond 2^53 lose their last bit."""
    graph = draw(0, 2, 3, 1.0)
    scores = np.where(SCORES > 0, (1 << 27) + 1, 0)
    macro = {side: np.zeros(graph.nodes(side), np.int32) for side in SIDES}
    other = first(graph, macro, {"user": 1, "item": 1}, scores)["item"]
    given = graph.block("user"), scores, other, macro["user"], 1
    sparse, by_matrix = second_order(*given), second_order(*given, other.dense(1))
    assert int(sparse[0, 0]) == 3 * ((1 << 27) + 1) ** 2
    assert (by_matrix != sparse).any()


@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_masses_are_column_sums_of_the_explicit_matrices(graph, ku, ki, seed):
    k, macro, s = {"user": ku, "item": ki}, macro_nodes(graph, ku, ki, seed), matrix(graph)
    c = {side: members(macro[side], k[side]) for side in SIDES}
    user_edges = first(graph, macro, k)["user"]
    assert_array_equal(edges.between(user_edges, macro["user"], ku, ki), c["user"].T @ s @ c["item"])
    assert_array_equal(edges.by_macro(macro["user"], graph.sums["user"], ku), (s.T @ c["user"]).sum(axis=0))
    assert_array_equal(edges.by_macro(macro["item"], graph.sums["item"], ki), (s @ c["item"]).sum(axis=0))
    for side in SIDES:
        second = second_sums(graph.block(side), SCORES, graph.sums[OTHER[side]])["second_sum"]
        column = (explicit_second(graph, side) @ c[side]).sum(axis=0)
        assert_array_equal(edges.by_macro(macro[side], second, k[side], np.float64), column)


@given(
    fixed=st.lists(st.integers(0, (1 << 62) - 1), min_size=4).map(lambda values: np.array(values, np.int64)),
    macro=st.integers(0, 3),
)
def test_sums_that_leave_64_bits_are_rounded_not_wrapped(fixed, macro):
    found = edges.by_macro(np.full(len(fixed), macro, np.int32), fixed, 3, np.float64)
    assert_allclose(found, [float(sum(map(int, fixed))) if k == macro else 0.0 for k in range(3)], rtol=1e-12)


@given(graph=pairs)
def test_what_comes_back_over_two_steps_are_row_sums_of_the_explicit_product(graph):
    for side in SIDES:
        found = second_sums(graph.block(side), SCORES, graph.sums[OTHER[side]])["second_sum"]
        assert_array_equal(found, explicit_second(graph, side).sum(axis=1))


@given(
    fixed=st.lists(st.integers(0, 1 << 62), min_size=1).map(lambda values: np.array(values, np.int64)),
    unit=st.sampled_from([UNIT, UNIT**2]),
)
def test_logarithms_in_half_precision_are_right_to_a_twentieth_of_a_percent(fixed, unit):
    assert_allclose(edges.log_scores(fixed, unit).astype(float), np.log1p(fixed / unit), rtol=6e-4, atol=1e-7)
    assert_allclose(edges.to_units(fixed, unit), fixed / unit, rtol=1e-6)


@given(
    graph=pairs, side=st.sampled_from(["user", "item"]), width=st.integers(1, 3), seed=st.integers(0, 1000)
)
def test_the_task_table_holds_the_favourite_of_each_task(graph, side, width, seed):
    macro = macro_nodes(graph, width, width, seed)[OTHER[side]]
    table = task_table(graph.block(side), SCORES, macro, width, TASKS)
    for node, others in enumerate(neighbors_of(graph, side)):
        assert_array_equal(table[node], [table_of(others, macro, width, t) for t in range(TASKS)])
