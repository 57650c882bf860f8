"""Influences in a line of text."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.evaluation import Influence, find_leads, group_users, pack, unpack

NAMES = (("click", "auc"), ("all", "ranking"), ("a.b", "gauc"))


def made(seed: int, users: int = 3000, shift: float = 0.0) -> Influence:
    parts = np.random.default_rng(seed).normal(size=(users, len(NAMES))).astype(np.float32) / users
    return group_users(
        Influence(
            NAMES,
            np.array([0.7, 0.6 + shift, np.nan]),
            np.arange(users),
            parts * np.array([1, 1, np.nan], np.float32),
        )
    )


@pytest.mark.parametrize("users", [3, 3000])
def test_all_that_tables_read_comes_back(users: int):
    one = made(0, users)
    other = unpack(json.loads(json.dumps(pack(one))))
    assert other.names == one.names
    assert_array_equal(other.values, one.values)
    assert_array_equal(other.users, one.users)
    largest = np.abs(one.parts[:, :2]).max(0)
    assert np.all(np.abs(other.parts[:, :2] - one.parts[:, :2]) <= largest / 65_534 * 1.01)
    assert np.isnan(other.parts[:, 2]).all()
    assert len(json.dumps(pack(one))) < 5000


def test_leads_of_packed_ones_are_those_of_whole_ones():
    whole = {
        name: {seed: made(seed if name == "a" else seed + 9, shift=0.01 * (name == "a")) for seed in range(3)}
        for name in "ab"
    }
    packed = {name: {seed: unpack(pack(one)) for seed, one in seeds.items()} for name, seeds in whole.items()}
    for lead, other in zip(
        find_leads("a", whole["a"], whole), find_leads("a", packed["a"], packed), strict=True
    ):
        assert other.value == lead.value or np.isnan(lead.value)
        assert_allclose(
            [other.low, other.high],
            [lead.low, lead.high],
            atol=0.003 * (lead.high - lead.low),
            equal_nan=True,
        )


def test_intervals_of_models_that_are_nearly_equal_come_back_where_one_user_is_most_of_a_metric():
    rng = np.random.default_rng(0)
    shared = rng.standard_t(1.5, (512, 1))  # what hardly any model can foresee, such as the longest stays

    def of_model(own: int) -> Influence:
        parts = (shared + 0.05 * np.random.default_rng(own).normal(size=shared.shape)).astype(np.float32)
        return Influence((("stay", "rmse"),), np.array([1.0 + own / 100]), np.arange(512), parts / 512)

    one, other = of_model(1), of_model(2)
    [whole] = find_leads("a", {0: one}, {"b": {0: other}})
    [packed] = find_leads("a", {0: unpack(pack(one))}, {"b": {0: unpack(pack(other))}})
    assert packed.high - packed.low == pytest.approx(whole.high - whole.low, rel=0.01)


def test_a_metric_of_too_few_users_is_kept_without_its_parts():
    one = group_users(
        Influence((("click", "auc"),), np.array([0.5]), np.arange(4), np.full((4, 1), np.nan, np.float32))
    )
    other = unpack(json.loads(json.dumps(pack(one))))
    assert other.values == [0.5]
    assert np.isnan(other.parts).all()


def test_a_metric_that_moves_with_nobody_is_kept():
    still = group_users(
        Influence((("click", "auc"),), np.array([0.5]), np.arange(4), np.zeros((4, 1), np.float32))
    )
    assert_array_equal(unpack(pack(still)).parts, still.parts)


@pytest.mark.parametrize("users", [100, 3000])
def test_what_was_packed_is_paired_with_what_was_not(users: int):
    one, other = made(0, users), made(1, users)
    mixed = group_users(unpack(pack(one))) - group_users(other)
    assert_allclose(mixed.parts, (one - other).parts, atol=np.nanmax(np.abs(one.parts)) / 200)
