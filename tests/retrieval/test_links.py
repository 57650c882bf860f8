import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import Snapshot
from mgoe.retrieval import item_links
from mgoe.retrieval.history import LATEST
from tests.effort import up_to
from tests.retrieval.naive import LINKS, draw, snapshots


def check(snapshot: Snapshot, kind: str, n: int):
    """Links have the weights of the naive computation, in order, and none that is left out is better."""
    found, naive = item_links(snapshot, kind, n), LINKS[kind](snapshot)
    assert len(found.indptr) == snapshot.n_items + 1
    for i in range(snapshot.n_items):
        row, wanted = slice(*found.indptr[i : i + 2]), naive.get(i, {})
        items, weights = found.item[row], found.weight[row]
        assert len(items) == min(n, len(wanted))
        assert_allclose(weights, [wanted[j] for j in items.tolist()], rtol=1e-5)
        assert_array_equal(np.lexsort((items, -weights)), np.arange(len(items)))
        left = [wanted[j] for j in wanted.keys() - {*items.tolist()}]
        assert max(left, default=0) <= min(weights, default=np.inf) * (1 + 1e-5)


@pytest.mark.parametrize("kind", LINKS)
@up_to(40)
@given(snapshot=snapshots, n=st.integers(1, 12))
def test_links_equal_a_naive_computation(kind, snapshot, n):
    check(snapshot, kind, n)


@pytest.mark.parametrize("kind", LINKS)
def test_only_the_latest_items_and_the_strongest_users_count(kind):
    check(draw(seed=1, users=3, items=LATEST + 30, share=0.95), kind, n=20)
    check(draw(seed=2, users=130, items=6, share=0.9), kind, n=3)


@pytest.mark.parametrize("kind", LINKS)
def test_ties_go_to_the_smaller_index(kind):
    """Items 0 and 2 have the same users, so all others are tied to both alike."""
    links = item_links(draw(seed=3, users=12, items=8, share=0.9), kind, n=7)
    for i in (1, 3, 4, 5, 6, 7):
        items = links.item[links.indptr[i] : links.indptr[i + 1]].tolist()
        assert items.index(2) == items.index(0) + 1


@pytest.mark.parametrize("kind", LINKS)
def test_links_do_not_depend_on_threads(kind):
    snapshot = draw(seed=4, users=60, items=300, share=0.1)
    one, two = (item_links(snapshot, kind, 10, threads) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert_array_equal(a, b)
