"""The graph's matrices agree with one another, as the equations of macro edges say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from mgoe.errors import GraphError
from mgoe.graph import MacroGraph
from mgoe.graph.matrices import matrix
from tests.graph.histories import history, planted

SIZES = [(2, 3), (4, 4)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> MacroGraph:
    return history(planted()).build(tmp_path_factory.mktemp("matrices") / "graph", resolutions=SIZES)


def members(macro: np.ndarray, size: int) -> sparse.csr_array:
    """One row per node with a 1 at its macro node; none for the cold one."""
    (known,) = np.nonzero(macro < size)
    return sparse.csr_array((np.ones(len(known)), (known, macro[known])), shape=(len(macro), size))


def test_macro_edges_are_sums_of_pairs(graph: MacroGraph):
    pairs = matrix(graph, "user", "item")
    for axis, side in ((1, "user"), (0, "item")):
        assert_allclose(pairs.sum(axis=axis), graph.latest.arrays[f"{side}_sum"], rtol=1e-6)
    for place, part in enumerate(graph.latest.resolutions):
        users = members(part.user_macro, len(part.user_mass))
        items = members(part.item_macro, len(part.item_mass))
        of_users, of_items, between = (
            matrix(graph, *kinds, place).todense()
            for kinds in (("user", "item_macro"), ("item", "user_macro"), ("user_macro", "item_macro"))
        )
        assert_array_equal((pairs @ items).todense(), of_users)
        assert_array_equal((pairs.T @ users).todense(), of_items)
        assert_allclose((users.T @ pairs @ items).todense(), between, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [("user", "item"), ("user", "item_macro"), ("item", "user_macro"), ("user_macro", "item_macro")],
)
def test_the_other_order_is_the_transpose(graph: MacroGraph, rows: str, columns: str):
    one, other = matrix(graph, rows, columns), matrix(graph, columns, rows)
    assert one.nnz
    assert_array_equal(one.todense(), other.todense().T)


def test_what_no_edges_join_is_refused(graph: MacroGraph):
    with pytest.raises(GraphError, match="found 'user' and 'user_macro'; choose one of these"):
        matrix(graph, "user", "user_macro")
    with pytest.raises(GraphError, match="place of one of 2, from 0, found 2"):
        matrix(graph, "user", "item_macro", 2)
