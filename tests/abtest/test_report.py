"""A report decides where it can, and says what is missing where it cannot."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from mgoe._util.files import as_json
from mgoe.abtest.check import check
from mgoe.abtest.report import Report, make_report, write_page
from mgoe.abtest.samples import collect, read_rows
from mgoe.errors import ConfigError, DataError
from tests.abtest import logs

METRIC = "click per exposure"


def report(lift: float = 0.0, units: int = 1500, guards: dict[str, float] | None = None) -> Report:
    answers, exposures = logs.make(2, units, lift=lift, before=2)
    experiment = logs.experiment()
    sample = collect(experiment, logs.settings(), answers, read_rows(logs.settings(), exposures))
    return make_report(experiment, sample, check(experiment, sample), METRIC, guards)


def test_a_large_effect_is_taken_and_no_effect_is_not() -> None:
    found = report(0.4)
    assert found.decision.startswith(f"Take daily: {METRIC} +")
    line = next(one for one in found.lines if one.metric == METRIC and one.cuped)
    assert line.sequential[0] < line.fixed[0] < 0.4 < line.fixed[1] < line.sequential[1]
    assert report().decision.startswith("Not decided: ")
    assert report(-0.5).decision.startswith("Keep the control: ")


def test_guards_tenure_slices_and_looks_are_there(tmp_path: Path) -> None:
    found = report(0.4, guards={"click per unit": 0.02})
    assert found.guards[0].startswith("click per unit in daily holds")
    assert {line.slice for line in found.slices} >= {"new", "5 rows before or more"}
    assert [line.slice for line in found.looks] == [f"day {n + 1}" for n in range(found.days)]
    assert found.tenure
    assert found.triggered
    assert '"decision"' in as_json(asdict(found))
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert found.decision in page
    assert not re.search("https?://|src=", page), "the page loads nothing"


def test_nothing_is_decided_while_an_alarm_stands() -> None:
    answers, exposures = logs.make(2, 300, lift=0.5)
    answers.loc[(answers["arm"] == "daily") & (answers.index % 10 == 0), "status"] = "fallback"
    experiment = logs.experiment()
    sample = collect(experiment, logs.settings(), answers, read_rows(logs.settings(), exposures))
    found = make_report(experiment, sample, check(experiment, sample))
    assert found.decision == "Do not decide: the data have alarms (fallbacks)."


def test_unknown_metrics_and_experiments_ended_too_early_are_refused() -> None:
    with pytest.raises(DataError, match="ended too early"):
        report(units=20)
    with pytest.raises(ConfigError, match=r"^--guard: must be one of click per exposure"):
        report(guards={"clicks": 0.1})


@pytest.mark.parametrize(
    ("done", "primary", "reason"),
    [
        ({}, "buy per unit", "because buy is the last task, and 20 units or more of each arm did it"),
        ({"buy": 19}, "click per unit", "because fewer than 20 units of an arm did buy"),
        (
            {"buy": 20},
            "buy per unit",
            "because buy is the last task, and 20 units or more of each arm did it",
        ),
        ({"buy": 0}, "click per unit", "because fewer than 20 units of an arm did buy"),
        ({"buy": 0, "click": 5}, "click per unit", "although fewer than 20 units of an arm did click"),
    ],
)
def test_the_last_task_that_enough_units_did_decides(done: dict[str, int], primary: str, reason: str) -> None:
    answers, exposures = logs.make(2, 300, lift=0.2)
    sample = collect(logs.experiment(), logs.settings(), answers, read_rows(logs.settings(), exposures))
    arm = sample.units["arm"].to_numpy()[sample.cells["row"]]
    for task, most in done.items():
        cells, column = sample.cells, f"{task}.done"
        doing = cells.loc[(arm == 1) & (cells[column] > 0), "row"].unique()
        cells.loc[(arm == 1) & ~cells["row"].isin(doing[:most]), column] = 0.0
    found = make_report(logs.experiment(), sample, check(logs.experiment(), sample))
    assert found.primary == primary
    assert found.primary_reason == f"{primary} decides, {reason}; name the metric in advance with --metric."
    assert "has no value" not in found.decision
    assert {line.metric for line in found.looks} == {primary}
    asked = make_report(logs.experiment(), sample, [], METRIC)
    assert asked.primary_reason == f"{METRIC} decides, as asked."
