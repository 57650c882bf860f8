"""Ids of a request are found as those of a column are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data import Vocabulary, vocabulary

integers = st.one_of(st.integers(-50, 50), st.integers(-(2**63), 2**63 - 1))
asked = st.lists(
    st.one_of(
        integers,
        st.integers(),
        integers.map(str),
        st.text(max_size=3),
        st.sampled_from(["07", "-0", "+1", " 1", "1_0", "²", "--5", "-", "1-"]),
    ),
    max_size=8,
)


def check_equal(ids: pa.Array, wanted: list[int | str]) -> None:
    """Compare with a search through the ids as text."""
    texts = [str(one) for one in ids.to_pylist()]
    expected = [texts.index(str(one)) if str(one) in texts else -1 for one in wanted]
    assert Vocabulary(ids).look_up(wanted).tolist() == expected
    columns = [pa.array([one]) if fits(one) else [one] for one in wanted]
    assert [Vocabulary(ids).indices(column).tolist() for column in columns] == [[index] for index in expected]


def fits(one: int | str) -> bool:
    """Return whether Arrow holds a value in one of its own types."""
    return isinstance(one, str) or -(2**63) <= one < 2**63


@given(ids=st.lists(integers, unique=True, max_size=12), wanted=asked, again=st.booleans())
def test_integers(ids: list[int], wanted: list[int | str], again: bool):
    check_equal(pa.array(ids, pa.int64()), wanted + (ids + [str(one) for one in ids] if again else []))


@given(ids=st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=12), wanted=asked)
def test_unsigned_integers(ids: list[int], wanted: list[int | str]):
    check_equal(pa.array(ids, pa.uint64()), wanted + ids)


@given(ids=st.lists(st.text(max_size=3), unique=True, max_size=12), wanted=asked)
def test_strings(ids: list[str], wanted: list[int | str]):
    check_equal(pa.array(ids, pa.string()), wanted + ids)


@pytest.mark.parametrize("one", ["--5", "-", "5-", "-0", "05", "²", "9" * 20])
def test_a_string_that_is_not_a_number_in_its_usual_notation_is_unknown(one: str):
    assert Vocabulary(pa.array([5, -5, 0], pa.int64())).look_up([one, 5, "-5"]).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()])
def test_an_empty_vocabulary_knows_no_id(kind: pa.DataType):
    empty = Vocabulary(pa.array([], kind))
    assert empty.look_up([]).shape == (0,)
    assert empty.look_up([1, "1"]).tolist() == [-1, -1]
    assert empty.look_up([]).dtype == np.int64


def test_strings_are_converted_in_slices(monkeypatch: pytest.MonkeyPatch):
    """Other threads run between two slices."""
    monkeypatch.setattr(vocabulary, "SLICE", 4)
    ids = [f"n{k}" for k in range(10)]
    assert Vocabulary(pa.array(ids)).look_up([*ids, "n10"]).tolist() == [*range(10), -1]
