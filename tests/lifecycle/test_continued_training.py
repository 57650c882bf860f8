"""A bundle whose weights learn from new rows: what changes, what does not, and what a kill leaves."""

import math
import os
import shutil
import time
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe._util.files import sha256
from mgoe.bundle import CARD, Bundle
from mgoe.bundle.training_state import REPLAY, state_folder
from mgoe.config import dump_settings
from mgoe.errors import BundleError, ConfigError, DataError, TrainingError
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.new_rows import NewRows
from mgoe.serving import open_log
from mgoe.training import OPTIMIZER, WEIGHTS, ProcessGroup, Replay, load_checkpoint
from tests.effort import SOAK, slow, up_to
from tests.lifecycle.test_update import stream
from tests.lifecycle.test_update_from_files import later
from tests.sharing import Shared
from tests.training.distributed.side_by_side import together


@pytest.fixture(scope="session")
def new(world: Path, shared: Shared) -> Path:
    """New events in a file, some of them of a new user and a new item."""

    def make(folder: Path) -> None:
        folder.mkdir()
        rows = pd.read_parquet(later(world / "events", folder / "new.parquet"))
        newcomers = rows.tail(40).assign(user_id=10_000, item_id=20_000)
        pd.concat([rows, newcomers]).to_parquet(folder / "new.parquet")

    return shared("experiments-new", make) / "new.parquet"


class Killed(BaseException):
    """Stands for a kill, after which nothing is completed."""


class Fuse:
    """Lets so many files and folders be completed, then kills: each of them is completed by `os.replace`."""

    def __init__(self, left: float = math.inf):
        self.used, self.left, self.replace = 0, left, os.replace

    def __call__(self, *paths: Path | str) -> None:
        if self.used >= self.left:
            raise Killed
        self.used += 1
        self.replace(*paths)


@pytest.fixture(scope="session")
def counted(finished: Path, new: Path, shared: Shared) -> tuple[Bundle, int]:
    """A retrained bundle, and the number of files and folders that were completed for it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        fuse = Fuse()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", fuse)
            update(finished / "bundle", Sources(str(new)), folder / "bundle", weights="continue")
        (folder / "completed").write_text(str(fuse.used))

    folder = shared("experiments-retrained", make)
    return mgoe.load(folder / "bundle"), int((folder / "completed").read_text())


@pytest.fixture(scope="session")
def retrained(counted: tuple[Bundle, int]) -> Bundle:
    return counted[0]


MODULE = "mgoe.lifecycle.bundle_update"
HOUR = 3_600_000_000


def delayed(bundle: Bundle, delay: str) -> None:
    """Change when the labels of a bundle's log are known."""
    for task in bundle.graph.manifest.log["tasks"]:
        task["delay"] = delay
    bundle.graph.manifest.write(bundle.graph.path)
    tasks = [task.model_copy(update={"delay": delay}) for task in bundle.settings.tasks]
    settings = dump_settings(bundle.settings.model_copy(update={"tasks": tasks}))
    (bundle.path / "settings.yaml").write_text(settings)
    sums = {name: sha256(bundle.path / name) for name in ("graph/graph.json", "settings.yaml")}
    sums = bundle.manifest.checksums | sums
    bundle.manifest.model_copy(update={"checksums": sums}).save(bundle.path)


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    return load_checkpoint(bundle.path / WEIGHTS)[0]


def test_weights_learn_and_the_graph_holds_the_rows(finished: Path, retrained: Bundle):
    before = mgoe.load(finished / "bundle")
    Bundle.open(retrained.path, verify=True).graph.verify()
    assert any((weights(before)[name] != now).any() for name, now in weights(retrained).items())
    assert retrained.size("user") == before.size("user") + 1 == retrained.model.spec.n_users
    assert retrained.graph.manifest.changes[-1]["events"] > 0
    found = retrained.manifest.lineage
    assert (found.parent, found.trained) == (before.name, "retrained")
    held = retrained.predict([10_000, 11_111], [20_000, 22_222])[list(retrained.tasks)].to_numpy()
    assert np.isfinite(held).all()
    assert (held[0] != held[1]).all()


def test_the_graph_is_that_of_a_refresh_that_learns_macro_nodes_again(
    finished: Path, retrained: Bundle, new: Path, tmp_path: Path
):
    learned = update(finished / "bundle", Sources(str(new)), tmp_path / "again")
    stale = update(finished / "bundle", Sources(str(new)), tmp_path / "stale", groups="keep")
    assert retrained.graph.drift == 0 < stale.graph.drift
    for name in ("files", "cuts", "pairs", "events"):
        assert getattr(retrained.graph.manifest, name) == getattr(learned.graph.manifest, name)


