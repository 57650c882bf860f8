"""Settings that follow the log: every window holds examples, and no odd day decides alone."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import AUTO, SplitSettings, TrainingSettings, laid_over, make_settings, nested
from mgoe.data import choices, guess, profile, read_settings
from mgoe.data.rules import LEAST, SMALLEST_BATCH, Scan, choose
from mgoe.data.times import make_cuts
from mgoe.errors import DataError
from tests.effort import up_to

DAYS = st.lists(st.integers(0, 1000), min_size=5, max_size=80).filter(
    lambda done: np.count_nonzero(done) >= 5 and np.count_nonzero(done[:-1]) >= 4
)


def scan(done: list[int], bucket: str = "1d", events: bool = True) -> Scan:
    """A log with so many positives in each bucket, from day 100 on."""
    counts = np.array(done, np.int64)
    return Scan(events, int(counts.sum()), 50, 60, bucket, np.arange(100, 100 + len(done)), counts, counts)


def windows(log: Scan) -> list[np.ndarray]:
    """Return the positives per bucket of the history before the first cut and of each window."""
    found = choose(log)
    if "data.end" in found:
        day = (np.datetime64(found["data.end"].value[:10]) - np.datetime64("1970-01-01")).astype(int)
        log = log.until(int(day))
    held = log.done > 0
    split = SplitSettings(cuts=found["split.cuts"].value)
    cuts = make_cuts(split, log.bucket, log.buckets[held], log.done[held])
    return [part[part > 0] for part in np.split(log.done, np.searchsorted(log.buckets, cuts, side="right"))]


@given(DAYS)
def test_every_window_holds_positives(done):
    parts = windows(scan(done))
    assert len(parts) >= 4  # history, train, valid and test
    assert all(len(part) for part in parts)


@given(DAYS)
def test_no_window_is_tiny(done):
    """Two cuts that meet on one large day are one, so that no window is a sliver beside it."""
    parts = windows(scan(done))
    whole = sum(part.sum() for part in parts)
    if max(part.max() for part in parts) < whole / 5:  # else so few windows may be possible that one is small
        assert min(part.sum() for part in parts[1:]) >= LEAST * whole


@pytest.mark.parametrize("days", [30, 100, 1000])
def test_an_even_log_has_the_usual_cuts(days):
    assert choose(scan([50] * days))["split.cuts"].value == SplitSettings().cuts


def test_the_usual_cuts_of_a_log_that_grows_stay():
    found = choose(scan([10 + k for k in range(60)]))
    assert found["split.cuts"].value == SplitSettings().cuts
    assert "data.end" not in found


def test_a_late_large_day_that_is_no_other_world_costs_no_training_window():
    """Before, three cuts remained of eight."""
    parts = windows(scan([30] * 20 + [110]))
    assert len(parts) >= 8
    assert parts[-1].tolist() == [110]


def test_a_sale_on_the_last_day_is_left_out_of_test():
    log = scan([10] * 60 + [150, 4])
    found = choose(log)
    assert found["data.end"].value == str(np.datetime64("1970-01-01") + 160)
    assert "alone holds 20% of what was done" in found["data.end"].reason
    assert windows(log)[-1].max() == 10


@pytest.mark.parametrize("days_after", range(5, 15))
def test_a_sale_is_neither_all_of_validation_nor_all_of_test(days_after):
    for part in windows(scan([10] * 60 + [110] + [10] * days_after))[-2:]:
        assert 2 * part.max() <= part.sum() or part.max() == 10


def test_few_training_rows_get_smaller_batches():
    usual = TrainingSettings()
    sizes = [choose(scan([rows] * 60)).get("training.batch_size") for rows in (2, 20, 200, 2000, 20_000)]
    batches = [usual.batch_size if size is None else size.value for size in sizes]
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (SMALLEST_BATCH, usual.batch_size)


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
    (tmp_path / "auto.yaml").write_text(yaml.safe_dump(laid_over(written, AUTO)))
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
    raw = laid_over(GIVEN, nested(dict.fromkeys(asked, "auto")))
    found = choices(raw, table=with_a_sale())
    assert found.keys() == asked
    assert all(one.reason for one in found.values())
    if "data.end" in found:
        assert found["data.end"].value == "2024-04-30"
    rest = make_settings(laid_over(raw, nested({key: one.value for key, one in found.items()})))
    for key in KEYS:
        section, name = key.split(".")
        kept = getattr(getattr(rest, section), name) == getattr(getattr(make_settings(GIVEN), section), name)
        assert kept == (key not in asked)


def test_no_rule_reads_rows_after_the_end_that_is_given():
    raw, log = laid_over(GIVEN, {"split": {"cuts": "auto"}, "training": AUTO["training"]}), with_a_sale()
    assert choices(raw, table=log) == choices(raw, table=log[log["timestamp"] < GIVEN["data"]["end"]])


def test_choices_for_clocks_of_a_zone_are_those_for_the_same_moments_in_utc():
    zone, log = "Asia/Shanghai", with_a_sale()
    in_utc = log.assign(timestamp=log["timestamp"].dt.tz_localize(zone).dt.tz_convert("UTC"))
    local, utc = (
        choices(laid_over(GIVEN, AUTO, {"data": {"timezone": name}}), table=table)
        for name, table in ((zone, log), ("UTC", in_utc))
    )
    ends = [pd.Timestamp(one.pop("data.end").value) for one in (local, utc)]
    assert ends[0].tz_localize(zone) == ends[1].tz_localize("UTC")
    assert local == utc


def test_the_log_keeps_its_end_unless_that_is_auto():
    log, cuts = with_a_sale(), {"split": {"cuts": "auto"}}
    found = [
        choices(laid_over(GIVEN, cuts, {"data": {"end": end}}), table=log)["split.cuts"].value
        for end in (None, "2024-04-30", "auto")
    ]
    assert found[1] == found[2] != found[0]


def test_rows_that_do_no_task_do_not_count():
    log, rng = with_a_sale(), np.random.default_rng(1)
    others = log.assign(behavior="view")[rng.random(len(log)) < np.linspace(0, 1, len(log))]
    raw = laid_over(GIVEN, AUTO)
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
        choices(laid_over(GIVEN, AUTO), table=with_a_sale().drop(columns="behavior"))
