"""A run whose rows read what was known at their moment."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.config import RunSettings
from mgoe.data import Examples, Prepared
from mgoe.evaluation import read_rows
from mgoe.experiments.incumbent import placed, rows, write_incumbent
from mgoe.features import moments
from mgoe.features.moments import WindowMoments
from mgoe.graph import MacroGraph
from mgoe.graph.moments import Moments
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.acceptance import window_of
from mgoe.lifecycle.learning import RetrainJob
from mgoe.lifecycle.measure import measure_log
from mgoe.lifecycle.new_rows import NewRows
from mgoe.serving import Event, open_log
from mgoe.serving.online.overlay import LiveBundle
from mgoe.training import Feed, ProcessGroup, Replay, ReplayFeed
from tests.lifecycle.test_update_from_files import later
from tests.sharing import Shared

LAG = 2 * 3_600_000_000
KEYS = ["row", "user_id", "item_id", "timestamp"]


@pytest.fixture(scope="module")
def settings(small: RunSettings) -> RunSettings:
    """Those of the small run, with a lag."""
    data = small.data.model_copy(update={"history": "moment", "lag": "2h"})
    return small.model_copy(update={"data": data, "serve": "mgoe"})


@pytest.fixture(scope="module")
def moved(settings: RunSettings, shared: Shared) -> Path:
    """The folder of a finished run at moments. Read it only."""
    how = {"command": "mgoe run small.yaml", "reuse": True}
    return shared("moved", lambda path: experiments.run(settings, path, **how))


@pytest.fixture(scope="module")
def prepared(moved: Path) -> Prepared:
    return Prepared.open(moved / "data")


@pytest.fixture(scope="module")
def fed(moved: Path, prepared: Prepared) -> dict:
    """What a feed is made of."""
    model = Bundle.open(moved / "bundle").model
    graph = MacroGraph.open(moved / "graph")
    return {"encoders": prepared, "graph": graph, "needs": model.needs, "spec": model.spec}


def test_rows_have_their_moments_as_times(moved: Path, prepared: Prepared, world: Path):
    """That of a positive is the first event of its user and item in the bucket, less the lag."""
    found, moments = rows(moved), prepared.examples("test").moment
    assert moments is not None
    assert (found["timestamp"].to_numpy().astype("datetime64[us]").astype(np.int64) == moments).all()
    log = pd.read_parquet(world / "events")
    log["day"] = log["timestamp"].dt.floor("D")
    first = log.groupby(["user_id", "item_id", "day"], as_index=False)["timestamp"].min()
    done = found[found["click"] > 0].assign(timestamp=lambda rows: rows["timestamp"] + pd.Timedelta("2h"))
    assert len(done.merge(first, on=["user_id", "item_id", "timestamp"])) == len(done) > 50


def test_scores_of_these_rows_are_taken(
    settings: RunSettings, moved: Path, prepared: Prepared, tmp_path: Path
):
    """Though the lag puts some moments before the bucket of their row."""
    test = placed(prepared.examples("test"), prepared, settings)
    assert (test["timestamp"].dt.hour >= 22).any()
    test.assign(score=np.arange(len(test)) % 97).to_parquet(tmp_path / "scores.parquet")
    (tmp_path / "examples.json").write_text((moved / "examples.json").read_text())
    write_incumbent(tmp_path, settings, prepared, tmp_path / "scores.parquet")
    assert (tmp_path / "incumbent").exists()


def test_replayed_rows_stand_beside_rows_at_moments(fed: dict):
    train, valid = (fed["encoders"].examples(split) for split in ("train", "valid"))
    memory = Replay.of(Feed(examples=train, **fed), most=50)
    both = ReplayFeed(examples=valid, memory=memory, number=20, seed=1, **fed)
    rows_of_both = np.arange(len(valid) - 5, len(both))
    new = Feed(examples=valid, **fed).block(rows_of_both[:5])
    stored = both.examples.take(rows_of_both[5:]).user
    for name, values in both.block(rows_of_both).items():
        assert torch.equal(values[:5], new[name]), name
        assert torch.equal(values[5:], memory.rows[name][stored]), name


def test_streamed_rows_read_the_same(fed: dict):
    test, some = fed["encoders"].examples("test"), np.arange(3, 700, 7)
    held = Feed(examples=test, **fed).block(some)
    streamed = Feed(examples=fed["encoders"].streamed("test"), **fed).block(some)
    cut = Feed(examples=test.take(some), **fed)
    for name, values in held.items():
        assert torch.equal(values, streamed[name]), name
    cut.examples = replace(test.take(some), moment=None)
    assert not torch.equal(held["counts"], cut.block(np.arange(len(some)))["counts"])


def test_a_window_is_followed_once(fed: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Whoever else reads it waits."""
    graph = MacroGraph.open(shutil.copytree(fed["graph"].path, tmp_path / "graph"))
    shutil.rmtree(graph.path / "moments")
    followed, of = [], moments.follow

    def counted(*given):
        followed.append(given[1])
        return of(*given)

    monkeypatch.setattr(moments, "follow", counted)
    threads = [threading.Thread(target=lambda: WindowMoments(fed["encoders"], graph)[1]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert followed == [1]


def test_gauc_by_request_compares_rows_of_one_moment(moved: Path, prepared: Prepared):
    test, found = prepared.examples("test"), rows(moved)
    assert test.moment is not None
    right = pairs = 0.0
    for _, group in found.assign(user=test.user, moment=test.moment).groupby(["user", "moment"]):
        done, score = group["click"].to_numpy() > 0, group["mgoe.click"].to_numpy(float)
        if 0 < done.sum() < len(group):
            above = np.sign(score[done][:, None] - score[~done])
            right += len(group) * (0.5 + above.mean() / 2)
            pairs += len(group)
    measured = [
        row["value"]
        for row in read_rows(moved / "metrics.json")
        if (row["model"], row["task"], row["metric"]) == ("mgoe", "click", "gauc_by_request")
    ]
    assert measured == [pytest.approx(right / pairs, abs=1e-9)]


def test_the_report_says_what_rows_read(moved: Path):
    said = "all that had happened before the moment of an example"
    assert said in (moved / "report.html").read_text(encoding="utf-8")


def test_moments_leave_with_their_graph_and_enter_no_bundle(moved: Path, fed: dict, tmp_path: Path):
    fed["graph"].save_latest(tmp_path / "graph")
    assert (moved / "graph/moments/02").is_dir()
    for folder in (tmp_path, moved / "bundle"):
        assert not [*folder.rglob("*moments*")]


def test_a_bundle_is_measured_on_the_rows_of_its_run_at_their_moments(
    settings: RunSettings, moved: Path, world: Path, tmp_path: Path
):
    """Rows of the test window from its log give the figures of the run."""
    log, prepared = pd.read_parquet(world / "events"), Prepared.open(moved / "data")
    start = pd.Timestamp(0) + pd.Timedelta(days=int(prepared.cuts[-1]) + 1)
    log[log["timestamp"] >= start].to_parquet(tmp_path / "test.parquet")
    bundle = Bundle.open(moved / "bundle")
    found = {
        (row["task"], row["metric"]): row["value"]
        for row in measure_log(bundle, [str(tmp_path / "test.parquet")], moved)
    }
    metrics = bundle.metrics[(bundle.metrics["split"] == "test") & (bundle.metrics["slice"] == "all")]
    of_run = metrics.set_index(["task", "metric"])["value"]
    for key in [(task, metric) for task in ("click", "buy") for metric in ("auc", "gauc", "examples")]:
        assert found[key] == pytest.approx(of_run[key], rel=1e-6), key


@pytest.fixture(scope="module")
def new(world: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Events after those of the run, some of new users and items."""
    log = pd.read_parquet(later(world / "events", tmp_path_factory.mktemp("later") / "new.parquet"))
    log["user_id"] += 10_000_000 * (log["user_id"] % 5 == 0)
    log["item_id"] += 10_000_000 * (log["item_id"] % 7 == 0)
    return log.sort_values("timestamp")


def ids_of(bundle: Bundle, examples: Examples, log: pd.DataFrame) -> pd.DataFrame:
    """The ids of examples; those that the bundle lacks follow as they came."""
    found = {}
    for node, indices in (("user", examples.user), ("item", examples.item)):
        first = log.groupby(f"{node}_id", as_index=False)["timestamp"].min()
        ids = first.sort_values(["timestamp", f"{node}_id"])[f"{node}_id"]
        known = getattr(bundle.encoders, f"{node}s").with_ids(pa.array(ids, from_pandas=True))
        found[f"{node}_id"] = known.ids(indices).to_pylist()
    return pd.DataFrame(found)


def served(bundle: Bundle, log: pd.DataFrame, row: pd.Series, moment: int, folder: Path) -> np.ndarray:
    """What a service answers for a pair of ids that knows the events before a moment."""
    times = log["timestamp"].astype("datetime64[us]").astype(np.int64)
    known = log.assign(time=times)[times < moment]
    events = open_log(folder)
    columns = ["user_id", "item_id", "behavior", "time"]
    events.append([Event(*event, f"e{k}") for k, event in enumerate(known[columns].itertuples(index=False))])
    live = LiveBundle(bundle, events)
    events.close()
    live._live.state.now = moment  # as if somebody else had done something just before
    pair = live.indices("user", [row["user_id"]]), live.indices("item", [row["item_id"]])
    return live.score_indices(*pair, recalibrated=False)[0]


def check_against_a_service(
    bundle: Bundle, examples: Examples, log: pd.DataFrame, ids: pd.DataFrame, folder: Path
) -> None:
    """Compare what is predicted of some rows, among them one of a newcomer."""
    found, moments = bundle.learned(examples), examples.moment
    assert moments is not None
    new_users = np.flatnonzero((examples.user < 0) | (ids["user_id"] > 10_000_000))
    for row in [*np.random.default_rng(0).choice(len(examples), 3), new_users[len(new_users) // 2]]:
        answer = served(bundle, log, ids.iloc[row], int(moments[row]), folder / str(row))
        np.testing.assert_allclose(found[row], answer, rtol=1e-5, err_msg=str(row))


def test_an_update_scores_rows_as_a_service_would_have(moved: Path, new: pd.DataFrame, tmp_path: Path):
    new.to_parquet(tmp_path / "new.parquet")
    bundle = Bundle.open(moved / "bundle")
    rows = NewRows.of(bundle, Sources(str(tmp_path / "new.parquet")), tmp_path)
    examples = rows.examples()
    assert examples is not None
    check_against_a_service(bundle, examples, new, ids_of(bundle, examples, new), tmp_path)
    as_of_now = bundle.score_indices(examples.user, examples.item, recalibrated=False)
    assert not np.allclose(as_of_now, bundle.learned(examples))


def test_a_release_test_reads_what_each_bundle_lacks(moved: Path, new: pd.DataFrame, tmp_path: Path):
    """The current bundle has not learned the first rows, which a service of it has received."""
    half = len(new) // 2
    for name, part in (("first", new[:half]), ("all", new)):
        part.to_parquet(tmp_path / f"{name}.parquet")
    current = Bundle.open(moved / "bundle")
    candidate = update(current.path, Sources(str(tmp_path / "first.parquet")), tmp_path / "candidate")
    window = window_of(candidate, current, Sources(str(tmp_path / "all.parquet")), tmp_path)
    assert window is not None
    np.testing.assert_array_equal(window[0].labels, window[1].labels)
    np.testing.assert_array_equal(window[0].moment, window[1].moment)
    for bundle, examples in zip((candidate, current), window, strict=True):
        log = new if bundle is current else new[half:]
        ids = ids_of(bundle, examples, log)
        check_against_a_service(bundle, examples, log, ids, tmp_path / bundle.name)


def test_processes_that_learn_new_rows_read_them_at_the_same_moments(
    moved: Path, new: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    new.to_parquet(tmp_path / "new.parquet")
    first, other = (Bundle.open(moved / "bundle") for _ in range(2))
    examples = NewRows.of(first, Sources(str(tmp_path / "new.parquet")), tmp_path).examples(first.encoders)
    assert examples is not None
    job, said = RetrainJob(first, first.encoders, examples, tmp_path / "fit"), []
    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "agree", lambda self, value: said.append(value) or said[0])
        job.share(ProcessGroup(0, 2))
        received = RetrainJob.receive(other, ProcessGroup(1, 2))
    np.testing.assert_array_equal(other.learned(received.examples), first.learned(examples))
    replayed = update(first.path, Sources(str(tmp_path / "new.parquet")), tmp_path / "b", weights="continue")
    assert replayed.manifest.lineage.trained == "retrained"


def test_a_run_that_is_cut_off_while_it_follows_a_window_resumes(
    settings: RunSettings, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    of = moments.follow

    def cut_off(graph: MacroGraph, number: int, *rest: Any) -> Moments:
        if number == 1:
            raise KeyboardInterrupt
        return of(graph, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(moments, "follow", cut_off)
        with pytest.raises(KeyboardInterrupt):
            experiments.run(settings, tmp_path / "run")
    assert (tmp_path / "run/graph/moments/00").is_dir()
    resumed = experiments.run(settings, tmp_path / "run")
    assert resumed.rows == read_rows(moved / "metrics.json")
    ours, theirs = (load_file(run / "bundle/model.safetensors") for run in (tmp_path / "run", moved))
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items())
    rows(tmp_path / "run")  # the graph that kept its latest snapshot alone is followed again
