"""A test split of several windows: each reads its own snapshot, and nothing else changes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from mgoe.config import make_settings
from mgoe.data import SPLITS, Prepared
from mgoe.errors import ConfigError
from tests.data import logs
from tests.effort import SOAK

few = settings(max_examples=3 if SOAK else 2)
DAY_OF_SECOND = 11
DAILY = {"cuts": [*logs.CUTS, "2020-01-12"], "test_windows": 2}
"""The cuts of the small logs, and one more between the two days that are test."""
FORMS = {
    "events": (logs.event_settings, logs.quiet_events, logs.events, logs.event_rows, {}),
    "exposures": (
        logs.exposure_settings,
        logs.quiet_exposures,
        logs.exposures,
        logs.exposure_rows,
        {"data": {"context": [{"name": "hour"}]}},
    ),
}


def rows_of(data: Prepared, split: str) -> pd.DataFrame:
    return pd.read_parquet(data.path / f"{split}.parquet")


@pytest.mark.parametrize("form", FORMS)
@few
@given(data=st.data())
def test_another_snapshot_within_test_is_read_by_later_rows_and_changes_nothing_else(form, data):
    of, quiet, build, rows, more = FORMS[form]
    log = pd.concat([quiet(), build(data.draw(rows()))])
    with TemporaryDirectory() as folder:
        frozen = logs.prepared(log, of(**more), Path(folder) / "frozen")
        daily = logs.prepared(log, of(**more, split=DAILY), Path(folder) / "daily")
        for name in ("train.parquet", "valid.parquet", "users.parquet", "items.parquet"):
            assert (frozen.path / name).read_bytes() == (daily.path / name).read_bytes(), name
        for file in (frozen.path / "context").iterdir():
            assert file.read_bytes() == (daily.path / "context" / file.name).read_bytes()
        one, other = rows_of(frozen, "test"), rows_of(daily, "test")
        assert_frame_equal(one.drop(columns="snapshot"), other.drop(columns="snapshot"))
        assert set(one.snapshot) == {3}
        second = other.bucket == logs.START // logs.DAY + DAY_OF_SECOND
        assert (other.snapshot == 3 + second).all()
        assert 0 < second.sum() < len(second)
        assert daily.cuts[:4].tolist() == frozen.cuts.tolist()
        assert (frozen.valid_window, daily.valid_window) == (2, 2)
        assert daily.users_at[:4].tolist() == frozen.users_at[:4].tolist()
        ages = [one.summary["splits"]["test"]["history_age"] for one in (frozen, daily)]
        assert ages[1] == 1 < ages[0]


@pytest.mark.parametrize("form", FORMS)
@few
@given(data=st.data())
def test_fewer_training_rows_are_the_newest_and_nothing_else_changes(form, data):
    of, quiet, build, rows, more = FORMS[form]
    log = pd.concat([quiet(), build(data.draw(rows()))])
    with TemporaryDirectory() as folder:
        every = logs.prepared(log, of(**more), Path(folder) / "every")
        per_bucket = rows_of(every, "train").groupby("bucket").size()
        limit = (4 if form == "events" else 1) * int(per_bucket.iloc[-1]) + data.draw(st.integers(0, 9))
        newest = logs.prepared(log, of(**more, training={"rows": limit}), Path(folder) / "few")
        one, other = rows_of(every, "train"), rows_of(newest, "train")
        assert 0 < len(other) <= limit
        assert_frame_equal(one[one.bucket >= other.bucket.min()].reset_index(drop=True), other)
        for name in ("valid", "test", "history", "users", "items"):
            assert (every.path / f"{name}.parquet").read_bytes() == (
                newest.path / f"{name}.parquet"
            ).read_bytes(), name
        assert (every.cuts.tolist(), every.users_at.tolist()) == (
            newest.cuts.tolist(),
            newest.users_at.tolist(),
        )


@pytest.mark.parametrize("windows", [1, 2])
def test_windows_before_those_of_test_are_train_and_valid(windows, tmp_path):
    run = logs.event_settings(split={"cuts": logs.CUTS, "test_windows": windows})
    data = logs.prepared(logs.quiet_events(), run, tmp_path / "out")
    found = [sorted(set(data.examples(split).snapshot.tolist())) for split in SPLITS]
    valid = 3 - windows
    assert found == [list(range(valid)), [valid], list(range(valid + 1, 4))]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            {"cuts": [0.2, 0.4, 0.6, 0.8], "test_windows": 3},
            "at least 5 cuts are needed (train, valid and 3 test windows each read the snapshot before "
            "them), found 4; add cuts, or take fewer test_windows",
        ),
        ({"cuts": [0.2, 0.4]}, "at least 3 cuts are needed (train, valid and test each read"),
        ({"test_windows": 0}, "split.test_windows"),
    ],
)
def test_too_many_test_windows_are_refused(split: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as refused:
        make_settings({"data": {"log": "unused"}, "tasks": ["click"], "split": split})
    assert message in str(refused.value)
