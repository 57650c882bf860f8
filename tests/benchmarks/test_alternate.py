"""The interval of a ratio, rounds, what is compared, and a log that is cut in two."""

import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from benchmarks.alternate import COMPARISONS, LIMIT, Measured, in_turn, measured, ratio_of
from benchmarks.daily import split_log
from benchmarks.figures import Area
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import alternate

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


def rounds_of(old: Sequence[float], new: Sequence[float], rounds: int) -> int:
    """How many rounds a comparison has whose trees print these values in turn."""
    values = {"old": cycle(old), "new": cycle(new)}

    def run(tree: Path, side: str) -> Measured:
        return {"seconds": ("s", next(values[side]))}

    unit, *found = in_turn("graph", {"old": Path("a"), "new": Path("b")}, rounds, run)["seconds"]
    assert unit == "s"
    assert len(found[0]) == len(found[1])
    return len(found[0])


@given(st.integers(2, 12), st.floats(0.5, 2))
def test_a_figure_that_is_certain_has_no_more_rounds(rounds, factor):
    assert rounds_of([1.0, 1.01], [factor, factor * 1.01], rounds) == rounds


def test_rounds_are_added_while_a_figure_may_be_slower_and_may_be_as_it_was():
    """Seven noisy rounds do not tell; those after them are quiet."""
    old, new = [1.0] * 100, [1.0, *[0.8, 1.25] * 4, *[1.0] * 91]
    assert ratio_of(new[1:8], old[:7])[2] > LIMIT
    assert 7 < rounds_of(old, [1.0, *[0.92, 1.09] * 4, *[1.0] * 91], 7) < 14
    assert rounds_of(old, new, 7) == 14


def test_a_figure_of_one_tree_alone_has_no_values_of_the_other():
    def run(tree: Path, side: str) -> Measured:
        return {"both": ("s", 1.0), side: ("s", 1.0)}

    found = in_turn("graph", {"old": Path("a"), "new": Path("b")}, 2, run)
    assert found == {
        "both": ("s", [1.0, 1.0], [1.0, 1.0]),
        "old": ("s", [1.0, 1.0], []),
        "new": ("s", [], [1.0, 1.0]),
    }


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.15, 1)])
def test_the_exit_code_says_whether_a_figure_may_be_slower(
    factor: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def run(name: str, tree: Path, side: str, **_: object) -> Measured:
        return {"seconds": ("s", factor if side == "new" else 1.0)}

    monkeypatch.setattr(alternate, "measured", run)
    monkeypatch.setattr(sys, "argv", ["alternate", "old", "new", "--only", "graph", "--work", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        alternate.main()
    assert type(ended.value.code) is int
    assert ended.value.code == code


WAITING = """import json, os
asleep = os.environ["OMP_WAIT_POLICY"] == "passive" and os.environ["OPENBLAS_THREAD_TIMEOUT"] == "4"
print(json.dumps({"name": "graph.cpu_seconds.1e7", "unit": "s", "value": float(asleep)}))
print(json.dumps({"name": "graph.seconds.1e7", "unit": "s", "value": 1}))
"""


def test_a_benchmark_of_the_tree_runs_with_threads_that_sleep_and_the_clock_does_not_count(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    for file in ("graph.py", "serve.py"):
        (tmp_path / "benchmarks" / file).write_text(WAITING)
    found = measured("graph", tmp_path, "old", tmp_path / "work", None, quick=True)
    assert found.keys() == {"graph.cpu_seconds.1e7", "graph.cpu_s"}
    assert found["graph.cpu_seconds.1e7"] == ("s", 1.0)
    assert measured("serve", tmp_path, "old", tmp_path / "work", None, quick=True) == {}


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
