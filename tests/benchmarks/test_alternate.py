"""The interval of a ratio, what is compared, and a log that is cut in two."""

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from benchmarks.alternate import COMPARISONS, ratio_of
from benchmarks.daily import split_log
from benchmarks.figures import Area
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.lists(st.floats(0.1, 100), min_size=3, max_size=12)


@given(TIMES, st.floats(0.5, 2))
def test_a_constant_factor_has_no_spread(old, factor):
    low, ratio, high = ratio_of([value * factor for value in old], old)
    assert low == pytest.approx(ratio) == pytest.approx(high)
    assert ratio == pytest.approx(factor)


@given(TIMES, st.data())
def test_the_interval_holds_the_ratio_and_turns_with_it(old, data):
    new = data.draw(st.lists(st.floats(0.1, 100), min_size=len(old), max_size=len(old)))
    low, ratio, high = ratio_of(new, old)
    assert low <= ratio <= high
    assert ratio_of(old, new) == pytest.approx((1 / high, 1 / ratio, 1 / low))


def test_the_speed_of_every_area_is_compared_and_quality_is_compared_otherwise():
    assert {one.area for one in COMPARISONS.values()} == {*get_args(Area)} - {"quality"}
    for one in COMPARISONS.values():
        assert (Path("benchmarks") / one.file).is_file()


def test_a_log_is_cut_in_time_and_moments_stay_together(tmp_path: Path):
    log = pd.DataFrame({"at": [*range(18), 20, 20, 21], "row": range(21)})
    log.sample(frac=1, random_state=0).to_parquet(tmp_path / "log.parquet")
    before, new = (pd.read_parquet(part) for part in split_log(tmp_path / "log.parquet", "at", tmp_path))
    assert before["at"].max() < new["at"].min()
    assert sorted([*before["row"], *new["row"]]) == [*range(21)]
