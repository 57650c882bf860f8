"""A run whose rows read what was known at their moment."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.config import RunSettings
from mgoe.data import Prepared
from mgoe.experiments.incumbent import placed, rows, write_incumbent
from mgoe.features.moments import WindowMoments
from mgoe.graph import MacroGraph
from mgoe.graph.moments import Moments
from mgoe.training import Feed, Replay, ReplayFeed
from tests.sharing import Shared

LAG = 2 * 3_600_000_000
KEYS = ["row", "user_id", "item_id", "timestamp"]


@pytest.fixture(scope="module")
def settings(small: RunSettings) -> RunSettings:
    """Those of the small run, with a lag."""
    data = small.data.model_copy(update={"history": "moment", "lag": "2h"})
    return small.model_copy(update={"data": data})


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
    followed, of = [], Moments.of

    def counted(*given):
        followed.append(given[1])
        return of(*given)

    monkeypatch.setattr(Moments, "of", counted)
    threads = [threading.Thread(target=lambda: WindowMoments(fed["encoders"], graph)[1]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert followed == [1]


def test_moments_leave_with_their_graph_and_enter_no_bundle(moved: Path, fed: dict, tmp_path: Path):
    fed["graph"].save_latest(tmp_path / "graph")
    assert (moved / "graph/moments/02").is_dir()
    for folder in (tmp_path, moved / "bundle"):
        assert not [*folder.rglob("*moments*")]
