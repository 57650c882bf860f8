"""Samples of both parts have no user in common, and every grid is of 24 settings beside the first result."""

from pathlib import Path

import pandas as pd
import yaml
from benchmarks.strangers import FIRST, PARTS, REFERENCES, SAMPLES, USUAL, comparison, some_users


def test_the_parts_of_a_sample_share_no_user_and_keep_all_rows_of_theirs(tmp_path: Path):
    log = pd.DataFrame({"user_id": [user for user in range(200) for _ in range(3)], "item_id": range(600)})
    log.to_parquet(tmp_path / "log.parquet")
    users = []
    for part, name in enumerate(PARTS):
        some_users("log.parquet", "user_id", 30, "true", tmp_path, tmp_path / name, part)
        found = pd.read_parquet(tmp_path / name / "log.parquet")
        assert (found["user_id"].value_counts() == 3).all()
        users.append({*found["user_id"]})
    assert [len(one) for one in users] == [30, 30]
    assert not users[0] & users[1]


def test_the_first_result_stands_beside_24_settings(tmp_path: Path):
    (tmp_path / "first.yaml").write_text("data: {log: log}")
    settings = comparison(tmp_path)
    fixed = [FIRST, USUAL, *REFERENCES]
    assert settings.model_names[: len(fixed)] == fixed
    assert len({*settings.model_names} - {*fixed}) == 24
    assert [*settings.logs] == ["log"]
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES) == 15


def test_an_odd_day_that_was_left_out_is_cut_in_two_ways(tmp_path: Path):
    (tmp_path / "first.yaml").write_text(
        "data: {log: log, end: '2014-11-11'}\nsplit: {cuts: [0.5, 0.7, 0.9]}"
    )
    assert [*comparison(tmp_path).logs] == ["log", "rules", "three-cuts"]
    written = [yaml.safe_load((tmp_path / f"{way}.yaml").read_text()) for way in ("rules", "three-cuts")]
    assert all("end" not in one["data"] for one in written)
    assert [one["split"]["cuts"] for one in written] == ["auto", [0.4, 0.6, 0.8]]
