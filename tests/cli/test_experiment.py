"""`mgoe experiment`: from exported answers and exposures to a decision."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from mgoe.bundle import Bundle
from mgoe.config.experiment import ExploreSettings
from tests.abtest import lists, logs
from tests.abtest.test_interleaving import interleaved
from tests.cli.conftest import Mgoe


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `check` and `report` read of an experiment whose treated arm is far better."""
    answers, exposures = logs.make(lift=0.5)
    answers.to_parquet(tmp_path / "answers.parquet")
    exposures.to_parquet(tmp_path / "exposures.parquet")
    settings = logs.experiment().model_dump(mode="json", exclude_none=True)
    (tmp_path / "ab.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(Bundle, "open", lambda _: SimpleNamespace(settings=logs.settings()))
    monkeypatch.chdir(tmp_path)
    return ["ab.yaml", "--answers", "answers.parquet", "--log", "exposures.parquet", "--bundle", "bundle"]


def test_a_better_arm_is_taken(mgoe: Mgoe, exported: list[str], tmp_path: Path):
    options = ["--metric", "click per exposure", "--guard", "buy per unit=0.5", "--out", "page.html"]
    result = mgoe("experiment", "report", *exported, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("Take daily: click per exposure")
    assert "Take daily" in (tmp_path / "page.html").read_text()
    told = json.loads(mgoe("experiment", "report", *exported, *options, "--json").stdout)
    assert told["decision"].startswith("Take daily")


def test_interleaved_lists_are_in_the_report(mgoe: Mgoe, exported: list[str]):
    both = zip(logs.make(lift=0.5), interleaved(1, 100, liked=0.4), strict=True)
    for name, parts in zip(("answers", "exposures"), both, strict=True):
        every = [part.astype({"user_id": str}) if "user_id" in part else part for part in parts]
        pd.concat(every, ignore_index=True).to_parquet(f"{name}.parquet")
    told = json.loads(mgoe("experiment", "report", *exported, "--json").stdout)
    assert [one["task"] for one in told["interleaving"]] == ["click", "buy"]
    assert told["interleaving"][0]["sentence"] in mgoe("experiment", "report", *exported).stdout.splitlines()


def test_sound_data_raise_no_alarm_and_a_lost_arm_does(mgoe: Mgoe, exported: list[str], tmp_path: Path):
    result = mgoe("experiment", "check", *exported)
    assert result.exit_code == 0, result.stdout
    assert "ALARM" not in result.stdout
    answers, _ = logs.make(lift=0.5)
    lost = (answers["arm"] == "daily") & (answers["unit"].astype(int) % 4 == 1)
    answers[~lost].to_parquet(tmp_path / "answers.parquet")
    result = mgoe("experiment", "check", *exported)
    assert result.exit_code == 1
    assert "ALARM: The arms have other numbers of units" in result.stdout
    told = json.loads(mgoe("experiment", "check", *exported, "--json").stdout)
    assert any(finding["alarm"] for finding in told)


def test_a_plan_needs_fewer_units_for_a_larger_lift(mgoe: Mgoe, exported: list[str]):
    def needed(lift: str) -> dict[str, int]:
        plans = json.loads(
            mgoe("experiment", "plan", "bundle", *exported[3:5], "--lift", lift, "--json").stdout
        )
        return {one["metric"]: one["needed"] for one in plans}

    small, large = needed("0.02"), needed("0.1")
    assert small.keys() == large.keys()
    assert all(large[metric] <= small[metric] for metric in small)
    lines = mgoe("experiment", "plan", "bundle", *exported[3:5], "--lift", "0.5").stdout.splitlines()
    assert "click per exposure: 7 days find 50.00%." in lines


@pytest.fixture
def explored(shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What `estimate` reads of a bundle that was served and explored."""
    answers = lists.logged(Bundle.open(shown / "bundle"), ExploreSettings(temperature=0.2), 200)
    answers.to_parquet(tmp_path / "answers.parquet")
    lists.outcomes(answers).to_parquet(tmp_path / "exposures.parquet")
    arms = [{"name": "best", "share": 0.5}, {"name": "open", "share": 0.5, "explore": {"temperature": 0.2}}]
    (tmp_path / "ab.yaml").write_text(yaml.safe_dump({"id": "one", "arms": arms}))
    monkeypatch.chdir(tmp_path)
    return [shown / "bundle", "--answers", "answers.parquet", "--log", "exposures.parquet"]


def test_the_policy_that_was_served_is_estimated_as_it_was(mgoe: Mgoe, explored: list[object]):
    words = "experiment", "estimate", *explored, "--experiment", "ab.yaml", "--arm", "open"
    told = json.loads(mgoe(*words, "--json").stdout)
    assert (told["lists"], told["effective"]) == (200, pytest.approx(200))
    click = {one["method"]: one["value"] for one in told["estimates"] if one["task"] == "click"}
    assert click["IPS"] == pytest.approx(click["logged"])
    lines = mgoe(*words).stdout.splitlines()
    assert any("click" in line and "doubly robust" in line for line in lines)
    assert lines[-1].startswith("200 lists of 60 users are worth 200 of the bundle's own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "open"], "--arm: and --experiment belong together, found one of them"),
        (
            ["--experiment", "ab.yaml", "--arm", "opne"],
            "must be an arm of ab.yaml, found 'opne'; did you mean",
        ),
        (["--experiment", "ab.yaml", "--arm", "best"], "must support the lists of the bundle"),
    ],
)
def test_an_estimate_that_cannot_be_is_one_sentence(
    mgoe: Mgoe, explored: list[object], words: list[str], said: str
):
    result = mgoe("experiment", "estimate", *explored, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (0, "none.yaml", "none.yaml"),
        (2, "none.parquet", "none.parquet"),
        (4, "none.parquet", "none.parquet"),
    ],
)
def test_a_missing_file_is_named(mgoe: Mgoe, exported: list[str], place: int, wrong: str, said: str):
    exported[place] = wrong
    result = mgoe("experiment", "check", *exported)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
