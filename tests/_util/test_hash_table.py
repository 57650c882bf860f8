"""A hash table finds every key that it holds, and a free place for any other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.hash_table import free_places, place_of

KEYS = st.integers(0, 40) | st.integers(0, 2**63 - 1)


@given(held=st.sets(KEYS, max_size=30), others=st.sets(KEYS, max_size=10))
def test_keys_are_found_and_others_are_not(held: set[int], others: set[int]):
    keys = free_places(len(held))
    for key in held:
        keys[place_of(keys, key)] = key
    assert sorted(keys[keys >= 0].tolist()) == sorted(held)
    assert all(keys[place_of(keys, key)] == (key if key in held else -1) for key in held | others)


@given(entries=st.integers(0, 10**6))
def test_half_of_the_places_stay_free(entries: int):
    keys = free_places(entries, np.int32)
    assert 2 * entries < len(keys) <= max(4 * entries, 1)
    assert (keys == -1).all()
