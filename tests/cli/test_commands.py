"""Every command: what it prints for people, for programs, and as help."""

import html
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mgoe as library
from mgoe.bundle import UnseenUsers
from mgoe.cli import app, doctor, recommendations
from mgoe.cli.shared import facts, show, show_leads
from mgoe.config import RunSettings, dump_settings, load_settings
from mgoe.data.size import LogSize
from mgoe.evaluation import Estimate, rich_table
from mgoe.graph import MacroGraph
from mgoe.graph.build import clusters
from mgoe.models import PRESETS
from tests.cli.conftest import Mgoe
from tests.effort import SOAK

NAMES = (
    "demo; init; schema; models list; describe; simulate; "
    "data list; data describe; data fetch; data prepare; "
    "graph build; graph describe; graph update; "
    "graph forget; train; evaluate; predict; recommend; export; plan; run; rows; serve; update; "
    "log export; exposures; events; answers; experiment plan; experiment check; experiment report; "
    "experiment estimate; "
    "registry list; registry show; registry add; registry test; registry compare; "
    "registry promote; registry rollback; registry reject; registry allow; registry prune; cycle; "
    "compare; erase; doctor"
)
COMMANDS = [name.split() for name in NAMES.split(";")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_by_example(mgoe: Mgoe, command: list[str]):
    result = mgoe(*command, "--help")
    assert result.exit_code == 0
    assert f"mgoe {' '.join(command)}" in result.stdout.split("Examples")[1]


def test_every_command_is_tested():
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    names |= {group.name for group in app.registered_groups if group.name}
    assert {command[0] for command in COMMANDS} == names


def test_help_has_every_command_in_a_panel(mgoe: Mgoe):
    panels = re.findall(r"^╭─ (.+?) ─", mgoe("--help").stdout, re.MULTILINE)
    assert panels == [
        "Options",
        "Start",
        "Data and graph",
        "Train and evaluate",
        "Score and serve",
        "Daily loop",
    ]


def test_help_and_version_are_fast():
    """Neither loads torch, pandas or DuckDB."""
    slow = "{'torch', 'pandas', 'duckdb', 'pyarrow', 'numpy'}"
    code = f"import sys, mgoe.cli; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    version = subprocess.run(
        [sys.executable, "-m", "mgoe", "--version"], check=True, capture_output=True, text=True
    )
    assert version.stdout.strip() == library.__version__


def test_a_warning_is_printed_without_a_line_of_code():
    code = (
        "import warnings; from mgoe.cli import app; "
        "app.command('warn')(lambda: warnings.warn('these are odd')); app(['warn'])"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert said == "UserWarning: these are odd\n"


def test_run(mgoe: Mgoe, config: Path, tmp_path: Path):
    result = mgoe("run", config, "--out", tmp_path / "run", "--set", "models=[shared-bottom, mgoe]")
    assert result.exit_code == 0
    assert "shared-bottom - mgoe" in result.stdout
    assert "95 % interval" in result.stdout
    assert "\x1b" not in result.output
    assert "training 2 of 2 cells" in result.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_what_does_not_exist_is_said_in_words(capsys):
    lead = Estimate("a", "b", "all", "ranking", 0.1467, 0.1, 0.2, (0.1467,), 900)
    without = replace(lead, low=math.nan, high=math.nan)
    show_leads([lead, without, replace(without, value=math.nan)])
    show(facts({"auc": math.nan}))
    assert capsys.readouterr().out.splitlines() == [
        "a - b: +0.1467 on the mean, 95 % interval +0.1000 to +0.2000",
        "a - b: +0.1467 on the mean, no interval: too few users contribute to it",
        "a - b: the mean does not exist",
        "auc  -",
    ]


def test_brackets_in_names_are_printed_as_they_are(capsys):
    show(facts({"[/buy]": "[red]x", "item": ["p[us]110"]}))
    of = {"seed": 0, "split": "test", "slice": "all", "task": "buy", "metric": "auc"}
    rows = [{"model": model, **of, "value": value} for model, value in (("[a]", 0.5), ("b", 0.6))]
    show(rich_table(rows, name="[bold]name"))
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[/buy]", "[red]x", "p[us]110", "[a]", "[bold]name", "0.6000"))


def test_ratings_alone_are_two_commands(mgoe: Mgoe, tmp_path: Path):
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, 40, 900),
            "item_id": rng.integers(0, 30, 900),
            "rating": rng.integers(1, 6, 900),
        }
    )
    log["timestamp"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.sort(rng.integers(0, 60 * 86_400, 900)), "s"
    )
    log.to_csv(tmp_path / "ratings.csv", index=False)
    assert mgoe("init", tmp_path / "ratings.csv", "-o", tmp_path / "mine.yaml").exit_code == 0
    result = mgoe(
        "run",
        tmp_path / "mine.yaml",
        "--out",
        tmp_path / "run",
        "--set",
        "training.epochs=1",
        "--set",
        "models=[mgoe]",
    )
    assert result.exit_code == 0, result.stderr
    assert "rating RMSE" in result.stdout
    assert "all.rmse" in result.stderr


