"""Each trap is an alarm of its own sentence, and a sound experiment has none."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mgoe.abtest.check import Finding, check
from mgoe.abtest.check import _latency as check_latency
from mgoe.abtest.samples import collect, read_rows
from tests.abtest import logs


def findings(answers: Any, exposures: Any) -> dict[str, Finding]:
    experiment = logs.experiment()
    sample = collect(experiment, logs.settings(), answers, read_rows(logs.settings(), exposures))
    return {finding.name: finding for finding in check(experiment, sample)}


@pytest.fixture
def log() -> tuple[Any, Any]:
    return logs.make(1)


def alarms(log: tuple[Any, Any]) -> set[str]:
    return {name for name, finding in findings(*log).items() if finding.alarm}


def test_a_sound_experiment_has_no_alarm(log: tuple[Any, Any]) -> None:
    assert alarms(log) == set()


def test_arms_that_answer_the_same(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    shown = answers[answers["use"] == "answer"].set_index("request")["items"]
    answers["items"] = answers["request"].map(shown)
    assert "The arms answer the same" in findings(answers, exposures)["delivery"].sentence
    assert alarms((answers, exposures)) == {"delivery"}


def test_fallbacks_in_one_arm(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    answers.loc[(answers["arm"] == "daily") & (answers.index % 10 == 0), "status"] = "fallback"
    assert alarms((answers, exposures)) == {"fallbacks"}


def test_a_unit_in_two_arms(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    own = answers[(answers["unit"] == "7") & answers["experiment"].notna() & (answers["use"] == "answer")]
    answers.loc[own.index[:1], "arm"] = "frozen"
    assert alarms((answers, exposures)) == {"two arms"}


def test_an_arm_changed_in_the_middle(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    early = answers["experiment"].notna() & (answers["time"] < logs.START + 3 * logs.DAY)
    answers.loc[early, "phase"] = "00000000"
    assert "phase" in alarms((answers, exposures))


def test_exposures_logged_by_one_arm_only(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    control = (exposures["user_id"] % 2 == 0) | (exposures["timestamp"] < logs.START)
    assert alarms((answers, exposures[control])) >= {"logging"}


def test_bots(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    one = answers[(answers["unit"] == "4") & answers["experiment"].notna() & (answers["use"] == "answer")]
    many = pd.concat([one.iloc[:1]] * 8000).assign(request=[f"bot{n}" for n in range(8000)])
    assert "bots" in alarms((pd.concat([answers, many], ignore_index=True), exposures))


def latencies(rng: np.random.Generator, units: int, slower: float = 1.0, held_up: float = 0.0) -> Any:
    """Answers of two arms on a busy machine: heavy tails, bursts in which all wait, and slow units."""
    unit = np.repeat(np.arange(units), rng.negative_binomial(1, 1 / 6, units) + 1)
    time, treated = rng.uniform(0, 1000, len(unit)), rng.permutation(units)[unit] % 2 == 1
    is_busy = (np.abs(time[:, None] - rng.uniform(0, 1000, 15)) < rng.exponential(8, 15)).any(axis=1)
    latency = np.exp(rng.normal(8, 0.4, units))[unit] * (1 + rng.pareto(1.2, len(unit)))
    latency *= np.where(is_busy, rng.uniform(2, 20, len(unit)), 1) * np.where(treated, slower, 1)
    latency += 300_000 * (treated & (rng.random(len(unit)) < held_up))
    return pd.DataFrame({"arm": np.where(treated, "b", "a"), "unit": unit.astype(str), "latency": latency})


def test_a_busy_machine_is_no_slow_arm_and_a_slow_arm_is_found_on_it() -> None:
    rng = np.random.default_rng(0)
    assert sum(check_latency(latencies(rng, 400)).alarm for _ in range(100)) <= 1
    assert all(check_latency(latencies(rng, 2000, slower=1.5)).alarm for _ in range(5))
    assert all(check_latency(latencies(rng, 2000, held_up=0.1)).alarm for _ in range(5))


def test_each_arm_is_compared_with_each_other() -> None:
    """One arm is somewhat slower than the control and one somewhat faster: they differ enough."""
    rng = np.random.default_rng(2)
    found = latencies(rng, 9000)
    arm = rng.integers(0, 3, 9000)[found["unit"].astype(int)]
    found = found.assign(
        arm=np.array(["a", "b", "c"])[arm], latency=found["latency"] * np.array([1.0, 1.2, 0.85])[arm]
    )
    assert not check_latency(found[found["arm"] != "c"]).alarm
    assert not check_latency(found[found["arm"] != "b"]).alarm
    assert check_latency(found).alarm


def test_lost_units_a_slow_arm_and_wrong_clocks(log: tuple[Any, Any]) -> None:
    answers, exposures = log
    lost = answers["unit"].astype(int) % 4 == 1
    assert "sample ratio" in alarms((answers[~lost], exposures))
    slow = answers.assign(latency=answers["latency"] * np.where(answers["arm"] == "daily", 10, 1))
    assert alarms((slow, exposures)) == {"latency"}
    late = exposures.assign(timestamp=exposures["timestamp"] - 3_600_000_000)
    assert "clocks" in alarms((answers, late))
    nameless = answers.assign(version=answers["version"].where(answers["arm"] != "daily"))
    assert alarms((nameless, exposures)) == {"versions"}
