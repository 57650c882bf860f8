import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data import Vocabulary, arrow, to_arrow
from mgoe.errors import DataError

kinds = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    ]
)


@given(data=st.data(), kind=kinds)
def test_indices_and_ids_are_inverse_and_survive_saving(data, kind):
    type_, values = kind
    ids = data.draw(st.lists(values, unique=True, min_size=1))
    others = [v for v in data.draw(st.lists(values)) if v not in ids]
    with TemporaryDirectory() as folder:
        made = Vocabulary(pa.array(ids, type_))
        made.save(Path(folder) / "v.parquet")
        vocabulary = Vocabulary.load(Path(folder) / "v.parquet")
    assert vocabulary.size == len(ids)
    assert vocabulary.indices(pa.array(ids, type_)).tolist() == list(range(len(ids)))
    assert vocabulary.indices(pa.array(others, type_)).tolist() == [-1] * len(others)
    assert vocabulary.ids(np.arange(len(ids))).to_pylist() == ids
    assert vocabulary.ids([-1, 0]).to_pylist() == [None, ids[0]]


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1))
def test_an_id_is_found_in_every_library(ids):
    vocabulary, codes = Vocabulary(pa.array(ids, pa.int64())), list(range(len(ids)))
    for given_as in (
        ids,
        np.array(ids),
        pd.Series(ids),
        pl.Series(ids),
        pa.chunked_array([ids]),
        [str(i) for i in ids],
    ):
        assert vocabulary.indices(given_as).tolist() == codes


def test_large_integers_are_not_rounded():
    vocabulary = Vocabulary(pa.array([2**53, 2**53 + 1, 2**53 + 2, 0]))
    assert vocabulary.indices([2**53 + 1, 2**53 + 3]).tolist() == [1, -1]
    assert vocabulary.indices(np.array([2**53 + 1], np.uint64)).tolist() == [1]
    assert vocabulary.indices(np.array([2**64 - 1, 0], np.uint64)).tolist() == [-1, 3]
    assert vocabulary.indices([2**64 + 5, -(2**63)]).tolist() == [-1, -1]


def test_another_type_matches_only_where_nothing_is_lost():
    numbers = Vocabulary(pa.array([7, 12]))
    assert numbers.indices([7.0, 7.5, float("nan"), 1e300]).tolist() == [0, -1, -1, -1]
    assert numbers.indices(["7", "07", " 7", "x", None]).tolist() == [0, -1, -1, -1, -1]
    assert numbers.indices(np.array([-7, 7], np.int8)).tolist() == [-1, 0]
    words = Vocabulary(pa.array(["7", "07", "naïve", "日本"]))
    assert words.indices([7, 12]).tolist() == [0, -1]
    assert words.indices(pd.Series(["日本", None, "naive"])).tolist() == [3, -1, -1]
    assert words.indices(pd.Series(["07"], dtype="category")).tolist() == [1]
    assert words.indices([7, "naïve", None]).tolist() == [0, 2, -1]
    assert Vocabulary(pa.array([2**64 - 1], pa.uint64())).indices([-1, 2**64 - 1]).tolist() == [-1, 0]


@given(
    number=st.integers(-(10**25), 10**25),
    type_=st.sampled_from([pa.decimal128(38, 10), pa.decimal128(38, 0), pa.decimal256(60, 3), None]),
    stored=st.sampled_from([pa.int64(), pa.uint64(), pa.string()]),
)
def test_a_whole_decimal_is_its_number(number, type_, stored):
    known = [str(number)] if pa.types.is_string(stored) else [number % 2**63]
    asked = Decimal(known[0])
    ids = Vocabulary(pa.array(known, stored))
    assert ids.indices(pa.array([asked, None, asked + 1], type_)).tolist() == [0, -1, -1]


def test_a_decimal_with_a_fraction_is_no_number():
    for ids in (pa.array([7, 0]), pa.array(["7", "0"])):
        assert Vocabulary(ids).indices([Decimal("7.00"), Decimal("7.50"), Decimal("0.00")]).tolist() == [
            0,
            -1,
            1,
        ]
    assert Vocabulary(pa.array([7, 1])).indices(
        pa.array([Decimal("7"), Decimal("1e-10")], pa.decimal128(38, 10))
    ).tolist() == [0, -1]


