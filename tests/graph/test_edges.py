import ibis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import edges
from mgoe.graph.scores import UNIT
from tests.effort import up_to
from tests.graph.random_pairs import macro_nodes, matrix, members, pairs

bounded = up_to(25)

sizes = st.integers(1, 4)
seeds = st.integers(0, 1000)


def first(graph, macro):
    """1st-order edges of users and of items, made by the engine."""
    table = ibis.memtable({"user": graph.user, "item": graph.item, "score": graph.score})
    return tuple(
        edges.read_edges(edges.first_order(table, edges.members_table(macro[other]), node, other), n)
        for node, other, n in (("user", "item", graph.shape[0]), ("item", "user", graph.shape[1]))
    )


@bounded
@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_first_order_is_the_product_with_the_members(graph, ku, ki, seed):
    macro, s = macro_nodes(graph, ku, ki, seed), matrix(graph)
    u1, i1 = first(graph, macro)
    assert_array_equal(u1.dense(ki), s @ members(macro["item"], ki))
    assert_array_equal(i1.dense(ku), s.T @ members(macro["user"], ku))
    for sparse in (u1, i1):
        row = np.repeat(np.arange(len(sparse.indptr) - 1), np.diff(sparse.indptr))
        assert_array_equal(np.lexsort((sparse.macro, row)), np.arange(len(row)))  # columns rise, as the binary search needs


@bounded
@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_second_order_is_the_explicit_product_without_the_way_back(graph, ku, ki, seed):
    macro, s = macro_nodes(graph, ku, ki, seed), matrix(graph)
    u1, i1 = first(graph, macro)
    for side, far, across, k in (("user", i1, s @ s.T, ku), ("item", u1, s.T @ s, ki)):
        explicit = (across - np.diag(np.diag(across))) @ members(macro[side], k)
        assert_array_equal(edges.second_order(graph, far.dense(k), macro[side], side), explicit)
        linked = macro[side] < k
        own = edges.second_order_own(graph, far, macro[side], side)
        assert_array_equal(own[linked], explicit[linked, macro[side][linked]])
        assert not own[~linked].any()


@bounded
@given(graph=pairs, ku=sizes, ki=sizes, seed=seeds)
def test_masses_are_column_sums_of_the_explicit_matrices(graph, ku, ki, seed):
    macro, s = macro_nodes(graph, ku, ki, seed), matrix(graph) / UNIT
    cu, ci = members(macro["user"], ku), members(macro["item"], ki)
    alone = {"user": s @ s.T * (1 - np.eye(len(s))), "item": s.T @ s * (1 - np.eye(s.shape[1]))}
    found = edges.masses(graph, macro, ku, ki)
    assert_allclose(found["macro_edges"], cu.T @ s @ ci, rtol=1e-6)
    assert_allclose(found["user_mass"], (s.T @ cu).sum(axis=0), rtol=1e-6)
    assert_allclose(found["item_mass"], (s @ ci).sum(axis=0), rtol=1e-6)
    assert_allclose(found["user_second_mass"], (alone["user"] @ cu).sum(axis=0), rtol=1e-6, atol=1e-9)
    assert_allclose(found["item_second_mass"], (alone["item"] @ ci).sum(axis=0), rtol=1e-6, atol=1e-9)


@bounded
@given(graph=pairs)
def test_what_a_pair_adds_over_two_steps_sums_to_the_rows_of_the_explicit_product(graph):
    s = matrix(graph) / UNIT
    for side, across in (("user", s @ s.T), ("item", s.T @ s)):
        rows = np.bincount(getattr(graph, side), graph.second[side], len(across))
        assert_allclose(rows, (across - np.diag(np.diag(across))).sum(axis=1), atol=1e-9)
