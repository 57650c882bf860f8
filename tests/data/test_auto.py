"""Settings that a configuration leaves to the log are those that `init` writes, and no others."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import AUTO, TrainingSettings, deep_merge, make_settings, nested
from mgoe.data import choices, guess, profile, read_settings
from mgoe.errors import DataError
from tests.effort import up_to


def with_a_sale(rows: int = 6000, seed: int = 0) -> pd.DataFrame:
    """Sixty days and a last one with a fifth of the rows. One behaviour is too rare to become a task."""
    rng = np.random.default_rng(seed)
    days = rng.choice(61, rows, p=np.array([*[1] * 60, 15]) / 75)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 50, rows),
            "item_id": rng.integers(0, 60, rows),
            "timestamp": pd.Timestamp("2024-03-01") + pd.to_timedelta(days, unit="D"),
            "behavior": rng.choice(["click", "buy", "return"], rows, p=[0.8, 0.1995, 0.0005]),
        }
    )


def test_the_choices_are_written_with_their_reason(tmp_path):
    with_a_sale().to_parquet(tmp_path / "log.parquet")
    text = guess(tmp_path / "log.parquet")
    raw = yaml.safe_load(text)
    assert raw["data"]["end"] == "2024-04-30"
    assert "2024-04-30 alone holds" in text
    assert "training rows, so smaller batches" in text
    assert raw["training"]["batch_size"] < TrainingSettings().batch_size


@pytest.mark.parametrize("form", ["sale", "events", "exposures"])
def test_auto_is_what_init_writes(form, world, tmp_path):
    log = world / form
    if form == "sale":
        with_a_sale().to_parquet(log := tmp_path / "log.parquet")
    written = yaml.safe_load(guess(log))
    (tmp_path / "auto.yaml").write_text(yaml.safe_dump(deep_merge(written, AUTO)))
    assert read_settings(tmp_path / "auto.yaml") == make_settings(written)


GIVEN = {
    "data": {"log": "none.parquet", "end": "2024-04-20"},
    "tasks": ["click", "buy"],
    "split": {"cuts": [0.3, 0.5, 0.8]},
    "training": {"batch_size": 7, "learning_rate": 0.7, "epochs": 70},
}
KEYS = [f"{section}.{name}" for section in AUTO for name in AUTO[section]]


@up_to(4)
@given(st.sets(st.sampled_from(KEYS), min_size=1))
def test_the_rules_choose_what_is_asked_of_them_alone(asked):
    asked = asked | {"training.epochs"}
    raw = deep_merge(GIVEN, nested(dict.fromkeys(asked, "auto")))
    found = choices(raw, table=with_a_sale())
    assert found.keys() == asked
    assert all(one.reason for one in found.values())
    if "data.end" in found:
        assert found["data.end"].value == "2024-04-30"
    rest = make_settings(deep_merge(raw, nested({key: one.value for key, one in found.items()})))
    for key in KEYS:
        section, name = key.split(".")
        kept = getattr(getattr(rest, section), name) == getattr(getattr(make_settings(GIVEN), section), name)
        assert kept == (key not in asked)


def test_no_rule_reads_rows_after_the_end_that_is_given():
    raw, log = deep_merge(GIVEN, {"split": {"cuts": "auto"}, "training": AUTO["training"]}), with_a_sale()
    assert choices(raw, table=log) == choices(raw, table=log[log["timestamp"] < GIVEN["data"]["end"]])


def test_choices_for_clocks_of_a_zone_are_those_for_the_same_moments_in_utc():
    zone, log = "Asia/Shanghai", with_a_sale()
    in_utc = log.assign(timestamp=log["timestamp"].dt.tz_localize(zone).dt.tz_convert("UTC"))
    local, utc = (
        choices(deep_merge(GIVEN, AUTO, {"data": {"timezone": name}}), table=table)
        for name, table in ((zone, log), ("UTC", in_utc))
    )
    ends = [pd.Timestamp(one.pop("data.end").value) for one in (local, utc)]
    assert ends[0].tz_localize(zone) == ends[1].tz_localize("UTC")
    assert local == utc


def test_the_log_keeps_its_end_unless_that_is_auto():
    log, cuts = with_a_sale(), {"split": {"cuts": "auto"}}
    found = [
        choices(deep_merge(GIVEN, cuts, {"data": {"end": end}}), table=log)["split.cuts"].value
        for end in (None, "2024-04-30", "auto")
    ]
    assert found[1] == found[2] != found[0]


def test_rows_that_do_no_task_do_not_count():
    log, rng = with_a_sale(), np.random.default_rng(1)
    others = log.assign(behavior="view")[rng.random(len(log)) < np.linspace(0, 1, len(log))]
    raw = deep_merge(GIVEN, AUTO)
    assert choices(raw, table=pd.concat([log, others])) == choices(raw, table=log)


def test_no_log_is_read_where_nothing_is_auto():
    assert choices(GIVEN) == {}


def test_a_profile_says_what_the_rules_would_choose():
    found = profile(make_settings(GIVEN), with_a_sale())["rules"]
    assert found.keys() == set(KEYS)
    assert found["training.batch_size"].endswith("more of them), configured: 7")
    assert found["data.end"].startswith("2024-04-30 (2024-04-30 alone holds")


def test_auto_of_a_log_without_a_column_is_refused():
    with pytest.raises(DataError, match=r"the table: column 'behavior' \(data.behavior\) is missing"):
        choices(deep_merge(GIVEN, AUTO), table=with_a_sale().drop(columns="behavior"))
