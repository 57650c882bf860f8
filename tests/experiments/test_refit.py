"""Weights that learn the newest rows: what each state has learned, what is measured of it, and resuming."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from mgoe import batch, experiments
from mgoe.bundle import Bundle
from mgoe.bundle.training_state import replay_of, start_of
from mgoe.config import RunSettings, TuneSettings
from mgoe.data import SPLITS, ExampleFile, Examples, Prepared, join, prepare
from mgoe.errors import DataError
from mgoe.evaluation import read_rows
from mgoe.experiments.forecast import foresee
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.acceptance import Bounds, check_release
from mgoe.lifecycle.measure import measure_log
from mgoe.metrics import auc
from mgoe.models import make_model, resolve
from mgoe.pipeline import refit as refit_module
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Plan, training_of
from mgoe.pipeline.stages import build
from mgoe.training import CHECKPOINTS, Feed, fit, load_checkpoint, make_spec
from tests.effort import slow
from tests.experiments.test_runs import assert_same
from tests.sharing import Shared

MODELS = ["mgoe", {"name": "ids", "base": "mmoe", "ids": "on"}, "history"]


def asking(small: RunSettings, refit: str = "anew", **changes: Any) -> RunSettings:
    """Settings of two epochs, validation of which chooses."""
    served = {} if "models" in changes else {"serve": "mgoe"}  # on a tiny log, what learns nothing wins
    raw = small.model_dump(mode="json") | {"models": MODELS} | served | changes
    training = small.training.model_dump(mode="json") | {"refit": refit, "epochs": 2}
    return RunSettings.model_validate(raw | {"training": training})


@pytest.fixture(scope="session")
def built(small: RunSettings, shared: Shared) -> Path:
    return shared("refit-built", lambda path: experiments.macro_graph(asking(small), path))


@pytest.fixture(scope="session")
def runs(small: RunSettings, built: Path, shared: Shared) -> dict[str, Path]:
    """The folder of a finished run for each way. Read them only."""

    def make(way: str) -> Callable[[Path], object]:
        def run(path: Path) -> None:
            shutil.copytree(built, path, dirs_exist_ok=True)
            experiments.run(asking(small, way), path, reuse=True)

        return run

    return {way: shared(f"refit-{way}", make(way)) for way in ("none", "anew", "continue")}


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_array_equal(ours[name], theirs[name], name)


@pytest.mark.parametrize("way", ["anew", "continue"])
def test_a_refit_changes_nothing_of_what_validation_saw(runs: dict[str, Path], way: str):
    for name in ("mgoe", "ids", "history"):
        none, cell = (runs[one] / "cells" / name / "0" for one in ("none", way))
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert_equal(load_file(none / file), load_file(cell / file))
        assert (none / "spec.json").read_bytes() == (cell / "spec.json").read_bytes()
        assert not (none / "tested").exists()
        before, after = (read_rows(folder / "metrics.json") for folder in (none, cell))
        valid, test = (
            [[row for row in rows if row["split"] == split] for rows in (before, after)]
            for split in ("valid", "test")
        )
        assert valid[0] == valid[1]
        assert test[0] != test[1]
        maps = [json.loads((folder / "calibration.json").read_text()) for folder in (none, cell)]
        assert maps[0]["valid"] == maps[1]["valid"]
        assert maps[0]["test"] != maps[1]["test"]


def test_tested_weights_are_those_of_a_training_part_that_ends_later(
    small: RunSettings, runs: dict[str, Path], tmp_path: Path
):
    """The same log, cut so that what was validation is training: nothing else knows of a refit."""
    later = asking(small, "none", split={"cuts": [0.4, 0.6, 0.8, 0.9]})
    prepared = prepare(later, tmp_path / "data")
    graph = build(later, prepared, tmp_path / "graph")
    inputs = Inputs(later, prepared, graph)
    for cell in Plan(asking(small), runs["anew"]).cells:
        chosen = json.loads((cell.folder / "fit.json").read_text())["best_epoch"]
        model = inputs.resolve_ids(cell.model)
        spec = inputs.spec_of(model)
        assert spec.to_json() == (cell.folder / "tested" / "spec.json").read_text()
        assert spec.n_users > json.loads((cell.folder / "spec.json").read_text())["n_users"]
        made, folder = make_model(model, spec, 0), tmp_path / cell.variant.name
        train, valid = (
            Feed(prepared, graph, prepared.examples(split), made.needs, spec) for split in ("train", "valid")
        )
        training = later.training.model_copy(update=model.training | {"patience": 9})
        fit(made, train, valid, training, folder, seed=0)
        steps = -(-len(train) // training.batch_size) * chosen
        tensors, _ = load_checkpoint(folder / CHECKPOINTS / f"{steps:010d}.safetensors")
        assert_equal(
            {
                name.removeprefix("model."): tensor.numpy()
                for name, tensor in tensors.items()
                if name.startswith("model.")
            },
            weights(cell.folder / "tested"),
        )


def test_served_weights_have_learned_every_row(small: RunSettings, runs: dict[str, Path], tmp_path: Path):
    run, settings = runs["anew"], asking(small)
    prepared, bundle = Prepared.open(run / "data"), Bundle.open(run / "bundle")
    inputs = Inputs.open(run, settings)
    rows = join([prepared.examples(split) for split in SPLITS])
    spec, model = make_spec(prepared, inputs.graph, learned=SPLITS), inputs.resolve_ids(resolve("mgoe"))
    assert (spec.n_users, spec.n_items) == (prepared.users.size, prepared.items.size)
    made = make_model(model, spec, 0)
    block = Feed(prepared, inputs.graph, rows, made.needs, spec).block(np.arange(len(rows)))
    for name, (mean, std) in spec.moments.items():
        if name in block:
            assert_allclose(mean, block[name].double().mean(0), atol=1e-6)
            assert_allclose(std, block[name].double().std(0, correction=0), atol=1e-6)
    chosen = json.loads((run / "cells/mgoe/0/fit.json").read_text())["best_epoch"]
    feed = Feed(prepared, inputs.graph, rows, made.needs, spec)
    fit(made, feed, None, settings.training, tmp_path, seed=0, epochs=chosen)
    assert_equal(weights(tmp_path), weights(run / "bundle"))
    assert bundle.manifest.weights == "served"
    memory, start = replay_of(bundle), start_of(bundle)
    assert memory is not None
    assert memory.seen == len(rows)
    optimizers = load_file(tmp_path / "optimizer.safetensors")
    assert_equal({name: start[name].numpy() for name in optimizers}, optimizers)


@pytest.mark.parametrize("way", ["none", "anew", "continue"])
def test_rows_of_test_are_predicted_by_tested_weights_and_those_of_validation_by_chosen_ones(
    runs: dict[str, Path], way: str
):
    measured = pd.DataFrame(read_rows(runs[way] / "metrics.json")).query("metric == 'auc' and slice == 'all'")
    for split in ("valid", "test"):
        rows = experiments.rows(runs[way], split)
        for name in ("mgoe", "ids"):
            for task in ("click", "buy"):
                [value] = measured.query("split == @split and model == @name and task == @task")["value"]
                assert_allclose(auc(rows[task].to_numpy(), rows[f"{name}.{task}"].to_numpy()), value)


def test_what_the_map_of_chosen_weights_costs_tested_ones_is_measured(runs: dict[str, Path]):
    """Chosen weights have hardly learned anything after two epochs, and continued ones more: their
    probabilities mean something else, and the map that was carried over makes them worse."""
    of_way = {
        way: {
            (row["metric"], row["task"], row["model"]): row["value"]
            for row in read_rows(run / "metrics.json")
            if (row["split"], row["slice"]) == ("test", "all")
        }
        for way, run in runs.items()
    }
    for task in ("click", "buy"):
        for model in ("mgoe", "ids", "history"):
            assert -1e-9 <= of_way["none"]["carried_over_loss", task, model] < 0.005
        moved = of_way["continue"]
        assert moved["carried_over_loss", task, "mgoe"] > 0.01
    assert moved["logloss_after", "buy", "mgoe"] > moved["logloss", "buy", "mgoe"]


def test_what_lists_are_ordered_by_is_chosen_by_weights_that_have_not_learned_validation(
    small: RunSettings, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Quotas are of no model; the blend is one."""
    seen = []

    def note(model, inputs, calibration):
        seen.append({name: tensor.numpy().copy() for name, tensor in model.state_dict().items()})

    monkeypatch.setattr("mgoe.pipeline.cell_bundle.fit_blend", note)
    out = shutil.copytree(runs["anew"], tmp_path / "run")
    plan = Plan(asking(small), out)
    experiments.runs.write_cell_bundle(tmp_path / "bundle", plan.cells[0], Inputs.open(out, asking(small)))
    assert_equal(seen[0], weights(plan.cells[0].folder))
    assert_equal(weights(tmp_path / "bundle"), weights(plan.cells[0].folder / "served"))


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize(
    ("way", "state", "finished"),
    [
        ("anew", "tested", True),
        ("continue", "served", False),
        pytest.param("anew", "tested", False, marks=slow),
        pytest.param("anew", "served", False, marks=slow),
        pytest.param("continue", "tested", False, marks=slow),
        pytest.param("continue", "tested", True, marks=slow),
    ],
)
def test_a_run_that_is_interrupted_around_a_refit_resumes_to_the_same_result(
    small: RunSettings,
    built: Path,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    state: str,
    finished: bool,
):
    """After the choice, after the refit and before the cell is finished, and before the bundle is written."""
    out, steps = shutil.copytree(built, tmp_path / "run"), []

    def killed(model, feed, valid, training, folder, *more, **how):
        if folder.name == state and finished:
            fit(model, feed, valid, training, folder, *more, **how)
        if folder.name == state:
            raise Killed
        return fit(model, feed, valid, training, folder, *more, **how)

    monkeypatch.setattr(refit_module, "fit", killed)
    with pytest.raises(Killed):
        experiments.run(asking(small, way), out, reuse=True)

    def counted(model, *given, **how):
        result = fit(model, *given, **how)
        steps.append(given[3].name)
        return result

    monkeypatch.setattr(refit_module, "fit", counted)
    experiments.run(asking(small, way), out, reuse=True)
    assert_same(runs[way], out)
    for name in ("mgoe", "ids", "history"):
        folders = (run / "cells" / name / "0" / "tested" for run in (runs[way], out))
        assert_equal(*map(weights, folders))
    assert not [*out.rglob(CHECKPOINTS)]
    assert steps == ["tested"] * 3 * (state == "tested") + ["served"]


