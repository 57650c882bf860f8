"""Credits of interleaved lists are those of a loop, and prefer no arm where none is better."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.abtest.check import check
from mgoe.abtest.interleaving import Preference, preferences
from mgoe.abtest.report import make_report, write_page
from mgoe.abtest.samples import Sample, collect, read_rows
from mgoe.errors import DataError
from mgoe.serving.http.interleaving import team_draft
from tests.abtest import logs
from tests.effort import up_to

ARMS = np.array(["frozen", "daily"])


def interleaved(
    seed: int, units: int = 60, liked: float = 0.0, lists: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lists that two arms make, and what units do: the first places are clicked most, and items that the
    treated arm ranks high more by `liked`."""
    rng, answers, rows = np.random.default_rng(seed), [], []
    for n in range(units * lists):
        rankings = [rng.permutation(12).tolist() for _ in ARMS]
        drafted = team_draft(rankings, 6, seed * 10_000 + n)
        items = [rankings[team][row] for team, row in drafted]
        time, unit = logs.START + (n // units) * logs.DAY + n * 1_000, f"i{n % units}"
        answers.append(
            {
                "time": time,
                "request": f"i{n}",
                "user": unit,
                "unit": unit,
                "items": [str(item) for item in items],
                "teams": ARMS[[team for team, _ in drafted]].tolist(),
            }
        )
        for place, item in enumerate(items):
            rate = 0.5 / (1 + place) + liked * (rankings[1].index(item) < 3)
            clicks = int(rng.random() < rate)
            one = {
                "user_id": unit,
                "item_id": item,
                "timestamp": time + 5,
                "request": f"i{n}",
                "click": clicks,
            }
            rows.append(one | {"buy": int(clicks and rng.random() < 0.5)})
    same: dict[str, Any] = {"route": "recommend", "experiment": "test", "phase": logs.experiment().phase}
    same |= {
        "arm": None,
        "use": "answer",
        "version": "a1",
        "status": "ok",
        "latency": 4000,
        "propensities": None,
    }
    return pd.DataFrame(answers).assign(**same), pd.DataFrame(rows)


BASE = logs.make(2, 200, before=2)
"""The units of both arms, without which there is no report."""


def sample_of(answers: pd.DataFrame, rows: pd.DataFrame) -> Sample:
    rows = pd.concat([BASE[1].astype({"user_id": str}), rows], ignore_index=True)
    answers = pd.concat([BASE[0], answers], ignore_index=True)
    return collect(logs.experiment(), logs.settings(), answers, read_rows(logs.settings(), rows))


def found_of(answers: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Preference]:
    return {one.task: one for one in preferences(logs.experiment(), sample_of(answers, rows))}


@given(seed=st.integers(0, 10_000), named=st.booleans())
@up_to(5)
def test_credits_are_those_of_a_loop(seed: int, named: bool) -> None:
    answers, rows = interleaved(seed, 12)
    if not named:
        rows["request"] = None
    found = found_of(answers, rows)
    for task in ("click", "buy"):
        credits = dict.fromkeys(answers["unit"], 0.0)
        for row in rows.to_dict("records"):
            before = [
                one
                for one in answers.to_dict("records")
                if one["unit"] == row["user_id"] and one["time"] <= row["timestamp"]
                if str(row["item_id"]) in one["items"]
            ]
            one = max(before, key=lambda one: one["time"])
            team = one["teams"][one["items"].index(str(row["item_id"]))]
            credits[row["user_id"]] += row[task] * (1 if team == "daily" else -1)
        values = np.array([*credits.values()])
        if not values.any():
            assert task not in found
            continue
        assert (found[task].units, found[task].wins) == (12, (values > 0).sum())
        assert found[task].losses == (values < 0).sum()
        assert found[task].difference == pytest.approx(values.mean())
        assert found[task].share == pytest.approx((values > 0).sum() / (values != 0).sum())


def test_arms_that_are_alike_are_preferred_as_often_as_chance_says() -> None:
    parts = [interleaved(seed, 40, lists=1) for seed in range(60)]
    for seed, (answers, rows) in enumerate(parts):  # units and requests of its own for each experiment
        answers[["unit", "user", "request"]] = f"{seed}-" + answers[["unit", "user", "request"]]
        rows[["user_id", "request"]] = f"{seed}-" + rows[["user_id", "request"]]
    sample = sample_of(*(pd.concat(of_all, ignore_index=True) for of_all in zip(*parts, strict=True)))
    every = []
    for seed in range(60):
        answers, rows = (
            part[part["unit"].fillna("").str.startswith(f"{seed}-")] for part in (sample.answers, sample.rows)
        )
        own = preferences(logs.experiment(), replace(sample, answers=answers, rows=rows))
        every += [one for one in own if one.task == "click"]
    differences = np.array([one.difference for one in every])
    assert abs(differences.mean()) < 3 * differences.std() / 60**0.5
    assert sum(one.p < 0.05 for one in every) <= 8
    assert sum(low <= 0 <= high for low, high in (one.difference_interval for one in every)) >= 52
    assert sum(low <= 0.5 <= high for low, high in (one.interval for one in every)) >= 52


def test_a_better_arm_wins_and_the_report_says_so(tmp_path: Any) -> None:
    answers, rows = interleaved(1, 200, liked=0.4)
    sample = sample_of(answers, rows)
    found = make_report(logs.experiment(), sample, check(logs.experiment(), sample), "click per unit")
    click = found.interleaving[0]
    assert (click.task, click.arm, click.units) == ("click", "daily", 200)
    assert click.interval[0] > 0.5 > 0.05 > click.p
    assert click.difference_interval[0] > 0
    assert click.sentence.startswith("In interleaved lists daily wins click in ")
    write_page(found, tmp_path / "page.html")
    assert click.sentence in (tmp_path / "page.html").read_text()
    assert found.units == {"frozen": 100, "daily": 100}, "units of interleaved lists are in no arm"


def test_lists_of_another_phase_and_after_the_end_do_not_count() -> None:
    answers, rows = interleaved(2)
    assert found_of(answers.assign(phase="another"), rows) == {}
    assert found_of(answers, rows)
    sample = sample_of(answers, rows)
    early = logs.experiment(end=pd.Timestamp(logs.START, unit="us", tz="UTC").isoformat())
    assert preferences(early, replace(sample)) == []


def test_lists_with_too_few_teams_are_refused() -> None:
    answers, rows = interleaved(3)
    answers["teams"] = answers["teams"].str[:2]
    with pytest.raises(DataError, match=r"^teams: must have one value per item, found another number in 120"):
        found_of(answers, rows)
