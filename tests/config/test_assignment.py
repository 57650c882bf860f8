"""Assignment is that of GrowthBook's hashes: its published vectors pass, coverage moves nobody, and ranges of
one namespace share nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.effort import SOAK

from mgoe.config import check_settings
from mgoe.config.assignment import arm_of, is_in, place
from mgoe.config.experiment import ExperimentSettings


def experiment(shares: list[float], **changed: object) -> ExperimentSettings:
    arms = [{"name": f"a{number}", "share": share} for number, share in enumerate(shares)]
    return check_settings(ExperimentSettings, {"id": "one", "arms": arms} | changed)


@pytest.mark.parametrize(
    ("seed", "unit", "found"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_published_vectors_of_the_hash_pass(seed: str, unit: str, found: float) -> None:
    assert place(seed, unit) == found


@pytest.mark.parametrize(
    ("shares", "coverage", "ranges"),
    [
        ([0.5, 0.5], 1, [(0, 0.5), (0.5, 1)]),
        ([0.5, 0.5], 0.5, [(0, 0.25), (0.5, 0.75)]),
        ([0.5, 0.5], 0, [(0, 0), (0.5, 0.5)]),
        ([0.25] * 4, 1, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], 1, [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], 1, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
        ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
    ],
)
def test_the_published_vectors_of_ranges_pass(
    shares: list[float], coverage: float, ranges: list[tuple[float, float]]
) -> None:
    """Those with a coverage or shares that settings refuse are left out."""
    found = experiment(shares, coverage=coverage).ranges
    assert np.round(found, 9).tolist() == [list(one) for one in ranges]


def test_many_users_are_assigned_by_the_shares_and_coverage_moves_nobody() -> None:
    n, shares = 1_000_000 if SOAK else 100_000, [0.5, 0.3, 0.2]
    before = np.full(n, -1)
    for coverage in (0.1, 0.5, 1.0):
        one = experiment(shares, coverage=coverage)
        places = np.array([place(one.seed, str(user)) for user in range(n)])
        arms = np.full(n, -1)
        for number, (start, end) in enumerate(one.ranges):
            arms[(places >= start) & (places < end)] = number
        assert all(arm_of(one, str(user)) == (None if arms[user] < 0 else arms[user]) for user in range(500))
        for number, share in enumerate(shares):
            p = share * coverage
            assert abs((arms == number).sum() - n * p) < 5 * np.sqrt(n * p * (1 - p))
        was_in = before >= 0
        assert (arms[was_in] == before[was_in]).all()
        before = arms
    assert (before >= 0).all()


@given(st.text(), st.text())
def test_any_text_has_a_place(seed: str, unit: str) -> None:
    assert 0 <= place(seed, unit) < 1


def test_units_of_text_are_those_of_javascript() -> None:
    """Outside of the first plane a character has two units there."""
    assert place("s", "\U0001f600") == place("s", "\ud83d\ude00")


@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_more_coverage_moves_no_unit(parts: list[int], unit: str, one: float, other: float) -> None:
    shares = [part / sum(parts) for part in parts]
    less, more = (arm_of(experiment(shares, coverage=c), unit) for c in sorted((one, other)))
    assert less is None or less == more


@pytest.mark.parametrize(
    ("unit", "name", "in_the_first_part"),
    [
        ("1", "namespace1", False),
        ("1", "namespace2", False),
        ("2", "namespace1", False),
        ("2", "namespace2", False),
        ("3", "namespace1", False),
        ("3", "namespace2", True),
        ("4", "namespace1", False),
        ("4", "namespace2", True),
    ],
)
def test_the_published_vectors_of_namespaces_pass(unit: str, name: str, in_the_first_part: bool) -> None:
    first, rest = (
        experiment([0.5, 0.5], namespace={"id": name, "range": bounds}) for bounds in ([0, 0.4], [0.4, 1])
    )
    assert (is_in(first, unit), is_in(rest, unit)) == (in_the_first_part, not in_the_first_part)


def test_ranges_of_a_namespace_divide_the_units_and_each_part_has_its_arms_by_the_shares() -> None:
    n, shares = 100_000 if SOAK else 20_000, [0.3, 0.7]
    parts = [
        experiment(shares, id=name, namespace={"id": "lists", "range": bounds})
        for name, bounds in (("one", [0, 0.25]), ("two", [0.25, 1]))
    ]
    arms = np.array(
        [[-1 if (arm := arm_of(one, str(unit))) is None else arm for one in parts] for unit in range(n)]
    )
    assert ((arms >= 0).sum(axis=1) == 1).all()
    for column, share in zip(arms.T, (0.25, 0.75), strict=True):
        for arm, of_arm in enumerate(shares):
            p = share * of_arm
            assert abs((column == arm).sum() - n * p) < 5 * np.sqrt(n * p * (1 - p))
    assert not is_in(parts[0], None)
    assert is_in(experiment(shares), None), "without a namespace everybody is in"
