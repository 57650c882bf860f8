"""Cosines found by rough directions are those of the vectors themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.serving.neighbourhood import Neighbourhood
from tests.effort import up_to

NO_SLOTS = np.empty(0, np.int32)


@up_to(30)
@given(
    seed=st.integers(0, 10**6),
    users=st.integers(1, 40),
    rank=st.integers(1, 20),
    length=st.integers(1, 6),
    size=st.sampled_from([1e-2, 1.0, 1e4]),
    alike=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_the_closest_and_the_mean_are_exact(seed, users, rank, length, size, alike):
    rng = np.random.default_rng(seed)
    vectors = (size * (rng.normal(size=rank) + alike * rng.normal(size=(users, rank)))).astype(np.float32)
    vectors[rng.random(users) < 0.1] = 0
    recent = rng.integers(0, users, (15, length)).astype(np.int32)
    recent[np.arange(length)[None] >= rng.integers(0, length + 1, 15)[:, None]] = -1
    user, items = vectors[int(rng.integers(users))], rng.integers(-1, 15, 25)
    out = np.zeros((25, 2), np.float32)
    assert Neighbourhood(vectors, recent).read(user, items, NO_SLOTS, out) == bool(user.any())
    for row, item in enumerate(items):
        there = recent[item][recent[item] >= 0] if item >= 0 else recent[0, :0]
        if len(there) and user.any():
            lengths = np.linalg.norm(vectors[there].astype(float), axis=1) * np.linalg.norm(user.astype(float))
            cosines = vectors[there].astype(float) @ user.astype(float) / np.where(lengths > 0, lengths, 1)
            assert_allclose(out[row], [cosines.max(), cosines.mean()], atol=1e-6)
        else:
            assert not out[row].any()


def test_vectors_too_short_to_divide_by_are_left_to_the_plain_computation():
    vectors = np.full((3, 4), 1e-9, np.float32)
    out = np.zeros((1, 2), np.float32)
    assert not Neighbourhood(vectors, np.zeros((1, 2), np.int32)).read(vectors[0], np.zeros(1, np.int64), NO_SLOTS, out)
    assert not out.any()
