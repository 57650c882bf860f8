"""Units get what they did after their assignment, as a loop over the rows counts it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.abtest.samples import DAY, collect, read_answers, read_rows
from mgoe.errors import DataError
from tests.abtest import logs


@given(seed=st.integers(0, 1000))
def test_sums_are_those_of_a_loop_over_rows(seed: int) -> None:
    answers, exposures = logs.make(seed, units=20, days=3, before=2)
    sample = collect(logs.experiment(), logs.settings(), answers, read_rows(logs.settings(), exposures))
    assigned: dict[str, int] = {}
    row: Any
    for row in answers.sort_values("time").itertuples():
        if row.experiment == "test" and row.use == "answer":
            assigned.setdefault(str(row.unit), int(row.time))
    start = min(assigned.values())
    expected = {unit: [0.0, 0.0, 0.0, 0.0] for unit in assigned}  # clicked, shown; both before the start
    for row in exposures.itertuples():
        unit, time = str(row.user_id), int(row.timestamp)
        if unit in assigned and time >= assigned[unit]:
            expected[unit][0] += row.click
            expected[unit][1] += 1
        elif unit in assigned and time < start:
            expected[unit][2] += row.click
            expected[unit][3] += 1
    rate = next(metric for metric in sample.metrics if metric.name == "click per exposure")
    per_unit = next(metric for metric in sample.metrics if metric.name == "click per unit")
    assert list(sample.units["unit"]) == sorted(expected)
    table = np.array([expected[unit] for unit in sorted(expected)])
    assert np.array_equal(sample.values(rate)[:, :2], table[:, :2])
    usual = table[:, 2].sum() / max(table[:, 3].sum(), 1)
    assert np.allclose(sample.values(rate)[:, 2], table[:, 2] - usual * table[:, 3])
    assert np.array_equal(sample.values(per_unit)[:, [0, 2]], table[:, [0, 2]])


def test_a_unit_that_comes_back_a_week_later_returns() -> None:
    answers, exposures = logs.make(3, units=50, days=15)
    sample = collect(logs.experiment(), logs.settings(), answers, read_rows(logs.settings(), exposures))
    own = answers[(answers["use"] == "answer") & answers["experiment"].notna()]
    for number, unit in enumerate(sample.units["unit"]):
        times = own.loc[own["unit"] == unit, "time"].to_numpy()
        since = times - times.min()
        came = ((since >= 7 * DAY) & (since < 14 * DAY)).any()
        enough = times.min() + 14 * DAY <= sample.end
        assert sample.returns["return after 7 days"][number].tolist() == [came and enough, enough]


def test_a_file_that_lacks_the_experiment_is_refused(tmp_path: Path) -> None:
    answers, _ = logs.make(units=4, days=2)
    file = tmp_path / "answers.parquet"
    answers.to_parquet(file)
    assert len(read_answers(file, "test")) == len(answers)
    with pytest.raises(DataError, match="must hold the experiment 'tset', found test"):
        read_answers(file, "tset")
    answers[:0].to_parquet(file)
    with pytest.raises(DataError, match="holds no answers"):
        read_answers(file)
    pd.DataFrame({"time": [1]}).to_parquet(file)
    with pytest.raises(DataError, match="lacks 'request'"):
        read_answers(file)
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_answers(tmp_path / "nothing.parquet")


def test_an_answer_to_a_retry_counts_once_and_a_failure_before_it_stays(tmp_path: Path) -> None:
    answers, _ = logs.make(units=20, days=3, before=2)
    failed = answers.iloc[:1].assign(status="error", items=[[]], time=answers["time"].iloc[0] - 5)
    again = answers.iloc[1::3].assign(version="swapped meanwhile")
    pd.concat([failed, answers, again]).to_parquet(tmp_path / "answers.parquet")
    found = read_answers(tmp_path / "answers.parquet").sort_values("time", kind="stable")
    expected = pd.concat([failed, answers.drop(index=again.index), again])
    assert len(found) == 1 + len(answers)
    for column in ("request", "status", "version"):
        assert sorted(found[column]) == sorted(expected[column])


def test_an_experiment_without_rows_or_answers_is_refused() -> None:
    answers, exposures = logs.make(units=10, days=2)
    rows = read_rows(logs.settings(), exposures)
    with pytest.raises(DataError, match="must have answers of its phase"):
        collect(logs.experiment(id="other"), logs.settings(), answers, rows)
    with pytest.raises(DataError, match="its clock differs"):
        collect(logs.experiment(), logs.settings(), answers, rows.assign(time=rows["time"] - 30 * DAY))
    with pytest.raises(DataError, match="bundle's column 'click'"):
        read_rows(logs.settings(), exposures.drop(columns="click"))