def test_only_what_a_retraining_is_for_changes(finished: Path, retrained: Bundle):
    before = mgoe.load(finished / "bundle")
    same = {"model", "tasks", "log", "fully_trained_until", "versions", "format"}
    assert before.manifest.model_dump(include=same) == retrained.manifest.model_dump(include=same)
    assert retrained.settings.data.log[:-1] == before.settings.data.log
    assert retrained.calibration != before.calibration
    assert retrained.manifest.trained_until == retrained.manifest.lineage.log[1]
    found = retrained.ages()
    assert found["weights age seconds"] == found["graph age seconds"] < found["full training age seconds"]
    assert found["full training age seconds"] == pytest.approx(before.ages()["weights age seconds"], abs=60)


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


def same_bundle(one: Bundle, other: Bundle) -> None:
    """Both hold the same weights, graph and calibration, and the same training state lies beside them."""
    for name in ("calibration", "trained_until", "due", "model"):
        assert getattr(one.manifest, name) == getattr(other.manifest, name)
    assert one.graph.manifest.checksum == other.graph.manifest.checksum
    pairs = [[bundle.path / WEIGHTS for bundle in (one, other)]]
    pairs += [[state_folder(bundle.path) / name for bundle in (one, other)] for name in (OPTIMIZER, REPLAY)]
    for files in pairs:
        mine, theirs = (load_checkpoint(file)[0] for file in files)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@up_to(2)
@given(share=st.floats(0, 1, exclude_max=True))
def test_killed_at_any_moment_and_resumed_is_as_uninterrupted(
    share: float,
    finished: Path,
    new: Path,
    counted: tuple[Bundle, int],
    tmp_path_factory: pytest.TempPathFactory,
):
    retrained, completed = counted
    folder = tmp_path_factory.mktemp("killed")
    call = partial(update, finished / "bundle", Sources(str(new)), folder / "bundle", weights="continue")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", Fuse(int(share * completed)))
        with pytest.raises(Killed):
            call()
    same_bundle(call(overwrite=True), retrained)  # it may be complete, and the kill came after it
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "bundle.training"]


@up_to(2)
@given(steps=st.lists(st.sampled_from(["keep", "continue"]), min_size=1, max_size=3))
def test_lineage_leads_back_to_a_full_training(
    steps: list[Literal["keep", "continue"]],
    finished: Path,
    new: Path,
    tmp_path_factory: pytest.TempPathFactory,
):
    rows, folder = pd.read_parquet(new), tmp_path_factory.mktemp("lineage")
    span = rows["timestamp"].max() - rows["timestamp"].min() + pd.Timedelta(days=1)
    made = [mgoe.load(finished / "bundle")]
    for number, step in enumerate(steps):
        file = folder / f"{number}.parquet"
        rows.assign(timestamp=rows["timestamp"] + number * span).to_parquet(file)
        out = folder / str(number)
        made.append(update(made[-1].path, Sources(str(file)), out, weights=step, groups="keep"))
    by_name = {bundle.name: bundle.manifest.lineage for bundle in made}
    name, found = made[-1].name, []
    while name is not None:
        found.append(by_name[name])
        name = found[-1].parent
    ways = {"keep": "refreshed", "continue": "retrained"}
    assert [lineage.trained for lineage in found] == [*(ways[step] for step in reversed(steps)), "full"]
    assert all(after.log[1] > before.log[1] for after, before in pairwise(found))
    assert all(lineage.log[0] == found[-1].log[0] for lineage in found)


def test_without_new_rows_nothing_changes(finished: Path, world: Path, tmp_path: Path):
    open_log(tmp_path / "state")
    with pytest.raises(BundleError, match="holds every event"):
        update(
            finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "bundle", weights="continue"
        )
    empty = tmp_path / "empty.parquet"
    pd.read_parquet(world / "events").head(0).to_parquet(empty)
    for log in (world / "events", empty):
        with pytest.raises(BundleError, match="holds every event"):
            update(finished / "bundle", Sources(str(log)), tmp_path / "bundle", weights="continue")
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == []


def test_live_events_are_learned_from_once(finished: Path, tmp_path: Path, said: pytest.LogCaptureFixture):
    before, log = mgoe.load(finished / "bundle"), open_log(tmp_path / "state")
    log.append(stream(before, 400))
    bundle = update(
        before.path,
        Sources(events=tmp_path / "state"),
        tmp_path / "bundle",
        weights="continue",
    )
    assert any("replayed ones" in line for line in said.messages)
    with pytest.raises(BundleError, match="holds every event"):
        update(bundle.path, Sources(events=tmp_path / "state"), tmp_path / "next", weights="continue")


