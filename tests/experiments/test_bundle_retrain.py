"""A bundle whose weights learn from new rows: what changes, what does not, and what a kill leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mgoe
from mgoe import experiments
from mgoe._util.files import sha256
from mgoe.bundle import CARD, Bundle, ages
from mgoe.errors import BundleError, ConfigError, DataError
from mgoe.experiments.new_files import known_rows
from mgoe.experiments.training_state import REPLAY, WAITING, state_folder, waiting_of
from mgoe.serving import open_events
from mgoe.training import OPTIMIZER, WEIGHTS, Replay, load_checkpoint
from tests.experiments.test_bundle_refresh import stream
from tests.experiments.test_refresh_from_files import later


@pytest.fixture(scope="module")
def new(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New events in a file, some of them of a new user and a new item."""
    file = later(world / "events", tmp_path_factory.mktemp("new") / "new.parquet")
    rows = pd.read_parquet(file)
    newcomers = rows.tail(40).assign(user_id=10_000, item_id=20_000)
    pd.concat([rows, newcomers]).to_parquet(file)
    return file


@pytest.fixture(scope="module")
def retrained(finished: Path, new: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("retrained") / "bundle"
    return experiments.retrain(finished / "bundle", None, out, log=[str(new)])


MODULE = "mgoe.experiments.bundle_retrain"


def delayed(bundle: Bundle, delay: str) -> None:
    """Change when the labels of a bundle's log are known."""
    for task in bundle.graph.meta["log"]["tasks"]:
        task["delay"] = delay
    (bundle.graph.path / "graph.json").write_text(json.dumps(bundle.graph.meta))
    bundle.manifest["checksums"]["graph/graph.json"] = sha256(bundle.graph.path / "graph.json")
    (bundle.path / "bundle.json").write_text(json.dumps(bundle.manifest))


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return load_checkpoint(bundle.path / WEIGHTS)[0]


def test_weights_learn_and_the_graph_holds_the_rows(finished: Path, retrained: Bundle):
    before = mgoe.load(finished / "bundle")
    Bundle.open(retrained.path, verify=True).graph.verify()
    assert any((weights(before)[name] != now).any() for name, now in weights(retrained).items())
    assert retrained.size("user") == before.size("user") + 1 == retrained.model.spec.n_users
    assert retrained.graph.meta["changes"][-1]["events"] > 0
    found = retrained.manifest["lineage"]
    assert (found["parent"], found["trained"]) == (before.name, "retrained")
    held = retrained.predict([10_000, 11_111], [20_000, 22_222])[list(retrained.tasks)].to_numpy()
    assert np.isfinite(held).all()
    assert (held[0] != held[1]).all()


def test_only_what_a_retraining_is_for_changes(finished: Path, retrained: Bundle):
    before = mgoe.load(finished / "bundle")
    same = {"model", "tasks", "log", "fully_trained_until", "versions", "format"}
    assert {name: before.manifest[name] for name in same} == {name: retrained.manifest[name] for name in same}
    assert retrained.settings.data.log[:-1] == before.settings.data.log
    assert retrained.calibration != before.calibration
    assert retrained.manifest["trained_until"] == retrained.manifest["lineage"]["log"][1]
    found = ages(retrained)
    assert found["weights age seconds"] == found["graph age seconds"] < found["full training age seconds"]
    assert found["full training age seconds"] == pytest.approx(ages(before)["weights age seconds"], abs=60)


def test_a_table_row_that_no_example_reads_stays(finished: Path, new: Path, retrained: Bundle):
    """Rows are appended, and the last one, of unseen nodes, stays the last."""
    before, after = weights(mgoe.load(finished / "bundle")), weights(retrained)
    for name in [name for name in before if before[name].shape != after[name].shape]:
        assert len(after[name]) > len(before[name])
        assert torch.equal(after[name][-1], before[name][-1])


def test_state_lies_beside_the_bundle_and_is_never_served(finished: Path, retrained: Bundle):
    before, after = state_folder(finished / "bundle"), state_folder(retrained.path)
    for folder in (before, after):
        assert {OPTIMIZER, REPLAY} == {file.name for file in folder.iterdir()}
    assert not {OPTIMIZER, REPLAY} & {file.name for file in retrained.path.rglob("*")}
    assert Replay.load(after / REPLAY).seen > Replay.load(before / REPLAY).seen


class Killed(BaseException):
    """Stands for a kill, after which nothing is written."""


@pytest.mark.parametrize("moment", ["training", "after it"])
def test_killed_and_resumed_is_as_uninterrupted(
    moment: str, finished: Path, new: Path, retrained: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*_: object, **__: object) -> None:
        raise Killed

    place = {"training": "mgoe.training.loop._Fit.validate", "after it": f"{MODULE}.finish"}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(place, kill)
        with pytest.raises(Killed):
            experiments.retrain(finished / "bundle", None, tmp_path / "bundle", log=[str(new)])
    assert not (tmp_path / "bundle").exists()
    resumed = experiments.retrain(finished / "bundle", None, tmp_path / "bundle", log=[str(new)])
    one, other = weights(retrained), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.manifest["calibration"] == retrained.manifest["calibration"]
    for name in (OPTIMIZER, REPLAY):
        files = [load_checkpoint(state_folder(bundle.path) / name)[0] for bundle in (retrained, resumed)]
        assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.training"]


def test_without_new_rows_nothing_changes(finished: Path, world: Path, tmp_path: Path):
    log = open_events(tmp_path / "state")
    with pytest.raises(BundleError, match="holds every event"):
        experiments.retrain(finished / "bundle", log, tmp_path / "bundle")
    with pytest.raises(DataError, match="must come after those that the bundle holds"):
        experiments.retrain(finished / "bundle", None, tmp_path / "bundle", log=[str(world / "events")])
    empty = pd.read_parquet(world / "events").head(0)
    empty.to_parquet(tmp_path / "empty.parquet")
    files = [str(tmp_path / "empty.parquet")]
    with pytest.raises(DataError, match="must hold rows"):
        experiments.retrain(finished / "bundle", None, tmp_path / "bundle", log=files)
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == []


def test_live_events_are_learned_from_once(finished: Path, tmp_path: Path):
    before, log = mgoe.load(finished / "bundle"), open_events(tmp_path / "state")
    log.append(stream(before, 400))
    lines: list[str] = []
    bundle = experiments.retrain(before.path, tmp_path / "state", tmp_path / "bundle", say=lines.append)
    assert any("replayed ones" in line for line in lines)
    with pytest.raises(BundleError, match="holds every event"):
        experiments.retrain(bundle.path, tmp_path / "state", tmp_path / "next")


def test_exposures_wait_for_their_labels(shown: Path, world: Path, tmp_path: Path):
    """Those of the last hours, whose labels are not known yet, are learned from with the next log."""
    bundle = Bundle.open(shutil.copytree(shown / "bundle", tmp_path / "first"))
    delayed(bundle, "12h")
    rows = pd.read_parquet(later(world / "exposures", tmp_path / "rows.parquet"))
    moved = pd.Timestamp.now() - rows["timestamp"].max()
    rows = rows.assign(timestamp=rows["timestamp"] + moved)
    rows.to_parquet(tmp_path / "new.parquet")
    lines: list[str] = []
    second = experiments.retrain(
        bundle.path, None, tmp_path / "second", log=[str(tmp_path / "new.parquet")], say=lines.append
    )
    fresh = rows["timestamp"] > pd.Timestamp.now() - pd.Timedelta("12h")
    held = pd.concat(pd.read_parquet(file) for file in state_folder(second.path).glob(WAITING))
    assert 0 < int(fresh.sum()) < len(rows)
    assert abs(len(held) - int(fresh.sum())) < 5  # time went on meanwhile
    assert any("is a file missing?" in line for line in lines)
    assert any("a full training is due: the log has gone on" in line for line in lines)
    assert "and the weights were retrained" in (second.path / CARD).read_text()
    (tmp_path / "work").mkdir()
    held.head(10).assign(click=1 - held["click"].head(10)).to_parquet(tmp_path / "next.parquet")
    log, later_on = [str(tmp_path / "next.parquet")], 2**57
    found, left = known_rows(second, log, waiting_of(second), tmp_path / "work", later_on)
    exposures = pd.concat(map(pd.read_parquet, found))
    assert left == []
    assert len(exposures) == len(held)  # each once, with its newest labels
    assert exposures["click"].sum() == 10 - held["click"].head(10).sum() + held["click"].iloc[10:].sum()


def test_a_full_training_starts_from_the_whole_log(
    finished: Path, new: Path, retrained: Bundle, tmp_path: Path
):
    with pytest.raises(ConfigError, match="trains on files"):
        experiments.retrain(retrained.path, tmp_path / "state", tmp_path / "bundle", full=True)
    more = pd.read_parquet(new)
    span = more["timestamp"].max() - more["timestamp"].min() + pd.Timedelta("1d")
    more.assign(timestamp=more["timestamp"] + span).to_parquet(tmp_path / "more.parquet")
    log = [str(tmp_path / "more.parquet")]
    bundle = experiments.retrain(retrained.path, None, tmp_path / "bundle", log=log, full=True)
    assert (bundle.manifest["lineage"]["parent"], bundle.manifest["lineage"]["trained"]) == (None, "full")
    assert bundle.settings.data.log == [*retrained.settings.data.log, *log]
    assert bundle.graph.meta["events"] > retrained.graph.meta["events"]
    assert bundle.manifest["model"] == retrained.manifest["model"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.training", "more.parquet"]


def test_too_few_rows_are_refused(finished: Path, new: Path, tmp_path: Path):
    pd.read_parquet(new).head(3).to_parquet(tmp_path / "few.parquet")
    with pytest.raises(DataError, match="must be enough to learn from"):
        experiments.retrain(
            finished / "bundle", None, tmp_path / "bundle", log=[str(tmp_path / "few.parquet")]
        )
    assert [path.name for path in tmp_path.iterdir()] == ["few.parquet"]