def test_an_interrupted_refit_resumes_in_the_middle(
    small: RunSettings, built: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = shutil.copytree(built, tmp_path / "run")
    continued = asking(small, "continue")
    epochs = []

    def killed(model, feed, valid, training, *given, **how):
        if not epochs:  # the first of three epochs only; the schedule is that of all
            epochs.append(fit(model, feed, valid, training, *given, **how | {"epochs": 1}))
            raise Killed
        return fit(model, feed, valid, training, *given, **how)

    monkeypatch.setattr(refit_module, "fit", killed)
    with pytest.raises(Killed):
        experiments.run(continued, out, reuse=True)
    assert len([*(out / "cells/mgoe/0/tested" / CHECKPOINTS).iterdir()]) == 1
    experiments.run(continued, out, reuse=True)
    assert_same(runs["continue"], out)


@slow
def test_weights_that_continue_with_a_rate_of_almost_nothing_are_the_chosen_ones(
    small: RunSettings, built: Path, runs: dict[str, Path], tmp_path: Path
):
    out = shutil.copytree(built, tmp_path / "run")
    experiments.run(asking(small, "continue", retrain={"rate": 1e-9}), out, reuse=True)
    for name in ("mgoe", "ids"):
        chosen, tested = (weights(out / f"cells/{name}/0" / state) for state in ("", "tested"))
        for key in chosen:
            same = slice(None) if chosen[key].shape == tested[key].shape else slice(len(chosen[key]) - 1)
            assert_allclose(tested[key][same], chosen[key][same], atol=1e-5)  # the last row is of the unseen
    larger = [key for key in chosen if chosen[key].shape != tested[key].shape]
    assert larger  # of the second model, which reads ids
    moved = weights(runs["continue"] / "cells/mgoe/0/tested")
    assert any(np.abs(moved[key] - one).max() > 1e-3 for key, one in weights(out / "cells/mgoe/0").items())


def test_boosted_trees_have_as_many_trees_on_more_rows(small: RunSettings, built: Path, tmp_path: Path):
    lightgbm = pytest.importorskip("lightgbm", reason="the extra gbm is not installed")
    out = shutil.copytree(built, tmp_path / "run")
    settings = asking(small, models=["history", "lightgbm"])
    experiments.run(settings, out, reuse=True)
    folder = out / "cells/lightgbm/0"
    for task in small.task_names:
        chosen, tested = (
            lightgbm.Booster(model_file=str(folder / state / f"trees.{task}.txt")) for state in ("", "tested")
        )
        assert chosen.num_trees() == tested.num_trees() > 0
        assert chosen.model_to_string() != tested.model_to_string()
        before, after = (one.trees_to_dataframe().iloc[0]["count"] for one in (chosen, tested))
        assert before < after


def test_a_refit_outdates_cells_and_no_search(small: RunSettings, tmp_path: Path):
    tune, digests = TuneSettings(trials=2, space={}), {}
    for way in ("none", "anew", "continue"):
        plan = Plan(asking(small, way), tmp_path, tune=tune)
        parts = nodes_of(plan, plan.cells[:1])
        digests[way] = {part.kind: part.digest for part in parts}
        noted = {part.kind: part.values for part in parts}
        assert "refit" not in noted["cell"]["training"]  # what chooses is the same
        assert ("refit" in noted["cell"], "retrain" in noted["cell"]) == (way != "none", way == "continue")
    for kind in ("data", "graph", "search"):
        assert len({found[kind] for found in digests.values()}) == 1
    assert len({found["cell"] for found in digests.values()}) == 3


def test_the_paper_keeps_its_protocol_unless_it_is_asked(small: RunSettings):
    ways = {
        name: training_of(asking(small), resolve(name)).refit
        for name in ("mgoe-paper", "mgoe-paper+counts", "mgoe", "mmoe", "lightgbm", "logistic")
    }
    assert {name for name, way in ways.items() if way == "none"} == {"mgoe-paper", "mgoe-paper+counts"}


def test_a_task_that_validation_lacks_is_learned_all_the_same(
    small: RunSettings, world: Path, tmp_path: Path
):
    events = pq.read_table(world / "events").to_pandas().sort_values("timestamp", ignore_index=True)
    settings = asking(small, models=["mgoe"], seeds=[0])
    prepared = prepare(settings, tmp_path / "whole")
    low, high = (prepared.summary["cuts"][window] for window in (1, 2))
    inside = events["timestamp"].astype(str).str.slice(0, 10)
    gone = (events["behavior"] == "buy") & (inside >= low[:10]) & (inside < high[:10])
    pq.write_table(pa.Table.from_pandas(events[~gone]), tmp_path / "log.parquet")
    data = settings.data.model_copy(update={"log": [str(tmp_path / "log.parquet")]})
    cuts = [one[:10] for one in prepared.summary["cuts"]]
    settings = RunSettings.model_validate(
        settings.model_dump(mode="json") | {"data": data.model_dump(mode="json"), "split": {"cuts": cuts}}
    )
    result = experiments.run(settings, tmp_path / "run", reuse=True)
    splits = Prepared.open(tmp_path / "run/data").summary["splits"]
    assert splits["valid"]["tasks"]["buy"]["positives"] == 0 < splits["train"]["tasks"]["buy"]["positives"]
    assert result.bundle.manifest.weights == "served"
    ours = pd.DataFrame(result.rows).query(
        "split == 'test' and slice == 'all' and task == 'buy' and metric == 'auc'"
    )
    assert np.isfinite(ours["value"].to_numpy()).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_streamed_rows_of_several_splits_are_those_of_each_in_their_order(runs: dict[str, Path], number: int):
    prepared, splits = Prepared.open(runs["none"] / "data"), SPLITS[:number]
    whole, file = join([prepared.examples(split) for split in splits]), prepared.within(splits, 1e-5)
    assert isinstance(file, ExampleFile)
    read = prepared.within(splits, 1.0)
    assert isinstance(read, Examples)
    for one, other, streamed in zip(whole.columns(), read.columns(), file.read().columns(), strict=True):
        assert_array_equal(one, other)
        assert_array_equal(one, streamed)
    shuffled = join([*file.ordered(100, (0, 1))])
    every, each = (
        np.lexsort((part.labels[:, 0], part.item, part.user, part.bucket)) for part in (whole, shuffled)
    )
    assert_array_equal(whole.labels[every], shuffled.labels[each])


def test_streamed_rows_are_learned_like_rows_in_memory_but_for_their_order(
    small: RunSettings, built: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shares = dict.fromkeys(SPLITS, 1e-6)
    monkeypatch.setattr("mgoe.pipeline.cell.EXAMPLE_SHARES", shares)
    out = shutil.copytree(built, tmp_path / "run")
    experiments.run(asking(small, models=["history"]), out, reuse=True)
    ours, theirs = (weights(run / "cells/history/0/tested") for run in (out, runs["anew"]))
    for name in ours:
        assert_allclose(ours[name], theirs[name], rtol=0.2, atol=0.2)
        assert not np.array_equal(ours[name], theirs[name])


def test_served_weights_refuse_the_rows_that_they_have_learned(
    small: RunSettings, runs: dict[str, Path], tmp_path: Path
):
    run, file = runs["anew"], tmp_path / "pairs.parquet"
    served, chosen = (Bundle.open(runs[way] / "bundle") for way in ("anew", "none"))
    (rows := experiments.rows(run)).to_parquet(file)
    assert batch.measure_pairs(chosen, str(file))
    with pytest.raises(DataError, match="pairs to measure on must be later than those that the weights have"):
        batch.measure_pairs(served, str(file))
    for others in (rows.drop(columns="timestamp"), rows.assign(timestamp=pd.Timestamp("2100-01-01"))):
        others.to_parquet(file)
        assert batch.measure_pairs(served, str(file))
    test = Prepared.open(run / "data").examples("test")
    assert check_release(chosen, chosen, (test, test), Bounds(requests=2)).rows == len(test)
    for pair in ((served, chosen), (chosen, served)):
        with pytest.raises(DataError, match="must hold rows that neither bundle has learned from"):
            check_release(*pair, (test, test), Bounds(requests=2))
    log = last_rows(small, tmp_path)
    assert measure_log(chosen, log, runs["none"])
    with pytest.raises(DataError, match="must come after those that the model has learned"):
        measure_log(served, log, run)


def last_rows(settings: RunSettings, folder: Path) -> list[str]:
    """Write the newest rows of a log, which are test rows of its run."""
    events = pq.read_table(settings.data.log[0]).to_pandas()
    events[events["timestamp"] > events["timestamp"].quantile(0.95)].to_parquet(folder / "last.parquet")
    return [str(folder / "last.parquet")]


def test_a_bundle_of_before_there_were_states_holds_chosen_weights(
    small: RunSettings, runs: dict[str, Path], tmp_path: Path
):
    bundle = shutil.copytree(runs["none"] / "bundle", tmp_path / "bundle")
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest.pop("weights") == "chosen"
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    log = last_rows(small, tmp_path)
    before, now = (
        measure_log(Bundle.open(path), log, runs["none"]) for path in (bundle, runs["none"] / "bundle")
    )
    assert before == now
    events = pq.read_table(small.data.log[0]).to_pandas()
    events["timestamp"] += events["timestamp"].max() - events["timestamp"].min() + pd.Timedelta("1D")
    events.to_parquet(new := tmp_path / "new.parquet")
    updated = update(bundle, Sources(str(new)), tmp_path / "updated", weights="continue")
    assert updated.manifest.lineage.trained == "retrained"


def test_card_and_report_say_which_weights_are_meant(runs: dict[str, Path]):
    for way in ("none", "anew", "continue"):
        card, report = ((runs[way] / name).read_text() for name in ("bundle/MODEL_CARD.md", "report.html"))
        assert ("*served*" in card, "*tested*" in card) == (way != "none",) * 2
        assert ("Weights have three states." in report) == (way != "none")


def test_a_refit_is_foreseen(small: RunSettings, tmp_path: Path):
    took = {
        way: {one.stage: one.cpu_seconds for one in foresee(asking(small, way), tmp_path).stages}["training"]
        for way in ("none", "anew", "continue")
    }
    assert took["none"] < min(took["anew"], took["continue"])
