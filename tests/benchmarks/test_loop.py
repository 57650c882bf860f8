"""The closed loop in its short form, and the arithmetic of its figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks.arms import ARMS, Served
from benchmarks.lifts import (
    METRICS,
    SUMS,
    Look,
    aligned,
    coverage,
    decided,
    estimated,
    lists_of,
    looks_at,
    settled,
    spread,
    sums_of,
    true_lift,
    values_of,
)
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import loop
from mgoe.abtest.effects import fixed
from tests.effort import slow

RNG = np.random.default_rng(0)


def population(users: int, seed: int, better: float = 1.0) -> np.ndarray:
    """What users do in a shop: the same shows, and clicks at a rate of each user's own. Shape (U, S)."""
    rng = np.random.default_rng(seed)
    days, rate = rng.integers(1, 8, users), rng.beta(2, 6, users)
    shown = 10 * days
    clicks = rng.binomial(shown, np.minimum(better * rate, 1))
    buys = rng.binomial(clicks, 0.2)
    value, stay = buys * rng.lognormal(0, 0.7, users), clicks * rng.lognormal(3, 0.5, users)
    return np.stack([shown, days, np.minimum(clicks, days), clicks, buys, value, stay], 1).astype(float)


@given(seed=st.integers(0, 1_000), factor=st.floats(0.2, 5))
def test_a_factor_on_what_users_do_is_the_lift_of_what_counts_it(seed: int, factor: float):
    sums = population(50, seed)
    more = sums.copy()
    more[:, [SUMS.index(name) for name in ("clicks", "buys", "value", "stay")]] *= factor
    lift = true_lift(values_of(sums), values_of(more))
    by_metric = dict(zip(METRICS, lift.value, strict=True))
    assert_allclose([by_metric[name] for name in ("pctr", "gmv", "stay")], factor - 1, atol=1e-9)
    assert_allclose([by_metric[name] for name in ("uctr", "cvr")], 0, atol=1e-9)
    assert_allclose(lift.high - lift.low, 0, atol=1e-6)  # the same factor for every user: nothing is chance


def test_the_interval_of_a_true_lift_is_that_of_resampled_users():
    control, treated = values_of(population(400, 1)), values_of(population(400, 2, better=1.2))
    lift = true_lift(control, treated)
    picks = [RNG.integers(400, size=400) for _ in range(800)]
    resampled = np.std([true_lift(control[:, pick], treated[:, pick]).value for pick in picks], axis=0)
    assert_allclose((lift.high - lift.low) / 2, 1.96 * resampled, rtol=0.15)


def test_experiments_hold_the_true_lift_and_equal_arms_seldom_differ():
    before, control, treated = (population(600, seed, better) for seed, better in ((3, 1), (4, 1), (5, 1.1)))
    old, new = (values_of(one, before) for one in (control, treated))
    different = coverage(old, new, 300, np.random.default_rng(1))
    same = coverage(old, old, 300, np.random.default_rng(2))
    for share in (different.fixed, same.fixed):
        assert (np.abs(share - 0.95) < 0.05).all()
    assert (different.sequential >= different.fixed).all()
    assert_allclose(same.excludes_zero, 1 - same.fixed, atol=1e-9)
    assert different.excludes_zero[0] > same.excludes_zero[0]


def test_what_users_did_before_narrows_intervals_of_what_depends_on_them():
    before, sums = population(2_000, 6), population(2_000, 6)
    sums = sums + 0.2 * population(2_000, 7)
    widths = []
    for past in (None, before):
        values = values_of(sums, past)
        effect = estimated(values[:, :1_000], values[:, 1_000:])
        low, high = fixed(effect.lift, effect.lift_variance)
        widths.append(high - low)
    assert (widths[1] < 0.7 * widths[0]).all()


