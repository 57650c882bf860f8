"""Influences in a line of text."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.evaluation import Influence, deal, find_leads, pack, unpack

NAMES = (("click", "auc"), ("all", "ranking"), ("a.b", "gauc"))


def made(seed: int, users: int = 3000, shift: float = 0.0) -> Influence:
    parts = np.random.default_rng(seed).normal(size=(users, len(NAMES))).astype(np.float32) / users
    return deal(Influence(NAMES, np.array([0.7, 0.6 + shift, np.nan]), np.arange(users), parts * np.array([1, 1, np.nan], np.float32)))


@pytest.mark.parametrize("users", [3, 3000])
def test_all_that_tables_read_comes_back(users: int):
    one = made(0, users)
    other = unpack(json.loads(json.dumps(pack(one))))
    assert other.names == one.names
    assert_array_equal(other.values, one.values)
    assert_array_equal(other.users, one.users)
    largest = np.abs(one.parts[:, :2]).max(0)
    assert np.all(np.abs(other.parts[:, :2] - one.parts[:, :2]) <= largest / 254 * 1.001)
    assert np.isnan(other.parts[:, 2]).all()
    assert len(json.dumps(pack(one))) < 3000


def test_leads_of_packed_ones_are_those_of_whole_ones():
    whole = {name: {seed: made(seed if name == "a" else seed + 9, shift=0.01 * (name == "a")) for seed in range(3)} for name in "ab"}
    packed = {name: {seed: unpack(pack(one)) for seed, one in seeds.items()} for name, seeds in whole.items()}
    for lead, other in zip(find_leads("a", whole["a"], whole), find_leads("a", packed["a"], packed), strict=True):
        assert other.value == lead.value or np.isnan(lead.value)
        assert_allclose([other.low, other.high], [lead.low, lead.high], atol=0.03 * (lead.high - lead.low), equal_nan=True)


def test_a_metric_of_too_few_users_is_kept_without_its_parts():
    one = deal(Influence((("click", "auc"),), np.array([0.5]), np.arange(4), np.full((4, 1), np.nan, np.float32)))
    other = unpack(json.loads(json.dumps(pack(one))))
    assert other.values == [0.5]
    assert np.isnan(other.parts).all()


def test_a_metric_that_moves_with_nobody_is_kept():
    still = deal(Influence((("click", "auc"),), np.array([0.5]), np.arange(4), np.zeros((4, 1), np.float32)))
    assert_array_equal(unpack(pack(still)).parts, still.parts)


@pytest.mark.parametrize("users", [100, 3000])
def test_what_was_packed_is_paired_with_what_was_not(users: int):
    one, other = made(0, users), made(1, users)
    mixed = deal(unpack(pack(one))) - deal(other)
    assert_allclose(mixed.parts, (one - other).parts, atol=np.nanmax(np.abs(one.parts)) / 200)
