from datetime import date, datetime, time, timedelta, timezone

import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from mgoe.config import SplitSettings, dump_settings, make_settings
from mgoe.data.times import make_cuts, microseconds, newest_buckets
from mgoe.errors import DataError

DAY = 18_262  # 2020-01-01
DAYS = st.dates(date(1971, 1, 1), date(2100, 1, 1))
ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.builds(datetime.combine, DAYS, st.just(time()) | st.times(), ZONES)


@given(
    counts=st.lists(st.integers(1, 50), min_size=6, max_size=40),
    quantiles=st.lists(st.integers(1, 19), min_size=3, max_size=6, unique=True),
)
def test_a_quantile_cut_is_the_first_bucket_that_reaches_its_share(counts, quantiles):
    counts, buckets = np.array(counts), DAY + np.cumsum(np.array(counts) % 3 + 1)
    named = [q / 20 for q in sorted(quantiles)]
    try:
        cuts = make_cuts(SplitSettings(cuts=named), "1d", buckets, counts)
    except DataError:
        assume(False)
    for q, cut in zip(named, cuts, strict=True):
        upto = counts[buckets <= cut].sum() / counts.sum()
        before = counts[buckets < cut].sum() / counts.sum()
        assert before < q + 1e-9 <= upto + 2e-9


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=12), rows=st.integers(1, 99), data=st.data())
def test_the_newest_training_rows_are_as_many_whole_buckets_as_fit(counts, rows, data):
    counts, buckets = np.array(counts), DAY + np.cumsum(np.array(counts) % 3 + 1)
    last = data.draw(st.integers(0, len(counts) - 1))
    before = data.draw(st.integers(0, last)) - 1  # the place of the last bucket before training
    first = int(buckets[before]) if before >= 0 else DAY
    training = slice(before + 1, last + 1)
    if counts[last] > rows:
        with pytest.raises(DataError, match=r"training\.rows: the newest bucket of training must be among"):
            newest_buckets(rows, buckets, counts, first, int(buckets[last]))
        return
    start = newest_buckets(rows, buckets, counts, first, int(buckets[last]))
    kept = buckets[training] > start
    assert counts[training][kept].sum() <= rows
    assert kept.all() or counts[training][kept].sum() + counts[training][~kept][-1] > rows
    assert newest_buckets(int(counts.sum()), buckets, counts, first, int(buckets[last])) == first


@given(days=st.lists(st.integers(1, 60), min_size=3, max_size=6, unique=True), more=st.integers(1, 9))
def test_a_date_is_the_first_day_after_its_cut(days, more):
    named = [date(2020, 1, 1) + timedelta(days=d) for d in sorted(days)]
    buckets = np.arange(DAY, DAY + 62 + more)
    cuts = make_cuts(SplitSettings(cuts=named), "1d", buckets, np.ones_like(buckets))
    assert (cuts == [DAY + d - 1 for d in sorted(days)]).all()


def test_a_bucket_that_contains_a_cut_is_before_it():
    cuts = [datetime(2020, 1, d, 3) for d in (3, 4, 5)]
    assert make_cuts(
        SplitSettings(cuts=cuts), "6h", np.arange(4 * DAY, 4 * DAY + 40), np.ones(40, int)
    ).tolist() == [4 * (DAY + d) for d in (2, 3, 4)]


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (
            [0.15, 0.2, 0.9],
            r"cuts 0.15 and 0.2 both fall into bucket 2020-01-02 of 10 .* take fewer cuts, or a shorter "
            r"data.bucket",
        ),
        (
            [date(2019, 1, 1), date(2020, 1, 4), date(2020, 1, 8)],
            "needs history before the cut 2019-01-01, found positives from 2020-01-01 to 2020-01-10",
        ),
        (
            [date(2020, 1, 4), date(2020, 1, 6), date(2021, 1, 1)],
            "every part needs positives, found none in test",
        ),
        (
            [date(2020, 1, 4), date(2021, 1, 6), date(2021, 1, 9)],
            "every part needs positives, found none in valid",
        ),
        ([0.5, 0.7, 0.999], "found none in test"),
    ],
)
def test_a_part_without_examples_is_refused(cuts, message):
    with pytest.raises(DataError, match=message):
        make_cuts(SplitSettings(cuts=cuts), "1d", np.arange(DAY, DAY + 10), np.full(10, 5))


def test_moments_are_utc():
    assert microseconds(date(1970, 1, 2)) == 86_400_000_000
    assert microseconds(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    assert microseconds(datetime(1969, 12, 31, 23, 59, 59, 999_999)) == -1


@given(moments=st.lists(DAYS | TIMES, min_size=5, max_size=8, unique_by=microseconds))
def test_times_with_and_without_quotes_in_yaml_are_the_same_and_survive_saving(moments):
    start, *cuts, end = sorted(moments, key=microseconds)

    def read(write):
        named = ", ".join(map(write, cuts))
        data = f"{{log: x, start: {write(start)}, end: {write(end)}}}"
        text = f"{{data: {data}, tasks: [buy], split: {{cuts: [{named}]}}}}"
        return make_settings(yaml.safe_load(text))

    plain, quoted = read(lambda moment: moment.isoformat()), read(lambda moment: f"'{moment.isoformat()}'")
    for settings in (plain, quoted):
        again = make_settings(yaml.safe_load(dump_settings(settings)))
        assert again == settings
        assert dump_settings(again) == dump_settings(plain)
        read_as = [settings.data.start, *settings.split.cuts, settings.data.end]
        assert [microseconds(moment) for moment in read_as] == [
            microseconds(moment) for moment in (start, *cuts, end)
        ]
        assert [isinstance(cut, datetime) for cut in settings.split.cuts] == [
            isinstance(cut, datetime) for cut in cuts
        ]