def test_plan_refuses_what_cannot_be_unless_it_is_forced(
    mgoe: Mgoe, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    size = LogSize.of(load_settings(config))
    monkeypatch.setattr(LogSize, "of", lambda settings: size)
    monkeypatch.setattr("mgoe.experiments.costs.slowness", lambda: 2.0)
    how = ("plan", config, "--out", tmp_path / "run")
    found = json.loads(mgoe(*how, "--json").stdout)
    assert (found["snapshots"], found["slowness"]) == (4, 2.0)
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]))
    for cores, said in ((1, "on 1 core; "), (3, "on 3 cores; ")):
        monkeypatch.setattr("mgoe.experiments.forecast.available_threads", lambda cores=cores: cores)
        assert said in mgoe(*how).stdout
    shown = mgoe(*how).stdout
    assert all(stage["stage"] in shown for stage in found["stages"])
    monkeypatch.setattr("mgoe.experiments.forecast.machine_memory", lambda: 1 << 20)
    refused, forced = mgoe(*how), mgoe(*how, "--force")
    assert (refused.exit_code, refused.stdout, forced.exit_code) == (2, "", 0)
    assert "raise memory" in " ".join(refused.stderr.split())
    assert "prepare" in forced.stdout
    assert "note: memory: the sketch must be learned in memory" in " ".join(forced.stdout.split())
    assert "must be learned" in json.loads(mgoe(*how, "--force", "--json").stdout)["excluded"]


def test_run_prints_json_alone(mgoe: Mgoe, config: Path, finished: Path, tmp_path: Path):
    result = mgoe("run", config, "--out", tmp_path / "run", "--json")
    found = json.loads(result.stdout)
    assert found["metrics"] == json.loads((finished / "metrics.json").read_text())
    assert Path(found["bundle"], "bundle.json").exists()


def test_a_run_says_its_result_and_then_which_model_is_served_and_why(
    mgoe: Mgoe, config: Path, tmp_path: Path
):
    """Two names of one model with one seed are level exactly, so the first of them is served."""
    models = "models=[shared-bottom+counts, {name: same, base: shared-bottom+counts}]"
    words = ("run", config, "--out", tmp_path / "run", "--set", models, "--set", "training.epochs=1")
    result = mgoe(*words)
    assert result.exit_code == 0, result.stderr
    found, _, said = result.stdout.splitlines()[:3]
    assert found.startswith("shared-bottom+counts reaches ")
    assert said.startswith("shared-bottom+counts is served, the first of `models`: on validation no other")
    assert "same comes nearest (+0.0000, " in said
    report = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert report.split('class="lede">')[1].startswith(found)
    assert report.split('class="served">')[1].startswith(said)
    lists = [
        line for line in result.stdout.splitlines() if "shared-bottom+counts is" in line or "of 100" in line
    ]
    assert all(line in report for line in lists)


