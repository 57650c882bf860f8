"""Every mistake ends in one sentence with its place and its fix, and exit code 2; nothing that was written
is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import Result

from tests.cli.conftest import Mgoe
from tests.effort import SOAK, slow

Frame = pd.DataFrame
Config = dict[str, Any]


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    *stages, sentence = result.stderr.splitlines()
    assert sentence.startswith("mgoe: ")
    assert not any(line.startswith("mgoe: ") or "Traceback" in line for line in stages)
    for word in words:
        assert word in sentence


@pytest.fixture(scope="module")
def events(world: Path) -> Frame:
    return pd.read_parquet(world / "events").astype({"behavior": str})


@pytest.fixture(scope="module")
def exposed(world: Path) -> Frame:
    return pd.read_parquet(world / "exposures").astype({"device": str})


def run_on(mgoe: Mgoe, folder: Path, log: Frame | Path | str, config: Config) -> Result:
    if isinstance(log, Frame):
        log.to_parquet(folder / "log.parquet", index=False)
        log = folder / "log.parquet"
    raw = {"tasks": ["click", "buy"], "split": {"cuts": [0.4, 0.6, 0.8]}, **config}
    raw["data"] = {"log": str(log), **raw.get("data", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    return mgoe("run", folder / "config.yaml", "--out", folder / "run")


def put(column: str, row: int, value: Any) -> Callable[[Frame], Frame]:
    """A log with one strange value."""

    def change(log: Frame) -> Frame:
        log[column] = (
            log[column].astype(object)
            if isinstance(value, str) or value is None
            else log[column].astype(type(value))
        )
        log.loc[row, column] = value
        return log

    return change


EVENTS: dict[str, tuple[Callable[[Frame], Frame], Config, tuple[str, ...]]] = {
    "missing column": (lambda log: log.drop(columns="user_id"), {}, ("'user_id'", "data.user", "missing")),
    "misspelt column": (
        lambda log: log,
        {"data": {"item": "itm_id"}},
        ("data.item", "did you mean 'item_id'"),
    ),
    "behaviour of a wrong type": (
        lambda log: log.assign(behavior=1.5),
        {},
        ("'behavior'", "string or an integer"),
    ),
    "id of a wrong type": (lambda log: log.assign(item_id=True), {}, ("'item_id'", "integer or a string")),
    "id that is no whole number": (put("item_id", 4, 3.5), {}, ("'item_id'", "3.5", "row 5")),
    "id that is null": (put("user_id", 7, None), {}, ("'user_id'", "null", "row 8")),
    "id that is NaN": (put("user_id", 7, float("nan")), {}, ("'user_id'", "row 8")),
    "time of a wrong type": (lambda log: log.assign(timestamp=True), {}, ("'timestamp'", "a time must be")),
    "time that cannot be read": (
        lambda log: put("timestamp", 2, "soon")(log.assign(timestamp=log["timestamp"].astype(str))),
        {},
        ("'timestamp'", "'soon'", "row 3"),
    ),
    "time that is missing": (
        lambda log: log.assign(timestamp=log["timestamp"].where(log.index != 1)),
        {},
        ("'timestamp'", "null", "row 2"),
    ),
    "no rows": (lambda log: log.head(0), {}, ("found none",)),
    "no rows in the time that counts": (
        lambda log: log,
        {"data": {"start": "2031-01-01"}},
        ("data.start", "move these dates"),
    ),
    "first moment as a number": (
        lambda log: log,
        {"data": {"start": 20200101}},
        ("data.start", "found the number 20200101", "2017-11-25"),
    ),
    "last moment as digits": (
        lambda log: log,
        {"data": {"end": "20200101"}},
        ("data.end", "found the number 20200101"),
    ),
    "cuts as digits": (
        lambda log: log,
        {"split": {"cuts": ["20200104", "20200106", "20200108"]}},
        ("split.cuts", "found the number"),
    ),
    "a task called as the mean": (
        lambda log: log,
        {"tasks": ["click", {"name": "all", "behaviors": "buy"}]},
        ("tasks.all", "choose another"),
    ),
    "task that never happens": (lambda log: log, {"tasks": ["click", "gift"]}, ("gift",)),
    "one user": (lambda log: log.assign(user_id=3), {}, ("'user_id'", "at least two users", "3")),
    "one item": (lambda log: log.assign(item_id=3), {}, ("'item_id'", "at least two items", "3")),
    "duplicate rows": (
        lambda log: pd.concat([log, log.head(2)]),
        {"data": {"duplicates": "refuse"}},
        ("found 2 repeats", "data.duplicates"),
    ),
    "too many macro nodes": (
        lambda log: log,
        {"graph": {"resolutions": [[100_000, 4]]}},
        ("graph.resolutions", "100000", "ask for fewer"),
    ),
    "split of one day": (
        lambda log: log.assign(timestamp=pd.Timestamp("2025-03-01")),
        {},
        ("split.cuts", "fewer cuts"),
    ),
    "split that leaves test empty": (
        lambda log: log,
        {"split": {"cuts": ["2025-03-10", "2025-03-20", "2026-01-01"]}},
        ("split.cuts", "found none in test"),
    ),
    "split that leaves train empty": (
        lambda log: log[~log["timestamp"].between("2025-03-10", "2025-03-12")],
        {"split": {"cuts": ["2025-03-10", "2025-03-12", "2025-03-20"]}},
        ("split.cuts", "found none in train"),
    ),
    "split by date and time that falls back": (
        lambda log: log,
        {"split": {"cuts": ["2025-03-10", "2025-03-09T12:00:00+00:00", "2025-03-20"]}},
        ("split", "must rise"),
    ),
    "split that leaves no history": (
        lambda log: log,
        {"split": {"cuts": ["2024-01-01", "2025-03-10", "2025-03-20"]}},
        ("split.cuts",),
    ),
    "cuts that do not rise": (lambda log: log, {"split": {"cuts": [0.5, 0.4, 0.6]}}, ("split", "must rise")),
    "cuts that are equal": (lambda log: log, {"split": {"cuts": [0.4, 0.4, 0.6]}}, ("split", "must rise")),
    "unknown key": (lambda log: log, {"graph": {"bet": 1}}, ("graph.bet", "did you mean 'beta'")),
    "a setting that has moved": (
        lambda log: log,
        {"graph": {"spark": {"master": "local[2]"}}},
        ("'graph.spark' is now 'spark', at the top level; move it there",),
    ),
    "a graph on Spark Connect": (
        lambda log: log,
        {"graph": {"engine": "spark"}, "spark": {"master": "sc://localhost"}},
        ("spark.master: Spark Connect builds no graph", "found sc://localhost; name a classic master"),
    ),
    "unknown section": (lambda log: log, {"grahp": {}}, ("did you mean 'graph'",)),
    "value of a wrong type": (
        lambda log: log,
        {"training": {"epochs": "many"}},
        ("training.epochs", "'many'"),
    ),
    "negative number": (
        lambda log: log,
        {"training": {"learning_rate": -1}},
        ("training.learning_rate", "-1"),
    ),
    "number that is none": (
        lambda log: log,
        {"training": {"learning_rate": float("nan")}},
        ("training.learning_rate",),
    ),
    "unknown task in given": (
        lambda log: log,
        {"tasks": [{"name": "click"}, {"name": "buy", "given": "clik"}]},
        ("tasks.buy.given", "did you mean 'click'"),
    ),
    "unknown task to monitor": (
        lambda log: log,
        {"training": {"monitor": "by.auc"}},
        ("training.monitor", "did you mean 'buy.auc'"),
    ),
    "unknown model": (lambda log: log, {"models": ["mmeo"]}, ("mmeo", "did you mean 'mmoe'")),
    "two tasks of one name": (lambda log: log, {"tasks": ["click", "click"]}, ("click", "twice")),
    "no models": (lambda log: log, {"models": []}, ("models", "at least 1 item")),
    "a misspelt key of a model": (
        lambda log: log,
        {"models": [{"name": "x", "base": "mgoe", "optons": {}}]},
        ("unknown key 'models.0.optons'; did you mean 'options'?",),
    ),
    "a model without a base": (
        lambda log: log,
        {"models": ["mgoe", {"name": "x"}]},
        ("models.1.base is needed and missing",),
    ),
    "a model that is a number": (lambda log: log, {"models": [3]}, ("models.0: ", "found 3")),
    "a text among dates": (
        lambda log: log,
        {"split": {"cuts": [date(2017, 12, 1), "x", date(2018, 1, 1)]}},
        ("split.cuts.1: ", "date", "found 'x'"),
    ),
    "a text among quantiles": (
        lambda log: log,
        {"split": {"cuts": [0.4, None, 0.8]}},
        ("split.cuts.1: ", "number", "found None"),
    ),
    "a seed twice": (lambda log: log, {"seeds": [0, 0]}, ("seeds must differ", "0 twice")),
    "a model whose name is a path": (
        lambda log: log,
        {"models": [{"name": "../a", "base": "mgoe"}]},
        ("no slash", "'../a'"),
    ),
    "no tasks": (lambda log: log, {"tasks": []}, ("tasks",)),
    "a column of exposures": (
        lambda log: log,
        {"data": {"position": "position"}},
        ("data.position", "event log"),
    ),
    "random rows of an event log": (
        lambda log: log,
        {"data": {"uniform": "uniform"}},
        ("data.uniform", "event log"),
    ),
    "a truth that is none": (lambda log: log, {"data": {"truth": "nowhere"}}, ("nowhere", "mgoe simulate")),
}

CLICK: Config = {"tasks": [{"name": "click", "label": "click"}]}
EXPOSURES: dict[str, tuple[Callable[[Frame], Frame], Config, tuple[str, ...]]] = {
    "task that always happens": (lambda log: log.assign(click=1), CLICK, ("click", "always")),
    "task that never happens": (lambda log: log.assign(click=0), CLICK, ("click",)),
    "label that is no number": (lambda log: log.assign(click="yes"), CLICK, ("'click'", "a label must be")),
    "label that is negative": (
        lambda log: log.assign(click=log["click"] - 1),
        CLICK,
        ("'click'", "-1", "0, 1 or null"),
    ),
    "label that is two": (
        lambda log: log.assign(click=log["click"] * 2),
        CLICK,
        ("'click'", "found '2", "0, 1 or null"),
    ),
    "label between no and yes": (
        lambda log: log.assign(click=log["click"] * 0.5),
        CLICK,
        ("'click'", "found '0.5'", "0, 1 or null"),
    ),
    "label that is infinite": (
        lambda log: log.assign(click=log["click"].replace(1, np.inf)),
        CLICK,
        ("'click'", "inf", "0, 1 or null"),
    ),
    "missing label column": (
        lambda log: log,
        {"tasks": [{"name": "click", "label": "clicks"}]},
        ("'clicks'", "did you mean 'click'"),
    ),
    "weight that is negative": (
        lambda log: log.assign(w=-1.0),
        {**CLICK, "data": {"weight": "w"}},
        ("'w'", "-1"),
    ),
    "weight that is NaN": (lambda log: log.assign(w=np.nan), {**CLICK, "data": {"weight": "w"}}, ("'w'",)),
    "weight that is null": (
        lambda log: log.assign(w=log["click"].where(log.index != 4)),
        {**CLICK, "data": {"weight": "w"}},
        ("'w'", "row 5"),
    ),
    "weight that is infinite": (
        lambda log: log.assign(w=np.inf),
        {**CLICK, "data": {"weight": "w"}},
        ("'w'", "inf"),
    ),
    "one weight that is negative": (
        put("click", 6, -1),
        {"tasks": [{"name": "buy", "label": "buy"}], "data": {"weight": "click"}},
        ("'click'", "-1", "row 7"),
    ),
    "label known before it happened": (
        lambda log: log.assign(known=log["timestamp"] - pd.Timedelta("1h")),
        {"tasks": [{"name": "click", "label": "click", "known_at": "known"}]},
        ("'known'", "not before"),
    ),
    "side table that is missing": (
        lambda log: log,
        {**CLICK, "data": {"users": {"path": "no.parquet", "id": "user_id", "features": [{"name": "age"}]}}},
        ("data.users", "no.parquet"),
    ),
    "context that is missing": (
        lambda log: log,
        {**CLICK, "data": {"context": [{"name": "devise"}]}},
        ("'devise'", "did you mean 'device'"),
    ),
}


@pytest.mark.parametrize("case", EVENTS)
def test_event_log(mgoe: Mgoe, events: Frame, tmp_path: Path, case: str):
    change, config, words = EVENTS[case]
    assert_refused(run_on(mgoe, tmp_path, change(events.copy()), config), *words)


@pytest.mark.parametrize("case", EXPOSURES)
def test_exposure_log(mgoe: Mgoe, exposed: Frame, tmp_path: Path, case: str):
    change, config, words = EXPOSURES[case]
    assert_refused(run_on(mgoe, tmp_path, change(exposed.copy()), config), *words)


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_rows_without_an_id_are_refused_before_anything_is_prepared(
    mgoe: Mgoe, events: Frame, tmp_path: Path, column: str
):
    result = run_on(mgoe, tmp_path, put(column, 7, None)(events.copy()), {})
    assert_refused(result, repr(column), "null", "row 8", "data.missing_ids: drop")
    assert len(result.stderr.splitlines()) == 1, "nothing was begun"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "more"), [("logistic", "`logistic+counts`"), ("rates", "leave the model out")]
)
def test_a_model_with_nothing_to_read_is_refused_before_the_others_train(
    mgoe: Mgoe, events: Frame, tmp_path: Path, model: str, more: str
):
    """Only an exposure log has rates; side features and context are those that settings name."""
    result = run_on(mgoe, tmp_path, events, {"models": ["popularity", model]})
    assert_refused(result, f"models.{model}.inputs", "an event log without", "rates", more)
    assert len(result.stderr.splitlines()) == 1, "nothing was begun"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", [["describe"], ["graph", "build"], ["graph", "build", "--set", "graph.snapshots=last"]]
)
def test_what_only_reading_shows_is_no_traceback(
    mgoe: Mgoe, events: Frame, tmp_path: Path, command: list[str]
):
    """DuckDB finds them row by row, long after it opened the file."""
    micros = events.assign(timestamp=events["timestamp"].astype("datetime64[us]").astype("int64"))
    micros.to_parquet(tmp_path / "micros.parquet")
    text = events[["user_id", "item_id"]].head(1).to_csv(index=False, header=False)
    late = [*(f"{text.strip()},{day},click\n" for day in range(30_000)), "1,2,none,click\n"]
    (tmp_path / "late.csv").write_text("user_id,item_id,timestamp,behavior\n" + "".join(late))
    out = [] if command == ["describe"] else ["--out", tmp_path / "run"]
    for name, unit, words in (
        ("micros.parquet", "s", "Overflow"),
        ("late.csv", "auto", "found 'none' in line 30002"),
    ):
        raw = {
            "data": {"log": str(tmp_path / name), "time_unit": unit},
            "tasks": ["click"],
            "split": {"cuts": [0.4, 0.6, 0.8]},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
        first, rest = command[: 2 if command[0] == "graph" else 1], command[2:]
        assert_refused(mgoe(*first, tmp_path / "config.yaml", *out, *rest), name, words)
        assert not (tmp_path / "run" / "data").exists()


def test_duplicate_rows_are_dropped_and_counted_by_default(mgoe: Mgoe, events: Frame, tmp_path: Path):
    pd.concat([events, events]).to_parquet(tmp_path / "log.parquet")
    raw = {
        "data": {"log": str(tmp_path / "log.parquet")},
        "tasks": ["click", "buy"],
        "split": {"cuts": [0.4, 0.6, 0.8]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    assert mgoe("graph", "build", tmp_path / "config.yaml", "--out", tmp_path / "run").exit_code == 0
    summary = json.loads((tmp_path / "run" / "data" / "data.json").read_text())["summary"]
    assert summary["dropped_rows"]["duplicates"] >= len(events)


def truncated(folder: Path, events: Frame) -> Path:
    events.to_parquet(folder / "cut.parquet")
    whole = (folder / "cut.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.parquet"


def damaged(folder: Path, events: Frame) -> Path:
    """Whole at both ends, spoilt between."""
    pq.write_table(pa.Table.from_pandas(events), folder / "bad.parquet")
    whole = bytearray((folder / "bad.parquet").read_bytes())
    whole[100:-5000] = b"\xff" * len(whole[100:-5000])
    (folder / "bad.parquet").write_bytes(whole)
    return folder / "bad.parquet"


def named(name: str, text: str = "") -> Callable[[Path, Frame], Path]:
    def write(folder: Path, _: Frame) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write


FILES: dict[str, tuple[Callable[[Path, Frame], Path | str], tuple[str, ...]]] = {
    "empty Parquet file": (named("log.parquet"), ("log.parquet", "empty")),
    "empty CSV file": (named("log.csv"), ("log.csv", "empty")),
    "CSV with a header alone": (
        named("log.csv", "user_id,item_id,timestamp,behavior\n"),
        ("log.csv", "found none"),
    ),
    "CSV that is none": (named("log.csv", "\x00\x01\x02,\n\n\x00"), ("log.csv",)),
    "text called Parquet": (named("log.parquet", "hello, this is no parquet"), ("log.parquet", "damaged")),
    "truncated Parquet file": (truncated, ("cut.parquet", "truncated", "copy or write it again")),
    "damaged Parquet file": (damaged, ("bad.parquet",)),
    "glob that matches nothing": (lambda folder, _: f"{folder}/*.parquet", ("*.parquet", "matches no file")),
    "folder without a log": (lambda folder, _: folder, ("folder must hold", "found none")),
    "file that is missing": (lambda folder, _: folder / "none.parquet", ("none.parquet", "no such file")),
    "file of another kind": (named("log.xlsx", "x"), ("log.xlsx", ".parquet")),
}


@pytest.mark.parametrize("case", FILES)
def test_file(mgoe: Mgoe, events: Frame, tmp_path: Path, case: str):
    write, words = FILES[case]
    (tmp_path / "logs").mkdir()
    assert_refused(run_on(mgoe, tmp_path, write(tmp_path / "logs", events), {}), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("no such file", "mgoe init")),
        ("data: [", ("YAML",)),
        ("- a\n- b", ("mapping", "list")),
        ("", ("mapping",)),
        ("tasks: [click]", ("data is needed",)),
        (
            "data: {log: x}\ngraph: {rank: 8}\ntasks: [click]\ngraph: {beta: 0.5}",
            ("'graph' is given twice", "line 4"),
        ),
        ("? [data, tasks]\n: x", ("cannot be read as YAML",)),
        ("data: {log: x, end: 2024-02-30}\ntasks: [click]", ("day is out of range",)),
        ("data: {log: x}", ("tasks is needed",)),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["train"], ["graph", "build"]])
def test_configuration(
    mgoe: Mgoe, tmp_path: Path, command: list[str], text: str | None, words: tuple[str, ...]
):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    assert_refused(mgoe(*command, tmp_path / "c.yaml", "--out", tmp_path / "run"), "c.yaml", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("graph.beta", ("--set", "key.path=value")),
        ("graph.bta=1", ("bta", "did you mean 'beta'")),
        ("graph.beta=2", ("graph.beta", "found 2")),
        ("graph.seed=-1", ("graph.seed", "found -1")),
        ("graph.resolutions=[]", ("graph.resolutions",)),
        ("graph.resolutions=[[0, 5]]", ("graph.resolutions", "each at least 1, found [[0, 5]]")),
        (
            "graph.resolutions=[100, 100]",
            ("graph.resolutions: must be", "found [100, 100]; write them as in"),
        ),
        ("graph.resolutions=[[a, 2]]", ("graph.resolutions: must be", "found [['a', 2]]")),
        ("graph.resolutions=100", ("graph.resolutions: must be", "found 100")),
        ("graph={resolutions: [[4, 5], [8, 10]], dense: 2}", ("graph: dense", "found 2; set 1 at most")),
        ("seeds=-1", ("seeds: ", "found -1")),
        ("seeds=[0, 2147483648]", ("seeds.1: ", "found 2147483648")),
        ("evaluation.k=[0]", ("evaluation.k.0: ", "found 0")),
        ("evaluation.k=[2147483648]", ("evaluation.k.0: ", "found 2147483648")),
        ("data.truth=nowhere", ("nowhere", "truth")),
        ("tasks.0.name=x", ("--set", "not a mapping")),
        ("graph=[", ("--set", "YAML")),
        ("data.end=2024-02-30", ("--set data.end", "2024-02-30")),
    ],
)
def test_override(mgoe: Mgoe, config: Path, tmp_path: Path, override: str, words: tuple[str, ...]):
    assert_refused(mgoe("run", config, "--out", tmp_path / "run", "--set", override), *words)


def test_finished_folder(mgoe: Mgoe, config: Path, finished: Path):
    before = (finished / "metrics.json").read_bytes()
    for command in (["run"], ["train"], ["graph", "build"]):
        assert_refused(mgoe(*command, config, "--out", finished), "finished run", "or overwrite it")
    assert (finished / "metrics.json").read_bytes() == before


def test_overwrite_with_a_bad_log_keeps_the_old_run(mgoe: Mgoe, config: Path, finished: Path, tmp_path: Path):
    out = shutil.copytree(finished, tmp_path / "run")
    assert_refused(
        mgoe("run", config, "--out", out, "--overwrite", "--set", "data.log=no.parquet"), "no.parquet"
    )
    assert (out / "bundle" / "bundle.json").exists()
    assert json.loads((out / "run.json").read_text())["state"] == "finished"


def test_unwritable_folder(mgoe: Mgoe, config: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    assert_refused(mgoe("run", config, "--out", tmp_path / "file"), "must be a folder")
    assert_refused(mgoe("run", config, "--out", tmp_path / "file" / "run"), "choose a folder you may write")
    assert_refused(mgoe("simulate", "--out", tmp_path / "file" / "log"), "file")
    assert_refused(mgoe("simulate", "--out", tmp_path / "file"), "file")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert_refused(mgoe("run", config, "--out", tmp_path / "run"), "choose a folder you may write")


def test_folder_of_somebody_else(mgoe: Mgoe, config: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    assert_refused(mgoe("run", config, "--out", tmp_path, "--overwrite"), "no run of mgoe wrote")
    assert_refused(mgoe("simulate", "--out", tmp_path, "--overwrite"), "no simulation wrote")
    assert (tmp_path / "thesis.tex").exists()


@pytest.fixture
def pairs(events: Frame, tmp_path: Path) -> Path:
    events[["user_id", "item_id"]].head(5).to_parquet(tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


def test_bundle_that_is_none(mgoe: Mgoe, finished: Path, pairs: Path, tmp_path: Path):
    for command in (["predict", tmp_path, pairs], ["recommend", tmp_path, 3], ["evaluate", tmp_path, pairs]):
        assert_refused(mgoe(*command), "holds no bundle")
    assert_refused(mgoe("evaluate", tmp_path), "neither a run nor a bundle")
    assert_refused(mgoe("graph", "describe", tmp_path), "holds no macro graph")
    copy = shutil.copytree(finished / "bundle", tmp_path / "bundle")
    (copy / "spec.json").write_text("{}")
    assert_refused(mgoe("predict", copy, pairs), "spec.json", "checksum", "copy the bundle again")


def test_pairs_that_cannot_be_scored(mgoe: Mgoe, finished: Path, pairs: Path, tmp_path: Path):
    bundle, out = finished / "bundle", tmp_path / "scores.csv"
    assert mgoe("predict", bundle, pairs, "--out", out).exit_code == 0
    before = out.read_bytes()
    pd.DataFrame({"user": [1], "item_id": [2]}).to_parquet(tmp_path / "bad.parquet")
    assert_refused(
        mgoe("predict", bundle, tmp_path / "bad.parquet", "--out", out), "bad.parquet", "did you mean 'user'"
    )
    assert_refused(
        mgoe("predict", bundle, tmp_path / "none.parquet", "--out", out), "none.parquet", "no such file"
    )
    assert_refused(mgoe("predict", bundle, tmp_path / "none.parquet"), "none.parquet", "no such file")
    assert_refused(
        mgoe("predict", bundle, pairs, "--out", tmp_path / "scores.xlsx"), "scores.xlsx", ".parquet or .csv"
    )
    assert_refused(mgoe("evaluate", bundle, pairs), "pairs.parquet", "label column 'click'")
    pd.read_parquet(pairs).assign(
        click=[7.0] + [0.0] * (len(pd.read_parquet(pairs)) - 1), buy=None
    ).to_parquet(tmp_path / "seven.parquet")
    assert_refused(
        mgoe("evaluate", bundle, tmp_path / "seven.parquet"),
        "column 'click'",
        "must be 0, 1 or null (missing), found '7.0'",
    )
    (tmp_path / "late.csv").write_text("user_id,item_id\n" + "1,2\n" * 30_000 + "x,2\n")
    assert_refused(
        mgoe("predict", bundle, tmp_path / "late.csv", "--out", out),
        "late.csv, column 'user_id'",
        "found 'x' in line 30002",
    )
    for odd in ({"a": 1}, [1], b"\xff"):
        pd.DataFrame({"user_id": [odd], "item_id": [2]}).to_parquet(tmp_path / "odd.parquet")
        assert_refused(
            mgoe("predict", bundle, tmp_path / "odd.parquet"),
            "odd.parquet, column 'user_id'",
            "an id must be",
        )
    assert_refused(mgoe("evaluate", bundle, pairs, "--split", "valid"), "--split", "leave it out")
    assert out.read_bytes() == before


def test_log_that_cannot_be_guessed(mgoe: Mgoe, events: Frame, tmp_path: Path):
    log = tmp_path / "log.parquet"
    events.drop(columns="timestamp").to_parquet(log)
    for command in ("init", "describe"):
        assert_refused(mgoe(command, log), "log.parquet", "time")
        assert_refused(mgoe(command, tmp_path / "none.parquet"), "none.parquet", "no such file")
    for few in (1, 3):
        events.head(few).to_parquet(log)
        assert_refused(
            mgoe("init", log), "log.parquet", "at least 4 rows are needed", f"found {few}", "add more rows"
        )
    events.head(50)[["timestamp", "item_id"]].assign(user_id=7, done="click").to_parquet(log)
    assert_refused(
        mgoe("init", log), "needs a user and an item", "user_id, done hold a single value, so add more rows"
    )
    events.to_parquet(log)
    (tmp_path / "mine.yaml").write_text("mine")
    assert_refused(mgoe("init", log, "--out", tmp_path / "mine.yaml"), "mine.yaml", "--overwrite")
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_names_that_are_none(mgoe: Mgoe, config: Path, finished: Path, tmp_path: Path):
    assert_refused(
        mgoe("evaluate", finished, "--slice", "unsen-users"), "--slice", "did you mean 'unseen-users'"
    )
    assert_refused(mgoe("evaluate", finished, "--split", "tset"), "--split", "did you mean 'test'")
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--objective", "clik"), "did you mean 'click'")
    assert_refused(
        mgoe("recommend", finished / "bundle", 1, "-k", 0),
        "k: Input should be greater than or equal to 1, found 0",
    )
    assert_refused(mgoe("recommend", finished / "bundle"), "or a file with --users, found none")
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--users", "x"), "found both")
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--out", "x.csv"), "name it with --users")
    assert_refused(
        mgoe("recommend", finished / "bundle", "--users", "x.csv", "--out", "x"),
        "written as .parquet or .csv",
    )
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--where", "color"), "as in category=shoes")
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--where", "color=red"), "it has none")
    assert_refused(mgoe("recommend", finished / "bundle", 1, "--max-per", "color=2.5"), "a whole number")
    assert_refused(
        mgoe("train", config, "--out", tmp_path / "run", "--model", "mgeo"), "model: ", "did you mean 'mgoe'"
    )
    assert_refused(
        mgoe("train", config, "--out", tmp_path / "run", "--seed", -1),
        "seed",
        "must lie between 0 and 2147483647, found -1",
    )
    assert not (tmp_path / "run").exists()
    assert_refused(
        mgoe("simulate", "--out", tmp_path / "log", "--set", "popularty=1"), "did you mean 'popularity'"
    )
    assert_refused(mgoe("simulate", "--out", tmp_path / "log", "--users", -3), "users", "-3")


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        (("simulate", "--out", "log"), "--form", ("events", "exposures", "both")),
        (("train", "mine.yaml", "--out", "run"), "--resume", ("auto", "never")),
        (("serve", "bundle"), "--precision", ("float32", "bfloat16")),
        (("serve", "bundle"), "--engine", ("onnx", "torch")),
    ],
)
def test_a_choice_that_is_none(mgoe: Mgoe, command: tuple[str, ...], option: str, choices: tuple[str, ...]):
    done = mgoe(*command, option, "none")
    assert done.exit_code == 2
    assert option in done.stderr
    assert all(f"'{choice}'" in done.stderr for choice in choices)


WAITING = """
import runpy, time
from mgoe.experiments import runs
runs.execute = lambda *_, **__: time.sleep(600)
runpy.run_module("mgoe", run_name="__main__")
"""
"""`mgoe`, which waits in place of training, so that it cannot end before it is interrupted."""


@slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), *[(signal.SIGTERM, 143)] * SOAK])
def test_interrupted_run(
    mgoe: Mgoe, config: Path, finished: Path, tmp_path: Path, sent: signal.Signals, code: int
):
    out = tmp_path / "run"
    command = [sys.executable, "-c", WAITING, "run", str(config), "--out", str(out)]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 - where the tests run in the background
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    while not (out / "graph").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("mgoe: stopped; what was finished is kept")
    assert "Traceback" not in stderr
    assert mgoe("run", config, "--out", out).exit_code == 0
    assert (out / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
