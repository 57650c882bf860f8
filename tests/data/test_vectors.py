"""Vectors of side tables: read from a list column or a file, whitened, and stored once per node."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mgoe.config import DataSettings, FeatureSettings
from mgoe.data import FeatureEncoders, Prepared, SideFeatures, guess
from mgoe.data.vectors import Space, as_vectors
from mgoe.errors import DataError
from tests.data import logs

TITLES = np.random.default_rng(0).normal(3, 2, (200, 5)) @ np.diag([9.0, 5, 2, 1, 0.5])
IDS = np.r_[1, 0, np.arange(100, 298)]
"""Users 0 and 1 are in the log."""
VECTOR = {"name": "title", "kind": "vector"}


def with_vectors(folder, side: pd.DataFrame, **feature) -> Prepared:
    side.to_parquet(folder / "side.parquet")
    table = {"path": str(folder / "side.parquet"), "id": "id", "features": [VECTOR | feature]}
    return logs.prepared(logs.quiet_events(), logs.event_settings(data={"users": table}), folder / "out")


def as_lists(vectors) -> pd.DataFrame:
    return pd.DataFrame({"id": IDS[: len(vectors)], "title": list(vectors)})


def test_a_list_column_and_a_file_beside_the_table_give_the_same_memory_mapped_numbers(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    vectors = TITLES.astype(np.float32)
    listed = with_vectors(tmp_path / "a", as_lists([*vectors[:-1], None])).user_side
    vectors[-1] = np.nan
    np.save(tmp_path / "b" / "title.npy", vectors)
    filed = with_vectors(tmp_path / "b", pd.DataFrame({"id": IDS}), path="title.npy").user_side
    assert listed.encoders.spaces["title"].usual == filed.encoders.spaces["title"].usual
    held = filed.arrays["title"]
    assert isinstance(held, np.memmap)
    assert (held.dtype, held.shape[1]) == (np.float16, 6)
    np.testing.assert_array_equal(listed.arrays["title"], held)
    given = {"title": [*vectors[[1, 0]], None]}  # as a service is given them
    encoded = filed.encoders.encode(given, 3)["title"]
    np.testing.assert_array_equal(encoded[:2], held[:2])
    assert not encoded[2].any()  # missing ones read 0 and the mark of none
    assert not filed.gather([-1, 99_999])["title"].any()
    assert held[0, -1] == 1


@given(width=st.integers(1, 70), rows=st.integers(1, 90), rank=st.integers(0, 70), seed=st.integers(0, 99))
def test_whitened_numbers_are_uncorrelated_and_a_vector_gives_the_same_alone(width, rows, rank, seed):
    rng = np.random.default_rng(seed)
    vectors = 7 + rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, width))
    space = Space.fit(vectors, "titles")
    white = space.encode(vectors)
    assert white.shape[1] - 1 <= min(width, rank, rows, 64)
    numbers = white[:, :-1].astype(float)
    np.testing.assert_allclose(numbers.T @ numbers / rows, np.eye(numbers.shape[1]), atol=0.02)
    for row in range(0, rows, 7):
        np.testing.assert_array_equal(space.encode(vectors[[row]])[0], white[row])


def test_directions_have_fixed_signs_and_encoders_come_back_from_disk(tmp_path):
    space, other = Space.fit(TITLES, "titles"), Space.fit(TITLES[::-1], "titles")
    np.testing.assert_allclose(space.base, other.base, rtol=1e-5)
    largest = np.abs(space.base[1:]).argmax(1)
    assert (space.base[1:][np.arange(5), largest] > 0).all()
    encoders = FeatureEncoders((FeatureSettings(**VECTOR),), spaces={"title": space})
    SideFeatures(encoders, {"title": space.encode(TITLES)}).save(tmp_path)
    back = SideFeatures.load(tmp_path)
    np.testing.assert_array_equal(back.encoders.encode({"title": TITLES}, 200)["title"], back.arrays["title"])
    assert (back.encoders.spaces["title"].noise, back.encoders.spaces["title"].usual) == (
        space.noise,
        space.usual,
    )


def test_vectors_of_another_space_are_warned_of(caplog):
    encoders = FeatureEncoders((FeatureSettings(**VECTOR),), spaces={"title": Space.fit(TITLES, "titles")})
    turned = TITLES @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    with caplog.at_level(logging.WARNING):
        encoders.encode({"title": TITLES[:50]}, 50)
        encoders.encode({"title": np.full((3, 5), np.nan)}, 3)
        assert not caplog.records
        encoders.encode({"title": turned[:50]}, 50)
    assert "feature 'title': vectors must come from the encoder of those" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([1.0, 2.0], r"each has 5 numbers, found 2 in row 3; cut"),
        ([1.0, np.nan, 2.0, 3.0, 4.0], r"must be finite, found NaN or infinity in row 3;"),
        ([1.0, np.inf, 2.0, 3.0, 4.0], r"must be finite, found NaN or infinity in row 3;"),
        ([0.0] * 5, r"must say something, found only zeros in row 3; leave it missing"),
        ([1.0] * 4097, r"a vector has 1 to 4,096 numbers, found 4,097"),
    ],
)
def test_a_wrong_vector_is_named_by_its_row(wrong, message, tmp_path):
    side = as_lists([*TITLES[:2], wrong, *TITLES[3:9]])
    with pytest.raises(DataError, match=rf"side.parquet, column 'title': .*{message}"):
        with_vectors(tmp_path, side)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (TITLES[:, :4], "each has 5 numbers, found 4 in row 1 and 199 more"),
        (["1 2", "3"], "a vector is a list of numbers, found string"),
    ],
)
def test_vectors_that_do_not_fit_the_encoder_are_refused(values, message):
    encoders = FeatureEncoders((FeatureSettings(**VECTOR),), spaces={"title": Space.fit(TITLES, "titles")})
    with pytest.raises(DataError, match=f"feature 'title': {message}"):
        encoders.encode({"title": values}, len(values))


@pytest.mark.parametrize("array", [TITLES[:-1], TITLES[:, 0], np.arange(400).reshape(200, 2), None])
def test_a_file_that_does_not_fit_its_table_is_refused(array, tmp_path):
    if array is None:
        (tmp_path / "title.npy").write_bytes(b"\x93NUMPY")
    else:
        np.save(tmp_path / "title.npy", array)
    rule = "must be an array that `numpy.save` wrote" if array is None else "for each of the 200 rows"
    with pytest.raises(DataError, match=rf"title.npy: must .*{rule[5:]}"):
        with_vectors(tmp_path, pd.DataFrame({"id": IDS}), path="title.npy")


def test_a_table_of_missing_vectors_and_a_repeated_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="found none; leave the feature out"):
        Space.fit(as_vectors([None, [np.nan, np.nan]], 2, "titles"), "titles")
    side = as_lists(TITLES)
    side.loc[3, "id"] = 1
    with pytest.raises(DataError, match="one row per id, found 1 in 2 rows"):
        with_vectors(tmp_path, side)


def test_a_guess_leaves_vectors_of_a_log_to_a_side_table(tmp_path):
    log = logs.quiet_exposures()
    log.assign(about=[[0.5, 1.5]] * len(log)).to_parquet(tmp_path / "log.parquet")
    written = guess(tmp_path / "log.parquet")
    assert "  # items:  " in written
    assert "  #     - {name: about, kind: vector}\n" in written
    assert "kind: multi" not in written


def test_vectors_are_features_of_side_tables_alone():
    with pytest.raises(ValidationError, match="vectors are features of users and items, found 'title'"):
        DataSettings.model_validate({"log": "log", "context": [VECTOR]})
    with pytest.raises(ValidationError, match="`path` is for `kind: vector`, found categorical"):
        FeatureSettings(name="title", path="title.npy")