def test_graph_then_train_then_run(mgoe: Mgoe, config: Path, tmp_path: Path):
    out = tmp_path / "run"
    built = json.loads(mgoe("graph", "build", config, "--out", out, "--json").stdout)
    assert built == json.loads(mgoe("graph", "describe", out, "--json").stdout)
    assert "macro_users" in mgoe("graph", "describe", out / "graph").stdout
    trained = mgoe("train", config, "--out", out, "--model", "shared-bottom")
    assert "shared-bottom" in trained.stdout
    assert "resuming" in trained.stderr
    assert "shared-bottom" in mgoe("evaluate", out).stdout
    before = (out / "cells" / "shared-bottom" / "0" / "model.safetensors").stat().st_mtime_ns
    assert mgoe("train", config, "--out", out, "--model", "shared-bottom", "--resume", "never").exit_code == 0
    assert (out / "cells" / "shared-bottom" / "0" / "model.safetensors").stat().st_mtime_ns > before
    assert "training 1 of 2 cells" in mgoe("run", config, "--out", out).stderr


def test_a_seed_of_one_s_own_is_measured_too(mgoe: Mgoe, config: Path, tmp_path: Path):
    assert (
        mgoe("train", config, "--out", tmp_path / "run", "--model", "shared-bottom", "--seed", 3).exit_code
        == 0
    )
    assert {
        row["seed"] for row in json.loads(mgoe("evaluate", tmp_path / "run", "--json").stdout)["metrics"]
    } == {3}


def test_a_graph_of_the_whole_log_is_updated_and_forgets(
    mgoe: Mgoe, config: Path, world: Path, tmp_path: Path
):
    out, page = tmp_path / "all", tmp_path / "graph.html"
    built = json.loads(
        mgoe("graph", "build", config, "--set", "graph.snapshots=last", "--out", out, "--json").stdout
    )
    new = next((world / "events").glob("*.parquet"))
    updated = mgoe("graph", "update", out, new, "--json")
    assert updated.exit_code == 0
    found = json.loads(updated.stdout)
    assert found["pairs"] == built["pairs"]
    assert found["changes"] == [
        {"what": "update", "events": found["events"] - built["events"], "late_pairs": 0, "recluster": False}
    ]
    assert "of them 0 new users and 0 new items" in updated.stderr
    user = pd.read_parquet(new)["user_id"].iloc[0]
    assert json.loads(mgoe("graph", "forget", out, "--user", user, "--json").stdout)["pairs"] < found["pairs"]
    again = json.loads(mgoe("graph", "update", out, "--recluster", "--json").stdout)
    assert [change["what"] for change in again["changes"]] == ["update", "forget", "update"]
    assert all(size["drift"] == 0 for size in again["resolutions"])
    assert mgoe("graph", "describe", out, "--check", "--plot", page).exit_code == 0
    assert "</html>" in page.read_text()


def test_evaluate_shows_what_was_measured(mgoe: Mgoe, finished: Path):
    rows = json.loads((finished / "metrics.json").read_text())
    found = json.loads(mgoe("evaluate", finished, "--slice", "new-pairs", "--json").stdout)
    assert found["metrics"] == [row for row in rows if row["split"] == "test" and row["slice"] == "new-pairs"]
    assert found["leads"] == [], "they are of all rows"
    assert json.loads(mgoe("evaluate", finished, "--json").stdout)["leads"][0]["baseline"] == "shared-bottom"
    assert "shared-bottom" not in mgoe("evaluate", finished / "bundle").stdout


def test_evaluate_on_new_pairs(mgoe: Mgoe, finished: Path, world: Path, tmp_path: Path):
    pairs = pd.read_parquet(world / "exposures").tail(300)[["user_id", "item_id", "click", "buy"]]
    pairs.to_parquet(tmp_path / "pairs.parquet")
    found = json.loads(mgoe("evaluate", finished / "bundle", tmp_path / "pairs.parquet", "--json").stdout)[
        "metrics"
    ]
    values = {(row["task"], row["metric"]): row["value"] for row in found}
    scores = library.load(finished / "bundle").predict(pairs["user_id"], pairs["item_id"])
    assert values["click", "examples"] == 300
    assert values["click", "auc"] == pytest.approx(
        library_auc(pairs["click"].to_numpy(), scores["click"].to_numpy())
    )
    assert "click AUC" in mgoe("evaluate", finished / "bundle", tmp_path / "pairs.parquet").stdout


