"""Settings that follow the log: every window holds examples, and no odd day decides alone."""

import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import SplitSettings, TrainingSettings
from mgoe.data import guess
from mgoe.data.rules import (
    APART,
    FEWEST_DAYS,
    LEAST,
    ODD_RATIO,
    SLIVER,
    SMALLEST_BATCH,
    Scan,
    choose,
    odd_buckets,
    share_that_returns,
)
from mgoe.data.times import make_cuts
from tests.data.logs import event_settings

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


@given(st.lists(st.integers(0, 20), min_size=30, max_size=200), st.integers(0, 2**32 - 1))
def test_users_return_if_a_cut_is_between_their_rows(days: list[int], seed: int):
    """Rows of one user in one window are one visit, wherever the cuts are."""
    days = [*days, *range(21)]
    users = np.random.default_rng(seed).integers(0, len(days) // 2, len(days))
    log = scan(np.bincount(days).tolist())
    split = SplitSettings(cuts=choose(log)["split.cuts"].value)
    cuts = make_cuts(split, log.bucket, log.buckets, log.done)
    window = np.searchsorted(cuts, np.array(days) + 100)
    expected = [len({*window[users == user].tolist()}) > 1 for user in np.unique(users)]
    rows = ibis.memtable({"user": users, "bucket": np.array(days) + 100})
    assert share_that_returns(rows, log) == pytest.approx(np.mean(expected))


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
    assert found["data.end"].value == str(np.datetime64("1970-01-01") + np.timedelta64(160, "D"))
    assert "alone holds 20% of what was done" in found["data.end"].reason
    assert windows(log)[-1].max() == 10


@pytest.mark.parametrize("days_after", range(5, 15))
def test_a_sale_is_neither_all_of_validation_nor_all_of_test(days_after):
    for part in windows(scan([10] * 60 + [110] + [10] * days_after))[-2:]:
        assert 2 * part.max() <= part.sum() or part.max() == 10


@given(st.integers(0, FEWEST_DAYS - 1))
def test_an_odd_day_is_as_much_above_the_usual_day_whatever_it_adds_itself(place):
    """The usual day is the median: a sale in few days would raise their mean."""
    for ratio, odd in ((ODD_RATIO, True), (ODD_RATIO - 0.1, False)):
        of_day = np.full(FEWEST_DAYS, 240)
        of_day[place] = 240 * ratio
        done = np.repeat(of_day // 24, 24)
        found = odd_buckets("1h", np.arange(len(done)), done).reshape(-1, 24)
        assert found[place].all() == found[place].any() == odd
        assert not np.delete(found, place, axis=0).any()


def test_few_training_rows_get_smaller_batches():
    usual = TrainingSettings()
    sizes = [choose(scan([rows] * 60)).get("training.batch_size") for rows in (2, 20, 200, 2000, 20_000)]
    batches = [usual.batch_size if size is None else size.value for size in sizes]
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (SMALLEST_BATCH, usual.batch_size)


# --- buckets that follow the items, and moments that are left out ---

HOUR, DAY = 3600, 86_400
START = 1_704_067_200  # 2024


def written(
    seconds: np.ndarray, items: np.ndarray | None = None, users: int = 200
) -> tuple[dict[str, Any], str]:
    """Return what `init` writes about a log with events at these seconds from the start of 2024."""
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, users, len(seconds)),
            "item_id": rng.integers(0, 60, len(seconds)) if items is None else items,
            "timestamp": pd.to_datetime(START + seconds, unit="s").floor("us"),
        }
    )
    with TemporaryDirectory() as folder:
        log.to_parquet(Path(folder) / "log.parquet")
        text = guess(Path(folder) / "log.parquet")
    return yaml.safe_load(text)["data"], text


