"""Runs, end to end, on logs of a second."""

import importlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

import mgoe
from mgoe import experiments
from mgoe.config import RunSettings, dump_settings, make_settings
from mgoe.data import SPLITS
from mgoe.errors import ConfigError, DataError, MissingExtra, OutputError, TrainingError
from mgoe.experiments.report import own_estimates
from mgoe.graph import MacroGraph
from mgoe.lifecycle import forget_in_macro_graph
from mgoe.models import PRESETS
from mgoe.pipeline import cell_results
from mgoe.pipeline.plan import Plan
from mgoe.pipeline.serving_time import time_cell
from tests.effort import SOAK, slow
from tests.sharing import Shared
from tests.spark import SPARK, with_java

SOME = ("mgoe", "popularity", "esmm", "din", "macgnn", "lightgbm")
OF_EVENTS = [name for name in PRESETS if (SOAK or name in SOME) and name not in ("logistic", "rates")]
"""Models that read events, some of them in the short form; the others read what was shown."""
SAME = ("metrics.json", "table.md", "bundle/spec.json", "bundle/users.parquet")


def assert_same(a: Path, b: Path) -> None:
    """Two runs gave the same numbers, to the last digit, and the same bundle."""
    for name in SAME:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    ours, theirs = (load_file(run / "bundle" / "model.safetensors") for run in (a, b))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_array_equal(ours[name], theirs[name], name)


@pytest.fixture(scope="session")
def built(small: RunSettings, shared: Shared) -> Path:
    """The folder of an unfinished run, with its data and its graph. Read it only."""
    return shared("experiments-built", lambda path: experiments.macro_graph(small, path))


@pytest.fixture
def begun(built: Path, tmp_path: Path) -> Path:
    """A copy of it, to be finished."""
    return Path(shutil.copytree(built, tmp_path / "run"))


def change(settings: RunSettings, **changes: object) -> RunSettings:
    return settings.model_copy(update=changes)


def test_a_run_leaves_all_it_promises(finished: Path, small: RunSettings):
    for name in (
        "settings.yaml",
        "metrics.json",
        "leads.json",
        "results.jsonl",
        "report.html",
        "table.md",
        "bundle/bundle.json",
        "bundle.training/replay.safetensors",
    ):
        assert (finished / name).stat().st_size > 0
    cell = (
        "model.safetensors",
        "optimizer.safetensors",
        "spec.json",
        "curves.json",
        "fit.json",
        "metrics.json",
        "reliability.json",
        "calibration.json",
        "population.json",
        "influence.safetensors",
        "influence-valid.safetensors",
    )
    assert {path.name for path in (finished / "cells/mgoe/0").iterdir()} == {
        *cell
    }  # as docs/runs.md lists them
    assert json.loads((finished / "run.json").read_text())["state"] == "finished"
    rows = json.loads((finished / "metrics.json").read_text())
    assert all(set(row) == {"model", "seed", "split", "slice", "task", "metric", "value"} for row in rows)
    assert {row["model"] for row in rows} == {"mgoe", "shared-bottom"}
    assert {row["split"] for row in rows} == {"valid", "test"}
    assert {"auc", "gauc", "logloss", "calibration_error", "predicted_over_observed", "hr@10", "ndcg@50"} <= {
        row["metric"] for row in rows
    }
    keys = [tuple(row[key] for key in ("model", "seed", "split", "slice", "task", "metric")) for row in rows]
    assert len(keys) == len(set(keys))
    assert mgoe.load(finished / "bundle").settings == small