def test_new_pairs_are_measured_in_the_sample_space_of_their_task(
    mgoe: Mgoe, shown: Path, world: Path, tmp_path: Path
):
    """`buy` is predicted given a click: rows without one say nothing of it."""
    pairs = pd.read_parquet(world / "exposures").tail(600)[
        ["user_id", "item_id", "device", "click", "buy", "stay"]
    ]
    pairs.fillna({"buy": 0.0}).to_parquet(tmp_path / "pairs.parquet")
    found = json.loads(mgoe("evaluate", shown / "bundle", tmp_path / "pairs.parquet", "--json").stdout)[
        "metrics"
    ]
    values = {(row["task"], row["metric"]): row["value"] for row in found}
    assert values["click", "examples"] == 600
    assert values["buy", "examples"] == (pairs["click"] == 1).sum() < 600


def test_labels_of_new_pairs_are_read_as_those_of_a_log(mgoe: Mgoe, shown: Path, world: Path, tmp_path: Path):
    pairs = (
        pd.read_parquet(world / "exposures")
        .tail(30)[["user_id", "item_id", "click", "buy", "stay"]]
        .reset_index(drop=True)
    )
    pairs["stay"] = 20_000_001  # no float32, and no less a length
    pairs.to_parquet(tmp_path / "pairs.parquet")
    assert mgoe("evaluate", shown / "bundle", tmp_path / "pairs.parquet").exit_code == 0
    for name, bad in (("stay", -5.0), ("stay", np.inf), ("click", 2.0), ("click", "yes")):
        spoilt = pairs.astype({name: object}).assign(**{name: [bad] * len(pairs)})
        spoilt.to_parquet(tmp_path / "pairs.parquet")
        found = mgoe("evaluate", shown / "bundle", tmp_path / "pairs.parquet")
        assert found.exit_code == 2
        assert f"column '{name}'" in found.stderr


def library_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    from mgoe.metrics import auc

    return auc(labels, scores)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_predict(mgoe: Mgoe, finished: Path, world: Path, tmp_path: Path, ending: str):
    pairs = pd.read_parquet(world / "exposures").head(50)[["item_id", "user_id", "position"]]
    getattr(pairs, f"to_{ending}")(tmp_path / f"pairs.{ending}", index=False)
    out = tmp_path / "deep" / f"scores.{ending}"
    assert mgoe("predict", finished / "bundle", tmp_path / f"pairs.{ending}", "--out", out).exit_code == 0
    found = getattr(pd, f"read_{ending}")(out)
    expected = library.load(finished / "bundle").predict(pairs["user_id"], pairs["item_id"])
    assert list(found.columns) == ["user_id", "item_id", "click", "buy"]
    np.testing.assert_array_equal(found["user_id"], pairs["user_id"])
    np.testing.assert_allclose(found[["click", "buy"]], expected[["click", "buy"]], rtol=1e-6)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_predict_prints_csv_or_json(mgoe: Mgoe, shown: Path, world: Path, tmp_path: Path):
    pd.read_parquet(world / "exposures").head(3).to_parquet(tmp_path / "pairs.parquet")
    printed = mgoe("predict", shown / "bundle", tmp_path / "pairs.parquet").stdout.splitlines()
    assert printed[0] == '"user_id","item_id","click","buy","stay"'
    assert len(printed) == 4
    assert (
        len(json.loads(mgoe("predict", shown / "bundle", tmp_path / "pairs.parquet", "--json").stdout)) == 3
    )


def test_predict_of_no_pair_writes_no_row(mgoe: Mgoe, finished: Path, world: Path, tmp_path: Path):
    pd.read_parquet(world / "exposures").head(0).to_parquet(tmp_path / "pairs.parquet")
    assert (
        mgoe(
            "predict", finished / "bundle", tmp_path / "pairs.parquet", "--out", tmp_path / "scores.parquet"
        ).exit_code
        == 0
    )
    assert list(pd.read_parquet(tmp_path / "scores.parquet").columns) == [
        "user_id",
        "item_id",
        "click",
        "buy",
    ]