def evenly(rows: int, days: float, first: float = 0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(first * DAY, (first + days) * DAY, rows)


def of_items(births: np.ndarray, life: float, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Events on items that are born at these days and live for so many hours."""
    rng, items = np.random.default_rng(seed), np.repeat(np.arange(len(births)), each)
    return births[items] * DAY + rng.uniform(0, life * HOUR, len(items)), items


@pytest.mark.parametrize(
    ("life", "bucket"), [(600, "1d"), (40, "1d"), (20, "6h"), (10, "1h"), (2, "10m")], ids=str
)
def test_a_bucket_is_at_most_half_of_the_life_of_an_item(life: int, bucket: str):
    """The middle four fifths of the rows of an item take .8 of its life here."""
    seconds, items = of_items(np.arange(0, 40, 0.01), life, each=40 if life > 5 else 200)
    data, text = written(seconds, items, users=5000)
    assert data["bucket"] == bucket
    assert ("half of the items get most of their rows within" in text) == (bucket != "1d")


def test_items_of_one_user_say_nothing_about_buckets():
    """One user who repeats an item ten times in an hour is a visit, not the life of the item."""
    seconds, items = of_items(np.arange(0, 40, 0.01), life=2, each=40)
    assert written(seconds, items, users=3)[0]["bucket"] == "1d"


def test_a_bucket_is_not_so_short_that_it_holds_few_rows():
    seconds, items = of_items(np.arange(0, 40, 0.1), life=2, each=40)
    assert written(seconds, items, users=5000)[0]["bucket"] == "6h"


@pytest.mark.parametrize("days", [3, 20, 45, 400])
def test_an_even_log_is_taken_whole_and_its_bucket_goes_by_its_span(days: int):
    data, text = written(evenly(20_000, days))
    usual = {3: "1h", 20: "6h"}.get(days, "1d")
    assert (data["bucket"], data.keys() & {"start", "end"}) == (usual, set())
    assert "of time; windows end with one\n" in text


def test_bursts_get_buckets_of_their_own():
    """Three bursts of a day, a month apart: with days as buckets there would be no windows."""
    data, text = written(np.concatenate([evenly(4000, 1, first) for first in (0, 31, 61)]))
    assert data["bucket"] == "1h"
    assert "rows are on 3 days of 62" in text


@pytest.mark.parametrize(
    ("far", "expected"),
    [
        (evenly(7, 27, 17), {"end": "2024-01-18"}),
        (evenly(7, 27, -27), {"start": "2024-01-01"}),
        (np.full(600, 3652.0 * DAY - START), "1980"),
        (np.full(600, 0.0 - START), "1970"),
        (np.full(600, 36_500.0 * DAY), {"end": "2024-01-18"}),
    ],
    ids=["tail", "head", "1980", "0", "far ahead"],
)
def test_an_almost_empty_end_and_moments_that_cannot_be_are_left_out(far: np.ndarray, expected: Any):
    data, text = written(np.concatenate([far, evenly(30_000, 17)]))
    named = expected if isinstance(expected, dict) else {"start": "2024-01-01"}
    assert {key: data[key] for key in ("start", "end") if key in data} == named
    assert f"{len(far):,} of {30_000 + len(far):,} rows are " in text
    side = "before" if "start" in named else "after"
    assert f", {side} almost all others; remove this line to keep them" in text
    if isinstance(expected, str):
        assert f"of {expected}-01-01, before" in text
    assert data["bucket"] == written(evenly(30_000, 17))[0]["bucket"]


def test_rows_of_the_future_are_left_out():
    now = time.time() - START
    data, text = written(np.concatenate([evenly(3000, 60, now / DAY - 60), evenly(100, 9, now / DAY + 2)]))
    assert datetime.fromisoformat(data["end"] + "T00:00:00Z").timestamp() - time.time() < 2 * DAY
    assert "100 of 3,100 rows are from" in text


@given(st.integers(0, 40), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_no_more_than_a_tenth_of_the_rows_is_left_out(gap: int, late: int, seed: int):
    days = np.random.default_rng(seed).integers(0, 20, 2000)
    days = np.concatenate([days, np.full(late, days.max() + gap)])
    log = ibis.memtable(
        {"user_id": days % 7, "item_id": days % 5, "timestamp": days * DAY, "behavior": ["click"] * len(days)}
    )
    found = Scan.of(log, event_settings(tasks=["click"]), "the log").outside
    if not found:
        assert late > SLIVER * len(days) or gap < 5
        assert late > APART * len(days) or gap <= 20
        return
    (day, why), *more = found.values()
    left = int((days >= day).sum())
    assert not more
    assert left == late <= APART * len(days)
    assert why.startswith(f"{left:,} of {len(days):,} rows are of ")