def test_sums_are_those_of_the_rows(tmp_path: Path):
    n, rng = 400, np.random.default_rng(8)
    rows = pd.DataFrame(
        {
            "user_id": rng.integers(20, size=n),
            "item_id": rng.integers(30, size=n),
            "time": pd.Timestamp("2025-03-01") + pd.to_timedelta(rng.integers(0, 5 * 24, n), "h"),
            "arm": rng.choice(["a", "b"], n),
            "click": rng.integers(2, size=n),
            "buy": rng.integers(2, size=n),
            "value": rng.random(n),
            "stay": rng.random(n),
        }
    )
    rows.to_parquet(tmp_path / "day.parquet")
    users, sums = sums_of([tmp_path / "day.parquet"], "arm = 'a'")
    own: Any = rows[rows["arm"] == "a"]
    for user, found in zip(users, sums, strict=True):
        part = own[own["user_id"] == user]
        clicked = part[part["click"] > 0]["time"].dt.date.nunique()
        totals = [part[name].sum() for name in ("click", "buy", "value", "stay")]
        assert_allclose(found, [len(part), part["time"].dt.date.nunique(), clicked, *totals])
    assert_array_equal(aligned(np.arange(20), users, sums)[users], sums)
    assert aligned(np.arange(20), users, sums).sum() == pytest.approx(sums.sum())


def test_the_spread_of_a_catalogue(tmp_path: Path):
    file = tmp_path / "day.parquet"
    pd.DataFrame({"item_id": [*range(5)] * 3}).to_parquet(file)
    assert spread([file], 5) == (1, pytest.approx(0))
    assert spread([file], 10) == (0.5, pytest.approx(0.5))
    pd.DataFrame({"item_id": [1, 1, 1]}).to_parquet(file)
    assert spread([file], 4) == (0.25, pytest.approx(0.75))


def test_decisions_are_right_wrong_or_none():
    assert [decided(*bounds, lift=0.02) for bounds in ((0.01, 0.03), (-0.01, 0.03), (-0.03, -0.01))] == [
        1,
        0,
        -1,
    ]
    sentences = ("Take new: better.", "Take old: better.", "Keep the control: worse.", "Wait: new is better")
    assert [loop.judged(one, {"new"}) for one in sentences] == [1, -1, -1, 0]
    assert [loop.judged(one, set()) for one in sentences] == [-1, -1, 1, 0]


def test_three_days_close_the_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    loop.main(["--out", str(tmp_path), "--short"])
    first = capsys.readouterr()
    assert first.err.count("day 3 of 3") == 5  # three arms alone, and two designs
    lines = {one["name"]: one for one in map(json.loads, first.out.splitlines())}
    alone = "loop.short.alone"
    for metric in METRICS:
        for arm in ("updated", "best"):
            value, lift = lines[f"{alone}.{arm}.{metric}"], lines[f"{alone}.{arm}.{metric}.lift"]["value"]
            assert value["value"] / value["against"] - 1 == pytest.approx(lift, abs=1e-3)
        for design in ("pooled", "own"):
            found = f"loop.short.{design}.updated.{metric}"
            assert lines[f"{found}.lift"]["against"] == lines[f"{alone}.updated.{metric}.lift"]["value"]
            assert lines[f"{found}.every.low"]["value"] < lines[f"{found}.low"]["value"]
    assert lines[f"{alone}.best.order"]["value"] == 1
    assert lines["loop.short.pooled.report"]["value"] in (-1, 0, 1)
    outcomes = {
        design: next((tmp_path / "short" / design).iterdir()) / "outcomes" for design in ("pooled", "own")
    }
    shown: dict[str, Any] = {
        design: pd.concat(map(pd.read_parquet, sorted(path.iterdir()))) for design, path in outcomes.items()
    }
    for rows in shown.values():  # bundles that learned answered, each for the users of its arm
        by_arm = rows.groupby("arm")["bundle"].nunique()
        assert by_arm.to_dict() == {"mmoe": 1, "updated": 3}
        assert (rows.groupby("user_id")["arm"].nunique() == 1).all()
    arm_of_user = shown["own"].groupby("user_id")["arm"].first()
    [*learned] = (tmp_path / "short" / "own").rglob("rows.parquet")
    for file in learned:  # by the bundles of two mornings, and for the report
        users = pd.read_parquet(file)["user_id"].unique()
        assert {*arm_of_user[users]} == ({"updated"} if "bundles" in file.parts else {"mmoe", "updated"})
    assert len(learned) == 3
    firsts = [
        rows[rows["time"] < rows["time"].min().normalize() + pd.Timedelta("1D")] for rows in shown.values()
    ]
    pd.testing.assert_frame_equal(*firsts)  # on the first day nothing has been learned yet
    loop.main(["--out", str(tmp_path), "--short"])
    again = capsys.readouterr()
    assert again.out == first.out
    assert "day" not in again.err