def test_recommend_takes_what_python_takes(mgoe: Mgoe, finished: Path):
    bundle = library.load(finished / "bundle")
    users = bundle.ids("user", np.arange(2))
    best = bundle.recommend(users[0])["item"].tolist()
    how = {
        "objective": "click * buy^2",
        "exclude_known": True,
        "exclude": best[:1],
        "at_least": {"buy": 1e-6},
    }
    words = [
        "--objective",
        how["objective"],
        "--exclude-known",
        "--exclude",
        best[0],
        "--at-least",
        "buy=1e-6",
    ]
    found = json.loads(mgoe("recommend", finished / "bundle", *users, "-k", 4, *words, "--json").stdout)
    expected = bundle.recommend(users, 4, **how)
    assert [(int(row["user"]), row["rank"], row["item"]) for row in found] == list(
        expected[["user", "rank", "item"]].itertuples(index=False, name=None)
    )
    assert [row["tasks"]["buy"] for row in found] == expected["buy"].tolist()
    assert [row["score"] for row in found] == expected["score"].tolist()
    printed = mgoe("recommend", finished / "bundle", *users).stdout.splitlines()
    assert printed[0].split() == ["user", "rank", "item", "score", "click", "buy"]
    assert len(printed) == 1 + 2 * 10


def in_this_process(work: Callable[..., Any], args: tuple[Any, ...], parts: Iterable[Any], jobs: int) -> Any:
    return (work(*args, part) for part in parts)