def test_nothing_to_look_up():
    assert Vocabulary(pa.array([1, 2])).indices([]).tolist() == []
    assert Vocabulary(pa.array([1, 2])).indices([None, None]).tolist() == [-1, -1]
    assert Vocabulary(pa.array([], pa.string())).indices(["a"]).tolist() == [-1]


@pytest.mark.parametrize("code", [2, -2])
def test_an_index_out_of_range_is_refused(code):
    with pytest.raises(DataError, match=f"between -1 and 1, found {code}"):
        Vocabulary(pa.array([1, 2])).ids([0, code])


@pytest.mark.parametrize(
    "one", [np.int64(7), 7, np.datetime64("2020-01-01"), datetime.date(2020, 1, 1), "seven", np.str_("seven")]
)
def test_one_value_is_a_column_of_one(one):
    column = to_arrow(one)
    assert len(column) == 1
    assert column[0].as_py() == (one.item() if isinstance(one, np.generic) else one)


@pytest.mark.parametrize("ids", [[[1, 2]], [[1], [2]], [{"id": 1}]])
def test_an_id_is_no_list(ids):
    with pytest.raises(DataError, match=r"each must be a number or a text, found (list|struct)"):
        Vocabulary(pa.array([1, 2])).indices(ids)


def test_lists_of_several_lengths_stay_lists():
    assert to_arrow([["a"], ["a", "b"], []]).to_pylist() == [["a"], ["a", "b"], []]


@given(data=st.data(), kind=kinds)
def test_forgotten_users_get_unused_ids_and_others_keep_theirs(data, kind):
    type_, values = kind
    ids = data.draw(st.lists(values, unique=True, min_size=1))
    codes = data.draw(st.lists(st.integers(0, len(ids) - 1)))
    left = Vocabulary(pa.array(ids, type_)).without(np.array(codes, np.int64))
    assert [left.ids([code])[0].as_py() for code in range(len(ids)) if code not in codes] == [
        one for code, one in enumerate(ids) if code not in codes
    ]
    again = Vocabulary(pa.array(ids, type_)).without(np.unique(np.array(codes, np.int64)))
    assert left.ids(np.arange(left.size)) == again.ids(np.arange(left.size))
    if pa.types.is_string(type_):
        assert all(left.ids([code])[0].as_py() == f"forgotten user, index {code}" for code in codes)


def test_text_beyond_32_bit_offsets_is_numbered_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "MOST_TEXT", 8)
    ids = pa.chunked_array([["a", "b"], ["c"]])
    made = Vocabulary(ids)
    assert made.ids([0]).type == pa.large_string()
    made.save(tmp_path / "ids.parquet")
    for vocabulary in (made, Vocabulary.load(tmp_path / "ids.parquet")):
        assert vocabulary.type == pa.string()
        assert vocabulary.indices(ids).tolist() == [0, 1, 2]
        assert vocabulary.ids([2, 0]).to_pylist() == ["c", "a"]
        assert vocabulary.without(np.array([1])).indices(["a", "b", "c"]).tolist() == [0, -1, 2]


@pytest.mark.parametrize(
    "values",
    [
        pa.RunEndEncodedArray.from_arrays([2, 5], ["a", "b"]),
        pa.chunked_array(
            [
                pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
                pa.RunEndEncodedArray.from_arrays([2], ["b"]),
            ]
        ),
        pa.array(list("aabbb"), pa.string_view()),
        np.array(list("aabbb")),
    ],
)
def test_the_encoding_of_a_column_does_not_matter(values):
    assert to_arrow(values).equals(pa.array(list("aabbb")))
    assert Vocabulary(pa.array(["b", "a"])).indices(values).tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view])
def test_a_list_of_string_views_becomes_a_list_of_strings(kind):
    assert to_arrow(pa.array([["a", "b"], None], kind(pa.string_view()))).type.value_type == pa.string()


@pytest.mark.parametrize(
    "values",
    [
        (one for one in "ab"),
        {"a": 1},
        {"a", "b"},
        np.array([["a", "b"]]),
        pd.DataFrame({"a": ["a"]}),
        pl.DataFrame({"a": ["a"]}),
        pa.table({"a": ["a"]}),
    ],
)
def test_other_objects_than_columns_are_refused(values):
    with pytest.raises(
        DataError, match=f"users: must be one column .* found a {type(values).__name__}.*; make a list of it"
    ):
        to_arrow(values, "users")
