import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph import event_sort
from mgoe.graph.event_sort import sorted_events
from mgoe.graph.fold import Events

USERS, ITEMS = (1, 2, 700, 70_000, 2**22), (1, 2, 700, 70_000, 2**31 - 1)


def shuffled(users: int, items: int, events: int, seed: int) -> Events:
    """Events of some users and items among so many, the ones at either end too; many of them repeated."""
    rng = np.random.default_rng(seed)
    few_users, few_items = (np.unique(np.r_[0, n - 1, rng.integers(0, n, min(n, 9))]) for n in (users, items))
    user, item = rng.choice(few_users, events), rng.choice(few_items, events)
    return user << 32 | item, rng.integers(-(2**62), 2**62, 5)[rng.integers(0, 5, events)]


def put_in_order(
    events: Events, users: int, items: int, memory: int = 1 << 20, chunk: int = 7
) -> list[Events]:
    chunks = [(events[0][n : n + chunk], events[1][n : n + chunk]) for n in range(0, len(events[0]), chunk)]
    with tempfile.TemporaryDirectory() as folder:
        found = list(sorted_events(chunks, users, items, Path(folder), memory, threads=2))
        assert not list(Path(folder).iterdir())
    return found


@given(
    users=st.sampled_from(USERS),
    items=st.sampled_from(ITEMS),
    events=st.integers(0, 200),
    seed=st.integers(0, 1000),
    memory=st.sampled_from([1 << 9, 1 << 20]),
    fewest=st.sampled_from([0, 9]),
)
def test_events_are_sorted_as_numpy_sorts_them_in_parts_that_split_no_user(
    users, items, events, seed, memory, fewest
):
    keys, moments = shuffled(users, items, events, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_sort, "LEAST_BITS", fewest)
        patch.setattr(event_sort, "BLOCK", 40)
        found = put_in_order((keys, moments), users, items, memory)
    order = np.lexsort((moments, keys))
    assert_array_equal(np.concatenate([keys[:0], *(k for k, _ in found)]), keys[order])
    assert_array_equal(np.concatenate([keys[:0], *(e for _, e in found)]), moments[order])
    assert sum(len(np.unique(k >> 32)) for k, _ in found) == len(np.unique(keys >> 32))


@pytest.mark.parametrize("step", [1, -1])
def test_a_user_with_many_events_is_sorted_whether_they_are_in_order_of_time_or_backwards(step):
    keys, moments = np.full(5000, 3 << 32), np.arange(5000)[::step]
    ((found, order),) = put_in_order((keys, moments.copy()), 70_000, 1, memory=1 << 9, chunk=1000)
    assert_array_equal(found, keys)
    assert_array_equal(order, np.arange(5000))
