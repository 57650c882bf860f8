"""`mgoe simulate --serve`: a real service, and users who act on what it shows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from mgoe.config import load_experiment
from mgoe.config.assignment import arm_of
from mgoe.simulation.loop import JOURNAL, OUTCOMES
from tests.cli.conftest import Mgoe
from tests.effort import SOAK

KILLS = 20 if SOAK else 1
"""How often a service and its users are killed in the middle of a day."""
SESSIONS = 0.4 if SOAK else 0.06
"""Of a user per day: about 35 pages a day in the short form. A report needs 20 users of each arm."""


@pytest.fixture
def words(shown: Path, world: Path) -> list[str]:
    """Days of a few pages."""
    visits = ["--set", f"sessions={SESSIONS}", "--set", "delay=2", "--engine", "torch"]
    return ["simulate", "--serve", str(shown / "bundle"), "--world", str(world), *visits]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two arms of one bundle, of which one explores."""
    arms = [
        {"name": "served", "share": 0.5},
        {"name": "other", "share": 0.5, "explore": {"temperature": 1.0}},
    ]
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump({"id": "one", "arms": arms}))
    return file


def told(bundle: Path, out: Path, mgoe: Mgoe, experiment: Path | None = None) -> dict[str, Any]:
    """What a folder of days holds: pages, what happened, the exposures of the service, and the report."""
    rows, answers = (out / f"{name}.parquet" for name in ("exposures", "answers"))
    written = mgoe("exposures", bundle, "--state", out / "state", "--out", rows)
    assert written.exit_code == 0, written.stderr
    found: dict[str, Any] = {
        "journal": (out / JOURNAL).read_bytes(),
        "outcomes": [pq.read_table(one) for one in sorted((out / OUTCOMES).iterdir())],
        "exposures": pq.read_table(rows).drop_columns("digest"),
    }
    if experiment is not None and SOAK:
        assert mgoe("answers", out / "state", "--out", answers).exit_code == 0
        logs = ["--answers", answers, "--log", rows, "--bundle", bundle, "--json"]
        report = mgoe("experiment", "report", experiment, *logs)
        assert report.exit_code == 0, report.stderr
        found["report"] = without_latency(json.loads(report.stdout))
    return found


def without_latency(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what depends on how fast the machine is."""
    kept = [one for one in report["findings"] if one["name"] != "latency"]
    return report | {"findings": kept}


def test_a_day_is_the_same_over_both_transports_and_goes_on(
    mgoe: Mgoe, words: list[str], shown: Path, tmp_path: Path
):
    found = list[dict[str, Any]]()
    for name, option in (("calls", []), ("http", ["--http"])):
        result = mgoe(*words, "--out", tmp_path / name, "--json", *option)
        assert result.exit_code == 0, result.stderr
        found.append(told(shown / "bundle", tmp_path / name, mgoe))
        said = json.loads(result.stdout)
        outcomes = found[-1]["outcomes"][0].to_pandas()
        assert said["shown"] == len(outcomes)
        assert said["pages"] == outcomes["request"].nunique() > 10
        assert said["sums"]["click"] == outcomes["click"].sum() > 0
    assert found[0] == found[1]
    again = mgoe(*words, "--out", tmp_path / "calls", "--days", "2", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["pages"] > json.loads(result.stdout)["pages"]
    fewer = mgoe(*words, "--out", tmp_path / "calls", "--json")
    said = [json.loads(one.stdout) | {"seconds": 0} for one in (again, fewer)]
    assert said[0] == said[1]
    first, second = sorted((tmp_path / "calls" / OUTCOMES).iterdir())
    assert pq.read_table(first).equals(found[0]["outcomes"][0])
    times = pq.read_table(second)["time"].to_pylist()
    assert times
    assert min(times).date() == max(times).date() > pq.read_table(first)["time"].to_pylist()[0].date()


def test_a_clock_behind_what_the_service_has_taken_is_refused(mgoe: Mgoe, words: list[str], tmp_path: Path):
    """As when the journal is replaced by an older copy of it."""
    assert mgoe(*words, "--out", tmp_path).exit_code == 0
    journal = tmp_path / JOURNAL
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:4]))
    result = mgoe(*words, "--out", tmp_path)
    assert (result.exit_code, result.stderr.count("clock: must not be behind the log")) == (2, 1)


def test_a_day_that_is_killed_again_and_again_is_that_of_one_that_is_not(
    mgoe: Mgoe, words: list[str], shown: Path, experiment: Path, tmp_path: Path
):
    words += ["--experiment", str(experiment)]
    assert mgoe(*words, "--out", tmp_path / "whole").exit_code == 0
    whole = told(shown / "bundle", tmp_path / "whole", mgoe, experiment)
    pages = whole["journal"].count(b"\n") - 2
    out = tmp_path / "killed"
    for kill in range(KILLS):
        call = [sys.executable, "-m", "mgoe", *words, "--out", str(out)]
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            seen = (out / JOURNAL).read_bytes().count(b"\n") if (out / JOURNAL).exists() else 0
            if seen > (kill + 1) * pages / (KILLS + 1):
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.001)
        assert process.returncode == -signal.SIGKILL
    assert mgoe(*words, "--out", out).exit_code == 0
    found = told(shown / "bundle", out, mgoe, experiment)
    assert [name for name in whole if found[name] != whole[name]] == []


def test_users_of_an_experiment_are_shown_what_their_arm_makes(
    mgoe: Mgoe, words: list[str], experiment: Path, tmp_path: Path
):
    result = mgoe(*words, "--out", tmp_path / "days", "--experiment", experiment)
    assert result.exit_code == 0, result.stderr
    settings = load_experiment(experiment)
    outcomes = pq.read_table(tmp_path / "days" / OUTCOMES).to_pandas()
    for user, arm in zip(outcomes["user_id"], outcomes["arm"], strict=True):
        number = arm_of(settings, str(user))
        assert number is not None
        assert settings.arms[number].name == arm
    assert outcomes["arm"].nunique() == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--users", "5"], "--users: is of a log that is drawn; leave it out, or leave out --serve"),
        (["--events", "5"], "--events: is of a log that is drawn; leave it out, or leave out --serve"),
        (["--set", "loyalti=1"], "did you mean 'loyalty'"),
        (["--world", "nowhere"], "holds no truth of a simulated log"),
    ],
)
def test_what_cannot_be_played_is_refused_before_a_service_starts(
    mgoe: Mgoe, words: list[str], tmp_path: Path, changes: list[str], said: str
):
    result = mgoe(*words, "--out", tmp_path / "days", *changes)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "days").exists()


def test_a_service_of_another_world_and_other_files_are_refused(
    mgoe: Mgoe, words: list[str], finished: Path, world: Path, tmp_path: Path
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    for option in ((), ("--overwrite",)):
        result = mgoe(*words, "--out", tmp_path / "taken", *option)
        assert (result.exit_code, "holds files but no days of a world" in result.stderr) == (2, True)
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"
    size = ["--users", 90, "--items", 50, "--exposures", 300, "--set", "days=5"]
    assert mgoe("simulate", "--out", tmp_path / "other", *size).exit_code == 0
    words = [*words[:4], str(tmp_path / "other"), "--engine", "torch"]
    result = mgoe(*words, "--out", tmp_path / "days")
    assert (result.exit_code, "every id must be of this simulated world" in result.stderr) == (2, True)
    for option in (["--http"], ["--days", "30"]):
        result = mgoe("simulate", *option, "--out", tmp_path / "days", *size)
        assert (result.exit_code, "name its bundle with --serve" in result.stderr) == (2, True)
