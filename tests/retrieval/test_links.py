from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import Snapshot
from mgoe.graph.latest import DAY, LATEST
from mgoe.retrieval import Former, item_links, latest_pairs
from mgoe.retrieval.history import latest_of
from mgoe.retrieval.links import changed_items, freshness
from tests.retrieval.naive import CUT, LINKS, Pair, draw, fresh, snapshot_of, snapshots


def rows_of(
    snapshot: Snapshot, kind: str, n: int
) -> Iterator[tuple[list[int], list[float], dict[int, float]]]:
    """Yield the linked items of each item, their weights, and those of the naive computation by item."""
    found, naive = item_links(latest_pairs(snapshot), kind, n), LINKS[kind](snapshot)
    assert len(found.indptr) == snapshot.n_items + 1
    for i in range(snapshot.n_items):
        row = slice(*found.indptr[i : i + 2])
        yield found.item[row].tolist(), found.weight[row].tolist(), naive.get(i, {})


def is_best(items: list[int], weights: list[float], wanted: dict[int, float], n: int) -> bool:
    """Whether links have the naive weights, in order, and none that is left out is better."""
    left = [wanted[j] for j in wanted.keys() - {*items}]
    return (
        len(items) == min(n, len(wanted))
        and np.allclose(weights, [wanted[j] for j in items], rtol=1e-5, atol=0)
        and sorted(zip(weights, items, strict=True), key=lambda one: (-one[0], one[1]))
        == [*zip(weights, items, strict=True)]
        and max(left, default=0) <= min(weights, default=np.inf) * (1 + 1e-5)
    )


@pytest.mark.parametrize("kind", LINKS)
@given(snapshot=snapshots, n=st.integers(1, 12))
def test_links_equal_a_naive_computation(kind, snapshot, n):
    assert all(is_best(*row, n) for row in rows_of(snapshot, kind, n))


@pytest.mark.parametrize("kind", LINKS)
def test_only_the_latest_items_and_the_strongest_users_count(kind):
    many_items = draw(seed=1, users=3, items=LATEST + 30, share=0.95)
    many_users = draw(seed=2, users=130, items=6, share=0.9)
    assert all(is_best(*row, 20) for row in rows_of(many_items, kind, 20))
    assert all(is_best(*row, 3) for row in rows_of(many_users, kind, 3))


@pytest.mark.parametrize("kind", LINKS)
def test_ties_go_to_the_smaller_index(kind):
    """Items 0 and 2 have the same users, so all others are tied to both alike."""
    links = item_links(latest_pairs(draw(seed=3, users=12, items=8, share=0.9)), kind, n=7)
    for i in (1, 3, 4, 5, 6, 7):
        items = links.item[links.indptr[i] : links.indptr[i + 1]].tolist()
        assert items.index(2) == items.index(0) + 1


@pytest.mark.parametrize("kind", LINKS)
def test_links_do_not_depend_on_threads(kind):
    pairs = latest_pairs(draw(seed=4, users=60, items=300, share=0.1))
    one, two = (item_links(pairs, kind, 10, threads) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert_array_equal(a, b)


@given(snapshot=snapshots)
def test_freshness_equals_a_naive_computation(snapshot):
    naive, found = fresh(snapshot), freshness(latest_pairs(snapshot), snapshot)
    assert_allclose(found, [naive.get(i, 0) for i in range(snapshot.n_items)], rtol=1e-5)


times = st.integers(0, CUT - 1).map(lambda day: day * DAY)
more_pairs = st.dictionaries(
    st.tuples(st.integers(0, 14), st.integers(0, 14)), st.tuples(st.integers(1, 3), times), max_size=8
)


@pytest.mark.parametrize("kind", LINKS)
@given(snapshot=snapshots, more=more_pairs, less=st.booleans(), n=st.integers(1, 6))
def test_updated_links_equal_rebuilt_ones(kind, snapshot, more, less, n):
    """Of more pairs, later and stronger ones, new nodes, and some that left."""
    former = Former(latest_of(snapshot), item_links(latest_pairs(snapshot), kind, n))
    pairs = {(u, i): (mask, time) for u, i, mask, time in pairs_of(snapshot)} | more
    if less:
        pairs = {key: pair for key, pair in pairs.items() if key[0] != 0}
    users, items = max(snapshot.n_users, 15), max(snapshot.n_items, 15)
    now = latest_pairs(snapshot_of([(u, i, *pair) for (u, i), pair in pairs.items()], users, items))
    for updated, rebuilt in zip(
        item_links(now, kind, n, former=former), item_links(now, kind, n), strict=True
    ):
        assert_array_equal(updated, rebuilt)


@pytest.mark.parametrize("kind", LINKS)
def test_an_update_computes_the_links_that_a_user_or_a_length_changes(kind):
    """Two groups of users and items that have nothing in common; something is new in the second."""
    first = [(u, i, 1, 5 * DAY) for u in range(5) for i in range(4)]
    second = [(u, i, 1, 5 * DAY) for u in range(5, 10) for i in range(4, 8)]
    before = latest_of(snapshot_of(first + second, 10, 8))
    now = latest_pairs(snapshot_of([*first, *second, (10, 4, 1, 6 * DAY), (10, 8, 1, 6 * DAY)], 11, 9))
    assert set(changed_items(before, now, kind).tolist()) <= {4, 5, 6, 7, 8}
    assert {4, 8} <= set(changed_items(before, now, kind).tolist())


def pairs_of(snapshot: Snapshot) -> list[Pair]:
    user = np.repeat(np.arange(snapshot.n_users), np.diff(snapshot.arrays["pairs.indptr"]))
    columns = (snapshot.arrays[f"pairs.{name}"].tolist() for name in ("item", "task_mask", "time"))
    return [*zip(user.tolist(), *columns, strict=True)]


@pytest.mark.parametrize("kind", LINKS)
def test_a_user_with_a_hundred_thousand_events_costs_no_more_than_others(kind):
    """Of its items only the newest count, and are tied to no more than those."""
    everything = [(0, i, 1, i // 2000 * DAY) for i in range(100_000)]
    links = item_links(latest_pairs(snapshot_of([*everything, (1, 99_999, 1, 0)], 2, 100_000)), kind, n=150)
    assert np.diff(links.indptr).max() <= LATEST - 1
    assert len(links.item) <= LATEST * (LATEST - 1)
