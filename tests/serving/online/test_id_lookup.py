"""Codes of a request's ids are those of the vocabulary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data import Vocabulary
from mgoe.serving.online import id_lookup as codes
from mgoe.serving.online.id_lookup import IdLookup

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
    codes = IdLookup(Vocabulary(ids))
    expected = [int(codes.vocabulary.indices([one])[0]) if fits(one, ids) else -1 for one in wanted]
    assert codes.indices(wanted).tolist() == expected


def fits(one: int | str, ids: pa.Array) -> bool:
    """Arrow holds no whole number above 64 bits."""
    return isinstance(one, str) or -(2**63) <= one < 2**64 or not pa.types.is_integer(ids.type)


@given(ids=st.lists(integers, unique=True, max_size=12), wanted=asked, again=st.booleans())
def test_whole_numbers(ids: list[int], wanted: list[int | str], again: bool):
    check_equal(pa.array(ids, pa.int64()), wanted + (ids + [str(one) for one in ids] if again else []))


@given(ids=st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=12), wanted=asked)
def test_whole_numbers_without_a_sign(ids: list[int], wanted: list[int | str]):
    check_equal(pa.array(ids, pa.uint64()), wanted + ids)


@given(ids=st.lists(st.text(max_size=3), unique=True, max_size=12), wanted=asked)
def test_strings(ids: list[str], wanted: list[int | str]):
    check_equal(pa.array(ids, pa.string()), wanted + ids)


@pytest.mark.parametrize("one", ["--5", "-", "5-", "-0", "05", "²", "9" * 20])
def test_a_text_that_writes_no_number_is_an_id_never_seen(one: str):
    assert IdLookup(Vocabulary(pa.array([5, -5, 0], pa.int64()))).indices([one, 5, "-5"]).tolist() == [
        -1,
        0,
        1,
    ]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()])
def test_no_id_at_all(kind: pa.DataType):
    codes = IdLookup(Vocabulary(pa.array([], kind)))
    assert codes.indices([]).shape == (0,)
    assert codes.indices([1, "1"]).tolist() == [-1, -1]
    assert codes.indices([]).dtype == np.int64


def test_strings_are_read_in_slices(monkeypatch: pytest.MonkeyPatch):
    """So that a thread that reads a million of them gives others their turn."""
    asked, ids_of = [], Vocabulary.ids
    monkeypatch.setattr(
        Vocabulary, "ids", lambda self, codes: asked.append(len(codes)) or ids_of(self, codes)
    )
    monkeypatch.setattr(codes, "SLICE", 4)
    ids = [f"n{k}" for k in range(10)]
    assert IdLookup(Vocabulary(pa.array(ids))).indices([*ids, "n10"]).tolist() == [*range(10), -1]
    assert asked == [4, 4, 2]
