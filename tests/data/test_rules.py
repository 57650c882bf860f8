"""Settings that follow the log: every window holds examples, and no odd day decides alone."""

import ibis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import SplitSettings, TrainingSettings
from mgoe.data.rules import (
    FEWEST_DAYS,
    LEAST,
    ODD_RATIO,
    SMALLEST_BATCH,
    Scan,
    choose,
    odd_buckets,
    share_that_returns,
)
from mgoe.data.times import make_cuts

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
    assert found["data.end"].value == str(np.datetime64("1970-01-01") + 160)
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