def test_exposures_wait_for_their_labels(
    shown: Path, world: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    """Those of the last hours, whose labels are not known yet, are learned from when they are named again."""
    bundle = Bundle.open(shutil.copytree(shown / "bundle", tmp_path / "first"))
    delayed(bundle, "12h")
    rows = pd.read_parquet(later(world / "exposures", tmp_path / "rows.parquet"))
    moved = pd.Timestamp.now() - rows["timestamp"].max()
    rows = rows.assign(timestamp=rows["timestamp"] + moved)
    rows.to_parquet(tmp_path / "new.parquet")
    second = update(
        bundle.path,
        Sources(str(tmp_path / "new.parquet")),
        tmp_path / "second",
        weights="continue",
    )
    fresh = rows["timestamp"] > pd.Timestamp.now() - pd.Timedelta("12h")
    assert 0 < int(fresh.sum()) < len(rows)
    assert any("is a file missing?" in line for line in said.messages)
    assert any("a full training is due: the log has gone on" in line for line in said.messages)
    assert "and the weights were retrained" in (second.path / CARD).read_text()
    (tmp_path / "work").mkdir()
    log, later_on = Sources(str(tmp_path / "new.parquet"), later=True), time.time_ns() // 1000 + 13 * HOUR
    new = NewRows.of(second, log, tmp_path / "work", trains=True, now=later_on)
    exposures = pd.read_parquet(new.parts[0].file)
    assert abs(len(exposures) - int(fresh.sum())) < 5  # time went on meanwhile
    assert any("rows are left out: they are from before" in line for line in said.messages)


def test_a_full_training_starts_from_the_whole_log(
    finished: Path, new: Path, retrained: Bundle, tmp_path: Path
):
    with pytest.raises(ConfigError, match="are trained on files"):
        update(retrained.path, Sources(events=tmp_path / "state"), tmp_path / "bundle", weights="new")
    more = pd.read_parquet(new)
    span = more["timestamp"].max() - more["timestamp"].min() + pd.Timedelta(days=1)
    more.assign(timestamp=more["timestamp"] + span).to_parquet(tmp_path / "more.parquet")
    log = [str(tmp_path / "more.parquet")]
    bundle = update(retrained.path, Sources(log), tmp_path / "bundle", weights="new")
    assert (bundle.manifest.lineage.parent, bundle.manifest.lineage.trained) == (None, "full")
    assert bundle.settings.data.log == [*retrained.settings.data.log, *log]
    assert bundle.graph.manifest.events > retrained.graph.manifest.events
    assert bundle.manifest.model == retrained.manifest.model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.training", "more.parquet"]


def test_too_few_rows_are_refused(finished: Path, new: Path, tmp_path: Path):
    pd.read_parquet(new).head(3).to_parquet(tmp_path / "few.parquet")
    with pytest.raises(DataError, match="must be enough to learn from"):
        update(
            finished / "bundle",
            Sources(str(tmp_path / "few.parquet")),
            tmp_path / "bundle",
            weights="continue",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["few.parquet"]


# --- several processes ---


PROGRAM = """
import sys
from mgoe.lifecycle import Sources, update
bundle, out, log, weights = sys.argv[1:]
update(bundle, Sources(log), out, weights=weights)
"""


def same_up_to_rounding(one: Bundle, other: Bundle) -> None:
    """Both have learned the same. Single weights may differ by more: Adam makes steps of gradients that are
    all rounding."""
    (mine, my_fit), (theirs, their_fit) = (load_checkpoint(bundle.path / WEIGHTS) for bundle in (one, other))
    assert my_fit["epoch"] == their_fit["epoch"]
    assert my_fit["value"] == pytest.approx(their_fit["value"], abs=5e-4)
    for name, tensor in mine.items():
        assert (tensor.double() - theirs[name].double()).abs().mean() < 1e-3, name


@slow
@pytest.mark.parametrize("size", [2, *[4, 8] * SOAK])
def test_many_processes_retrain_as_one(
    size: int, finished: Path, new: Path, retrained: Bundle, tmp_path: Path
):
    """Up to rounding, as `mgoe train` does."""
    out = tmp_path / "bundle"
    together(size, PROGRAM, str(finished / "bundle"), str(out), str(new), "continue")
    bundle = Bundle.open(out, verify=True)
    same_up_to_rounding(bundle, retrained)
    assert bundle.graph.manifest.checksum == retrained.graph.manifest.checksum
    mine, theirs = (Replay.load(state_folder(each.path) / REPLAY).rows for each in (retrained, bundle))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.training"]


@slow
def test_many_processes_train_from_scratch(finished: Path, new: Path, tmp_path: Path):
    together(2, PROGRAM, str(finished / "bundle"), str(tmp_path / "bundle"), str(new), "new")
    bundle = Bundle.open(tmp_path / "bundle", verify=True)
    assert bundle.manifest.lineage.trained == "full"
    assert {OPTIMIZER, REPLAY} == {file.name for file in state_folder(bundle.path).iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.training"]


def test_a_number_of_processes_that_does_not_fit_is_refused_before_any_work(
    finished: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"{MODULE}.joined", lambda device: nullcontext(ProcessGroup(0, 3)))
    with pytest.raises(TrainingError, match=r"retrain.batch_size: must be a multiple of the 3 processes"):
        update(finished / "bundle", Sources(str(new)), tmp_path / "bundle", weights="continue")
    assert not any(tmp_path.iterdir())