@pytest.mark.parametrize(
    ("asked", "extra"),
    [
        ({"training": {"track": "mlflow"}}, "track"),
        ({"models": ["mgoe", "lightgbm"]}, "gbm"),
    ],
)
def test_a_library_that_training_misses_is_named_before_the_log_is_read(
    small: RunSettings, tmp_path: Path, monkeypatch, asked, extra
):
    def missing(name: str):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    from mgoe.experiments.runs import run

    with pytest.raises(MissingExtra, match=rf"pip install -e '.\[{extra}\]'"):
        run(make_settings(small.model_dump() | asked), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_simulated_log_gets_chance_and_the_best_reachable(
    small: RunSettings, world: Path, finished: Path, tmp_path: Path
):
    settings = change(
        small, models=["shared-bottom"], data=small.data.model_copy(update={"truth": str(world / "truth")})
    )
    rows = experiments.run(settings, tmp_path / "run").rows
    where = ("test", "all", "click", "auc")
    auc = {
        row["model"]: row["value"]
        for row in rows
        if tuple(row[key] for key in ("split", "slice", "task", "metric")) == where
    }
    assert auc["chance"] == 0.5
    assert auc["best-reachable"] > max(0.6, auc["shared-bottom"])


def test_every_preset_goes_through_the_line(small: RunSettings, begun: Path):
    pytest.importorskip("lightgbm", reason="lightgbm is not installed: pip install -e '.[gbm]'")
    evaluation = small.evaluation.model_copy(update={"ranking_queries": 3})
    settings = change(
        small,
        models=["mgoe", *(name for name in OF_EVENTS if name != "mgoe"), "ple+mgoe"],
        serve="mgoe",
        evaluation=evaluation,
    )
    rows = experiments.run(settings, begun).rows
    auc = {
        row["model"]: row["value"]
        for row in rows
        if (row["split"], row["slice"], row["task"], row["metric"]) == ("test", "all", "click", "auc")
    }
    assert set(auc) == {*OF_EVENTS, "ple+mgoe"}
    assert all(0.3 < value < 1 for value in auc.values())
    facts = [json.loads(path.read_text()) for path in (begun / "cells").glob("*/0/fit.json")]
    assert all(of_cell["parameters"] > 0 and of_cell["samples_per_second"] > 0 for of_cell in facts)
    trees = begun / "cells" / "lightgbm" / "0"
    assert {path.name for path in trees.glob("trees.*")} == {"trees.click.txt", "trees.buy.txt"}
    [boosted] = [cell for cell in Plan(settings, begun).cells if cell.folder == trees]
    assert time_cell(boosted, requests=1) > 0
    assert json.loads((trees / "fit.json").read_text())["serving_engine"] == "lightgbm"
    assert mgoe.load(begun / "bundle").manifest.model.name == "mgoe"


def test_boosted_trees_are_refused_where_a_bundle_is_to_be_written(small: RunSettings, tmp_path: Path):
    settings = change(small, models=["lightgbm", "mgoe"])
    for attempt in (
        lambda: experiments.run(settings, tmp_path / "run"),
        lambda: experiments.train(settings, tmp_path / "run"),
        lambda: experiments.train(
            change(small, models=["mgoe", "lightgbm"]), tmp_path / "run", model="lightgbm"
        ),
    ):
        with pytest.raises(
            ConfigError, match=r"models.lightgbm: a bundle holds a model of weights, found boosted trees"
        ):
            attempt()
    assert not (tmp_path / "run").exists()


def test_an_exposure_log_is_measured_on_every_task(shown: Path):
    rows = json.loads((shown / "metrics.json").read_text())
    assert {"rmse", "mae", "spearman"} <= {row["metric"] for row in rows if row["task"] == "stay"}
    assert {row["task"] for row in rows} == {"click", "buy", "stay", "all"}


def test_the_same_settings_give_the_same_result_in_any_number_of_processes(
    small: RunSettings, finished: Path, begun: Path
):
    experiments.run(change(small, jobs=2), begun)
    assert_same(finished, begun)


def test_a_run_starts_from_yaml_as_from_settings(
    small: RunSettings, finished: Path, begun: Path, tmp_path: Path
):
    (tmp_path / "small.yaml").write_text(dump_settings(small))
    result = mgoe.run(tmp_path / "small.yaml", begun)
    assert_same(finished, begun)
    assert set(result.metrics["model"]) == {"mgoe", "shared-bottom"}
    assert "mgoe" in repr(result)
    assert result.bundle.tasks == ("click", "buy")


def test_the_run_in_parts_is_the_run_and_small(
    small: RunSettings, finished: Path, world: Path, tmp_path: Path
):
    out = tmp_path / "run"
    experiments.macro_graph(small, out)
    rows = experiments.train(small, out, model="shared-bottom")
    assert {row["model"] for row in rows} == {"shared-bottom"}
    assert mgoe.load(out / "bundle").manifest.model.name == "shared-bottom"
    assert experiments.measured(out) == rows
    experiments.run(small, out)
    assert_same(finished, out)
    assert {lead.baseline for lead in experiments.leads(out)} == {"shared-bottom"}
    assert [path.name for path in (out / "graph" / "snapshots").iterdir()] == ["00"]
    MacroGraph.open(out / "graph").verify()
    sizes = {(stat := file.stat()).st_ino: stat.st_size for file in out.rglob("*") if file.is_file()}
    assert sum(sizes.values()) < 100 * sum(file.stat().st_size for file in (world / "events").iterdir())
    pd.testing.assert_frame_equal(experiments.rows(out), experiments.rows(finished))  # of an earlier snapshot
    assert MacroGraph.open(out / "graph").checksum == MacroGraph.open(finished / "graph").checksum


def test_mlflow_gets_settings_test_metrics_and_the_bundle_in_one_run(
    small: RunSettings, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    training = small.training.model_copy(update={"track": "mlflow"})
    settings = change(small, models=["popularity"], training=training)
    track = cell_results.track_result
    with monkeypatch.context() as patch:  # killed after the fit
        patch.setattr(cell_results, "track_result", lambda *how: (track(*how), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            experiments.train(settings, begun)
    experiments.train(settings, begun)
    rows = experiments.train(settings, begun)  # it is finished
    measured = {row["metric"] for row in rows}
    assert (measured >= {"auc", "logloss_after"}, "logloss" in measured) == (True, False), "no probabilities"
    client = importlib.import_module("mlflow").MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    expected = {
        "training.batch_size": "1024",
        "tasks.1.name": "buy",
        "model.base": "popularity",
        "seed": "0",
    }
    assert expected.items() <= run.data.params.items()
    on_test = {
        f"test.{row['task']}.{row['metric'].replace('@', '_at_')}": row["value"]
        for row in rows
        if (row["split"], row["slice"]) == ("test", "all") and row["value"] == row["value"]
    }
    assert "test.all.ndcg_at_50" in on_test
    assert {name: one for name, one in run.data.metrics.items() if name[:5] == "test."} == on_test
    files = {file.path for file in client.list_artifacts(run.info.run_id, "bundle")}
    assert files == {f"bundle/{file.name}" for file in (begun / "bundle").iterdir()}


def test_a_finished_folder_is_refused_without_overwrite(small: RunSettings, finished: Path):
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(OutputError, match="holds a finished run"):
        experiments.run(small, finished)
    assert (finished / "metrics.json").read_bytes() == before


def test_an_unfinished_run_of_other_settings_is_refused(small: RunSettings, begun: Path):
    other = change(small, graph=small.graph.model_copy(update={"rank": 4}))
    with pytest.raises(OutputError, match=r"graph: was made with another `graph\.rank`"):
        experiments.run(other, begun)


def test_a_log_that_changed_is_not_mistaken_for_the_old_one(small: RunSettings, world: Path, tmp_path: Path):
    """By what its files hold: a copy elsewhere with other times is the same log."""
    log = Path(shutil.copytree(world / "events", tmp_path / "log"))
    settings = change(small, data=small.data.model_copy(update={"log": [str(log)]}))
    whole = change(settings, graph=small.graph.model_copy(update={"snapshots": "last"}))
    experiments.macro_graph(settings, tmp_path / "run")
    experiments.macro_graph(whole, tmp_path / "whole")
    for file in log.iterdir():
        file.touch()
    experiments.macro_graph(settings, tmp_path / "run")
    pd.concat([events := pd.read_parquet(log), events.head(1)]).to_parquet(next(log.iterdir()))
    for asked, out in ((settings, "run"), (whole, "whole")):
        with pytest.raises(OutputError, match="of another log"):
            experiments.macro_graph(asked, tmp_path / out)
    shutil.rmtree(log)  # what was made of it needs it no more
    experiments.macro_graph(settings, tmp_path / "run")
    shutil.copytree(world / "events", log)
    pd.concat([events, events.head(1)]).to_parquet(next(log.iterdir()))
    with pytest.raises(OutputError, match="of another log"):
        experiments.macro_graph(settings, tmp_path / "run")


def test_cells_do_not_come_under_other_settings(small: RunSettings, begun: Path):
    experiments.train(small, begun)
    for part in ("data", "graph"):
        shutil.rmtree(begun / part)
    training = small.training.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(OutputError, match=r"mgoe/0: was made with another `training\.learning_rate`"):
        experiments.run(change(small, training=training), begun)
    assert experiments.measured(begun)


def test_a_graph_that_was_changed_is_not_that_of_the_examples(small: RunSettings, begun: Path):
    experiments.train(small, begun, model="shared-bottom")
    forget_in_macro_graph(begun, mgoe.load(begun / "bundle").encoders.users.ids([0]).to_pylist())
    with pytest.raises(OutputError, match="was changed since it was built"):
        experiments.run(small, begun)
    assert experiments.measured(begun)


def test_an_old_run_that_is_being_removed_does_not_come_back(
    small: RunSettings, finished: Path, tmp_path: Path, monkeypatch
):
    """Cut off while the replaced run goes, file by file: the new one stays."""
    out, remove = shutil.copytree(finished, tmp_path / "run"), shutil.rmtree
    settings = change(small, models=["shared-bottom"])

    def cut_off(path: Path | str, **how: bool) -> None:
        there = Path(path).exists()
        remove(path, **how)
        if there and Path(path).name.startswith(".run."):
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            experiments.macro_graph(settings, out, overwrite=True)
    made = (out / "data" / "data.json").stat().st_mtime_ns
    experiments.macro_graph(settings, out)
    assert (out / "data" / "data.json").stat().st_mtime_ns == made
    assert not (out / "cells").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_process_that_is_killed_is_one_sentence(
    small: RunSettings, begun: Path, monkeypatch: pytest.MonkeyPatch
):
    """As the system kills one for want of memory."""

    def kill_one(running: list[Connection]) -> list:
        multiprocessing.active_children()[0].kill()
        return wait(running)

    monkeypatch.setattr("mgoe._util.processes.wait", kill_one)
    with pytest.raises(
        TrainingError, match="jobs: a process of 2 was killed; memory may have run out: take fewer"
    ):
        experiments.run(change(small, jobs=2), begun)


def test_a_run_that_failed_at_once_does_not_stand_in_the_way(small: RunSettings, tmp_path: Path):
    missing = small.data.model_copy(update={"user": "user"})
    with pytest.raises(DataError, match="did you mean 'user_id'"):
        experiments.run(change(small, data=missing), tmp_path / "run")
    experiments.macro_graph(small, tmp_path / "run")


def test_overwrite_that_fails_leaves_the_old_run(small: RunSettings, finished: Path, tmp_path: Path):
    out = shutil.copytree(finished, tmp_path / "run")
    missing = small.data.model_copy(update={"log": ["nowhere.parquet"]})
    with pytest.raises(DataError, match="no such file"):
        experiments.run(change(small, data=missing), out, overwrite=True)
    assert_same(finished, out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_overwrite_replaces(small: RunSettings, finished: Path, tmp_path: Path):
    out = shutil.copytree(finished, tmp_path / "run")
    experiments.run(change(small, models=["shared-bottom"]), out, overwrite=True)
    assert {path.name for path in (out / "cells").iterdir()} == {"shared-bottom"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_files_of_others_are_never_touched(small: RunSettings, tmp_path: Path, overwrite: bool):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="no run of mgoe wrote"):
        experiments.run(small, tmp_path, overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="must be a folder"):
        experiments.run(small, tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_made_is_refused(small: RunSettings, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose a folder you may write"):
        experiments.run(small, tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_refused(small: RunSettings, tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="choose a folder you may write"):
        experiments.run(small, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"models": ["mgeo"]}, ConfigError, "did you mean 'mgoe'"),
        ({"models": ["mgoe", "mgoe"]}, ConfigError, "found 'mgoe' twice"),
        ({"training": {"monitor": "bye.auc"}}, TrainingError, "did you mean 'buy.auc'"),
        (
            {"models": [{"name": "a", "base": "mgoe", "training": {"epoch": 3}}]},
            ConfigError,
            "did you mean 'epochs'",
        ),
    ],
)
def test_names_are_checked_before_any_work(
    small: RunSettings, tmp_path: Path, changes: dict, error: type, sentence: str
):
    settings = RunSettings.model_validate(small.model_dump() | changes)
    with pytest.raises(error, match=sentence):
        experiments.run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_nothing_draws_with_is_refused_before_any_work(
    small: RunSettings, tmp_path: Path, seed: int
):
    with pytest.raises(
        ConfigError, match=f"seed: must lie between 0 and 2147483647, found {seed}; leave it out"
    ):
        experiments.train(small, tmp_path / "run", seed=seed)
    assert not (tmp_path / "run").exists()


@slow
def test_an_error_in_a_training_process_arrives_whole(small: RunSettings, begun: Path):
    training = small.training.model_copy(update={"learning_rate": 1e30, "epochs": 3, "batch_size": 256})
    with pytest.raises(TrainingError, match="lower training"):
        experiments.run(change(small, training=training, jobs=2), begun)


STAGES = (
    "data",
    "graph.building",
    "graph",
    "cells/mgoe/0/model.safetensors",
    "cells/mgoe/0/metrics.json",
    "metrics.json",
    "report.html",
)


@slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_when_a_file_appears_resumes_to_the_same_result(
    small: RunSettings, finished: Path, tmp_path: Path, stage: str
):
    with _started(small, tmp_path) as process:
        while not (tmp_path / "run" / stage).exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert_resumes(small, finished, tmp_path / "run")


@slow
@pytest.mark.parametrize("delay", np.random.default_rng(0).uniform(1, 8, 20 if SOAK else 1))
def test_a_run_killed_at_any_moment_resumes_to_the_same_result(
    small: RunSettings, finished: Path, tmp_path: Path, delay: float
):
    with _started(small, tmp_path) as process:
        time.sleep(delay)
        process.kill()
    assert_resumes(small, finished, tmp_path / "run")


@slow
@with_java
@pytest.mark.parametrize("delay", np.random.default_rng(1).uniform(3, 45, 15))
def test_a_run_on_spark_killed_at_any_moment_resumes_to_the_same_result(
    spark: object, small: RunSettings, finished: Path, tmp_path: Path, delay: float
):
    """Log and graph are prepared on Spark, and resumed on the session of the tests."""
    engine = {"engine": "spark"}
    settings = change(
        small,
        spark=SPARK,
        data=small.data.model_copy(update=engine),
        graph=small.graph.model_copy(update=engine),
    )
    with _started(settings, tmp_path) as process:
        time.sleep(delay)
        process.kill()
    assert_resumes(settings, finished, tmp_path / "run")


def _started(settings: RunSettings, folder: Path) -> subprocess.Popen:
    (folder / "small.yaml").write_text(dump_settings(settings))
    command = [sys.executable, "-m", "mgoe", "run", str(folder / "small.yaml"), "--out", str(folder / "run")]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def assert_resumes(settings: RunSettings, finished: Path, out: Path) -> None:
    if not out.exists() or json.loads((out / "run.json").read_text())["state"] == "unfinished":
        experiments.run(settings, out)
    assert_same(finished, out)
    assert not [
        path
        for path in out.rglob("*")
        if path.name.endswith((".tmp", ".part", ".partial", ".building", ".lock"))
    ]


def test_labels_permuted_within_every_split_of_exposures_give_chance(
    world: Path, exposures: RunSettings, tmp_path: Path
):
    """History and features know nothing of the label of an example: shuffled over the exposures of its split,
    nothing ranks it."""
    log = pd.read_parquet(world / "exposures")
    part = np.searchsorted(
        np.array(["2025-03-19", "2025-03-25"], "datetime64[ms]"), log["timestamp"].to_numpy(), side="right"
    )
    labels = log[["click", "buy"]].to_numpy(copy=True)
    for number in range(3):
        rows = np.flatnonzero(part == number)
        labels[rows] = labels[np.random.default_rng(number).permutation(rows)]
    log[["click", "buy"]] = labels
    log.to_parquet(tmp_path / "log.parquet")
    settings = RunSettings.model_validate(
        exposures.model_dump()
        | {
            "data": {"log": str(tmp_path / "log.parquet")},
            "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy"}],
            "split": {"cuts": ["2025-03-13", "2025-03-19", "2025-03-25"]},
            "training": {"epochs": 2, "batch_size": 512},
        }
    )
    assert_chance(settings, tmp_path / "run")


def test_labels_permuted_within_every_split_of_events_give_chance(small: RunSettings, begun: Path):
    """Sampled negatives differ from positives in nothing but their label; no model finds more."""
    pytest.importorskip("lightgbm", reason="lightgbm is not installed: pip install -e '.[gbm]'")
    small = change(small, models=OF_EVENTS if SOAK else ["mgoe", "macgnn", "lightgbm"])
    manifest = json.loads((begun / "data" / "data.json").read_text())
    for number, split in enumerate(SPLITS):
        file = begun / "data" / f"{split}.parquet"
        examples = pd.read_parquet(file)
        labels = [column for column in examples if column.startswith("label.")]
        examples[labels] = examples[labels].to_numpy()[
            np.random.default_rng(number).permutation(len(examples))
        ]
        examples.to_parquet(file, index=False)
        manifest["files"][file.name] = file.stat().st_size
    (begun / "data" / "data.json").write_text(json.dumps(manifest))
    assert_chance(small, begun)


def assert_chance(settings: RunSettings, out: Path) -> None:
    """AUC and GAUC of every model and task are .5 within their 99.9 % interval on test."""
    experiments.run(settings, out)
    for one in own_estimates(Plan(settings, out)):
        if one.metric in ("auc", "gauc"):
            assert abs(one.value - 0.5) < 1.7 * (one.high - one.low) / 2, one