def test_a_journal_whose_last_line_was_cut_off_tells_the_day(tmp_path: Path):
    days, world = range(12, 15), loop.worlds_of(tmp_path)["short"]
    lines = ['{"world": {}}', '{"begins": 12}', '{"begins": 13}', '{"begins": 1']
    (tmp_path / "journal.jsonl").write_text("\n".join(lines))
    assert Served(world, [ARMS["mmoe"]], tmp_path, days, world.visits()).day == 13


def test_lists_of_outcomes_are_in_the_order_of_their_places(tmp_path: Path):
    rows = {"request": ["b", "a", "a", "b"], "position": [1, 0, 1, 0], "item_id": [4, 1, 2, 3]}
    pd.DataFrame(rows).to_parquet(tmp_path / "day.parquet")
    assert lists_of([tmp_path / "day.parquet"], "item_id") == {"a": [1, 2], "b": [3, 4]}


def test_looks_are_at_ever_more_lists_and_at_all():
    order = np.random.default_rng(9).permutation(137)
    answers = pd.DataFrame({"time": order + 1_000, "unit": (order % 20).astype(str)})
    looks = looks_at(answers, lambda time: (time - 999, 0.0, 0.0))
    counts = [one.lists for one in looks]
    assert counts == sorted({*counts})
    assert {10, 20, 50, 100, 137} <= {*counts}
    for one in looks:
        assert one.value == one.lists  # what happened up to the time of the last of the lists
        assert one.users == min(one.lists, 20)


@given(excludes=st.lists(st.booleans(), max_size=9))
def test_a_question_is_settled_when_no_later_look_includes_zero(excludes: list[bool]):
    looks = [Look(1, 1, 0, 0.0, 0.1 if one else float("nan"), 1.0) for one in excludes]
    first = settled(looks)
    assert all(excludes[first:])
    assert first == 0 or not excludes[first - 1]


@slow
def test_estimates_and_interleaved_lists_are_compared_with_the_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["--out", str(tmp_path), "--world", "short", "--design", "explored", "interleaved"]
    loop.main(asked)
    first = capsys.readouterr()
    lines = {one["name"]: one for one in map(json.loads, first.out.splitlines())}
    start = "loop.short.explored.frozen-soft."
    [own] = [one for name, one in lines.items() if name.startswith(start) and name.endswith(".effective")]
    assert own["value"] < own["against"]  # a service reads more than a snapshot, so weights are not all 1
    [alone] = [one for name, one in lines.items() if name.startswith(start) and name.endswith(".alone")]
    # what the snapshot's lists are worth is near to what the same lists, with live events, have earned
    assert abs(alone["value"] - alone["against"]) < 4 * np.sqrt(alone["value"] / own["against"])
    greedy = [one for name, one in lines.items() if name.startswith("loop.short.explored.frozen.")]
    assert [one["value"] for one in greedy] == [0]
    assert "must support the lists of the bundle" in first.err
    votes = "loop.short.interleaved.frozen"
    for lists in (10, 20, 50, 100, 200):
        low, share, high = (lines[f"{votes}.{lists}.{part}"]["value"] for part in ("low", "share", "high"))
        assert low <= share <= high
    assert lines[f"{votes}.needs.lists"]["value"] < 200
    assert lines[f"{votes}.sign"]["value"] == 1
    loop.main(asked)
    again = capsys.readouterr()
    assert again.out == first.out
    assert "day" not in again.err