def test_recommend_reads_users_of_a_file(
    mgoe: Mgoe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not SOAK:
        monkeypatch.setattr("mgoe.batch.parts.in_order", in_this_process)
    bundle = library.load(finished / "bundle")
    users = [*bundle.ids("user", np.arange(3)), 10**9]
    pd.DataFrame({"user_id": users}).to_csv(tmp_path / "users.csv", index=False)
    words = ["recommend", finished / "bundle", "--users", tmp_path / "users.csv", "-k", 4, "--exclude-known"]
    expected = bundle.recommend(users, 4, exclude_known=True)
    expected.columns = ["user_id", "rank", "item_id", "score", "click", "buy"]
    out = tmp_path / "found.parquet"
    assert "16 recommendations written" in mgoe(*words, "--out", out).stderr
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected, check_dtype=False)
    assert json.loads(mgoe(*words, "--out", out, "--json").stdout)["rows"] == 16
    mgoe(*words, "--jobs", 2, "--out", tmp_path / "by two.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "by two.parquet"), pd.read_parquet(out))
    refused = mgoe(*words, "--jobs", 2, "--objective", "by", "--out", tmp_path / "none.parquet")
    assert (refused.exit_code, (tmp_path / "none.parquet").exists()) == (2, False)
    printed = pd.read_csv(io.StringIO(mgoe(*words).stdout))
    assert printed[["user_id", "rank", "item_id"]].equals(expected[["user_id", "rank", "item_id"]])
    first = json.loads(mgoe(*words, "--json").stdout)[0]
    assert (first["user"], first["item"]) == (users[0], expected["item_id"][0])
    pd.DataFrame({"user_id": []}, dtype="int64").to_parquet(tmp_path / "none.parquet")
    none = mgoe("recommend", finished / "bundle", "--users", tmp_path / "none.parquet")
    assert none.stdout.splitlines() == ['"user_id","rank","item_id","score","click","buy"']


def test_the_scores_of_a_present_ranker_are_compared(
    mgoe: Mgoe, small: RunSettings, finished: Path, tmp_path: Path
):
    out, config = shutil.copytree(finished, tmp_path / "run"), tmp_path / "small.yaml"
    config.write_text(dump_settings(small))
    said = json.loads(mgoe("rows", out, "--out", tmp_path / "test.parquet", "--json").stdout)
    rows = pd.read_parquet(tmp_path / "test.parquet")
    assert (said["rows"], said["columns"]) == (len(rows), list(rows))
    assert f"{len(rows):,} rows written" in mgoe("rows", out, "--out", tmp_path / "test.csv").stderr
    mine = rows[["row", "user_id", "item_id", "timestamp"]].assign(score=rows["shared-bottom.click"])
    mine.to_csv(tmp_path / "mine.csv", index=False)
    shown = mgoe("run", config, "--out", out, "--incumbent", tmp_path / "mine.csv")
    assert shown.exit_code == 0
    assert re.search("^incumbent ", shown.stdout, re.MULTILINE)
    assert "mgoe - incumbent: " in shown.stdout
    mine.head(3).to_csv(tmp_path / "mine.csv", index=False)
    refused = mgoe("run", config, "--out", out, "--incumbent", tmp_path / "mine.csv")
    assert refused.exit_code == 2
    assert "must hold one score for each test row" in refused.stderr
    assert mgoe("rows", out, "--out", tmp_path / "again.csv").exit_code == 0  # the run is still finished


def test_recommend_says_where_no_item_is_left(mgoe: Mgoe, finished: Path, tmp_path: Path):
    bundle = finished / "bundle"
    named = mgoe("recommend", bundle, 1, 2, "--at-least", "click=1.1")
    assert (named.exit_code, named.stdout.split()) == (0, ["user", "rank", "item", "score", "click", "buy"])
    assert named.stderr.strip() == "no item is left: none passes the filters"
    assert json.loads(mgoe("recommend", bundle, 1, "--at-least", "click=1.1", "--json").stdout) == []
    pd.DataFrame({"user_id": [1, 2]}).to_csv(tmp_path / "users.csv", index=False)
    words = ["recommend", bundle, "--users", tmp_path / "users.csv", "--at-least", "click=1.1"]
    assert mgoe(*words).stdout.splitlines() == ['"user_id","rank","item_id","score","click","buy"']
    assert "0 recommendations written" in mgoe(*words, "--out", tmp_path / "found.parquet").stderr
    found = pd.read_parquet(tmp_path / "found.parquet")
    assert (len(found), list(found)) == (0, ["user_id", "rank", "item_id", "score", "click", "buy"])


def test_recommend_says_that_a_user_was_never_seen(mgoe: Mgoe, finished: Path, tmp_path: Path):
    bundle = finished / "bundle"
    [known] = library.load(bundle).ids("user", np.arange(1))
    with pytest.warns(UnseenUsers, match="never seen this user, so the list is that of"):
        one = json.loads(mgoe("recommend", bundle, 10**9, "-k", 2, "--json").stdout)
    with pytest.warns(UnseenUsers, match="never seen 1 of these 2 users") as said:
        both = json.loads(mgoe("recommend", bundle, known, "nobody", "-k", 2, "--json").stdout)
    assert [one.category for one in said].count(UnseenUsers) == 1
    assert [row["unseen_user"] for row in [*one, *both]] == [True, True, False, False, True, True]
    pd.DataFrame({"user_id": [known, *range(1, 2500)]}).to_csv(tmp_path / "users.csv", index=False)
    words = ("--users", tmp_path / "users.csv", "-k", 1, "--json")
    with pytest.warns(UnseenUsers, match="never seen 2,499 of these 2,500 users") as said:
        listed = json.loads(mgoe("recommend", bundle, *words).stdout)
    assert [one.category for one in said].count(UnseenUsers) == 1, "once for all parts of a file"
    assert [row["unseen_user"] for row in listed] == [False] + [True] * 2499


def test_recommend_reads_context(mgoe: Mgoe, shown: Path):
    found = mgoe("recommend", shown / "bundle", 1, "-k", 3, "--context", "device=phone", "--json")
    expected = library.load(shown / "bundle").recommend(1, 3, context={"device": "phone"})
    assert [row["item"] for row in json.loads(found.stdout)] == expected["item"].tolist()


@pytest.mark.parametrize("form", ["exposures", *["events"] * SOAK])
def test_init_writes_a_configuration_that_runs(mgoe: Mgoe, world: Path, tmp_path: Path, form: str):
    result = mgoe("init", world / form)
    (tmp_path / "mine.yaml").write_text(result.stdout)
    settings = load_settings(tmp_path / "mine.yaml")
    assert settings.form == form
    assert "#" in result.stdout
    assert json.loads(mgoe("init", world / form, "--json").stdout)["data"]["user"] == "user_id"
    said = mgoe("init", world / form, "--out", tmp_path / "same.yaml").stderr
    assert f"mgoe run {tmp_path / 'same.yaml'}" in said
    assert (tmp_path / "same.yaml").read_text() == result.stdout
    assert mgoe("graph", "build", tmp_path / "mine.yaml", "--out", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("missing", [1, 33])
def test_init_says_how_many_rows_have_no_id_and_leaves_them_out(
    mgoe: Mgoe, world: Path, tmp_path: Path, column: str, missing: int
):
    log = pd.read_parquet(world / "events")
    log[column] = log[column].astype("Int64").mask(log.index < missing)
    log.to_parquet(tmp_path / "log.parquet")
    text = mgoe("init", tmp_path / "log.parquet").stdout
    (tmp_path / "mine.yaml").write_text(text)
    assert load_settings(tmp_path / "mine.yaml").data.missing_ids == "drop"
    [line] = [line for line in text.splitlines() if "missing_ids" in line]
    assert f"# {missing} rows without a user or an item are left out" in line
    assert "`refuse`" in line
    assert "missing_ids" not in mgoe("init", world / "events").stdout
    sets = ["--set", "split.cuts=[0.4, 0.6, 0.8]"]
    built = mgoe("graph", "build", tmp_path / "mine.yaml", "--out", tmp_path / "run", *sets)
    assert built.exit_code == 0, built.stderr


def test_init_proposes_features_of_tables(mgoe: Mgoe, world: Path, tmp_path: Path):
    items = pd.DataFrame({"id": pd.read_parquet(world / "events")["item_id"].unique()})
    items["kind"], items["avg_rating"] = items["id"].astype(str).str[-1], 0.5
    items.to_csv(tmp_path / "items.csv", index=False)
    text = mgoe("init", world / "events", "--items", tmp_path / "items.csv").stdout
    (tmp_path / "mine.yaml").write_text(text)
    table = load_settings(tmp_path / "mine.yaml").data.items
    assert table is not None
    assert [feature.name for feature in table.features] == ["kind"]
    [line] = [line for line in text.splitlines() if "avg_rating" in line]
    assert line.strip().startswith("# - {name: avg_rating, kind: numeric}")
    assert "# looks like a leak" in line
    refused = mgoe("init", world / "events", "--users", tmp_path / "items.csv")
    assert refused.exit_code == 2
    assert "or leave --users out" in refused.stderr


def test_describe(mgoe: Mgoe, config: Path, world: Path, finished: Path):
    found = json.loads(mgoe("describe", config, "--json").stdout)
    assert found["rows"] == len(pd.read_parquet(world / "events"))
    assert set(found["tasks"]) == {"click", "buy"}
    assert found["rules"]["training.epochs"] == "8 (at most; validation chooses), configured: 1"
    assert json.loads(mgoe("describe", world / "events", "--json").stdout)["rows"] == found["rows"]
    assert "funnel" in mgoe("describe", world / "exposures").stdout
    for path in (finished, finished / "bundle"):
        assert json.loads(mgoe("describe", path, "--json").stdout)["model"]["name"] == "mgoe"


def test_simulate(mgoe: Mgoe, tmp_path: Path):
    world = [
        "--users",
        50,
        "--items",
        20,
        "--exposures",
        3000,
        "--set",
        "user_communities=2",
        "--set",
        "item_communities=2",
    ]
    result = mgoe("simulate", "--out", tmp_path / "log", *world, "--json")
    assert json.loads(result.stdout)["exposures"] == 3000
    assert len(pd.read_parquet(tmp_path / "log" / "exposures")) == 3000
    again = mgoe("simulate", "--out", tmp_path / "log", *world, "--overwrite")
    assert "best_auc.click" in again.stdout
    for k, seed in enumerate((["--seed", 5], ["--set", "seed=5"])):
        assert mgoe("simulate", "--out", tmp_path / f"{k}", *world, *seed).exit_code == 0
        assert json.loads((tmp_path / f"{k}" / "truth" / "world.json").read_text())["settings"]["seed"] == 5
    both = mgoe("simulate", "--out", tmp_path / "both", *world, "--events", 100)
    assert both.exit_code == 2
    assert "leave out --exposures" in both.stderr
    assert mgoe("simulate", "--out", tmp_path / "log", *world).exit_code == 2


def test_a_value_of_the_context_is_taken_as_it_is_written():
    words = ["country=NO", "zip=010", "slot=12:30"]
    assert recommendations._last("--context", words, str, "device=phone") == {
        "country": "NO",
        "zip": "010",
        "slot": "12:30",
    }


def test_doctor(mgoe: Mgoe):
    result = mgoe("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    full = found | {"disk": {"free_gib": 0.5}}
    assert "0.5 GiB of disk are free; free space" in " ".join(doctor.problems(full))
    assert found["versions"]["mgoe"] == library.__version__
    assert found["versions"]["torch"]
    assert found["threads"]["cores"] >= 1
    assert "memory" in mgoe("doctor").stdout


@pytest.mark.parametrize("words", [["--quiet", "init"], ["init", "--quiet"]], ids=" ".join)
def test_quiet_leaves_results_and_errors(mgoe: Mgoe, world: Path, tmp_path: Path, words: list[str]):
    assert "fix wrong guesses" in mgoe("init", world / "events", "--out", tmp_path / "said.yaml").stderr
    quiet = mgoe(*words, world / "events", "--out", tmp_path / "mine.yaml")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert (tmp_path / "mine.yaml").read_text() == (tmp_path / "said.yaml").read_text()
    assert mgoe(*words, world / "events").stdout == (tmp_path / "mine.yaml").read_text()
    assert "exists already" in mgoe(*words, world / "events", "--out", tmp_path / "mine.yaml").stderr


def test_completion_completes():
    env = os.environ | {"_MGOE_COMPLETE": "complete_bash", "COMP_WORDS": "mgoe rec", "COMP_CWORD": "1"}
    code = "from mgoe.cli import main; main(prog_name='mgoe')"
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert found.stdout.split() == ["recommend"]


def test_models_are_listed_with_what_they_read(mgoe: Mgoe):
    found = json.loads(mgoe("models", "list", "--json").stdout)
    assert [row["name"] for row in found["models"]] == [*PRESETS]
    assert next(row for row in found["models"] if row["name"] == "mmoe")["inputs"] == [
        "ids",
        "side",
        "context",
        "recents",
        "content",
    ]
    printed = mgoe("models", "list").stdout
    assert all(name in printed for name in (*PRESETS, *(f"+{suffix}" for suffix in found["suffixes"])))


def test_snapshots_that_are_not_the_same_again_are_refused(
    mgoe: Mgoe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A small run keeps the latest snapshot alone; the rows are measured on an earlier one."""
    run, out = Path(shutil.copytree(finished, tmp_path / "run")), tmp_path / "rows.parquet"
    shutil.rmtree(run / "graph")
    MacroGraph.open(finished / "graph").save_latest(run / "graph")
    before = {file: file.read_bytes() for file in (run / "graph").rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:  # as a library that computes in another way
        patch.setattr(clusters, "draw_seeds", lambda rows, number, seed: rows[:number])
        result = mgoe("rows", run, "--out", out)
    assert result.exit_code == 2
    assert "must be those that its models have learned from, found others" in " ".join(result.stderr.split())
    assert not out.exists()
    assert not (run / "graph.building").exists()
    assert {file: file.read_bytes() for file in (run / "graph").rglob("*") if file.is_file()} == before
    assert mgoe("rows", run, "--out", out).exit_code == 0
    assert MacroGraph.open(run / "graph").checksum == MacroGraph.open(finished / "graph").checksum
