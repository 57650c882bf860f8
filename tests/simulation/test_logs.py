"""Logs as written: the same in any shards, whole or not at all, one chunk in memory at a time."""

import hashlib

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mgoe._util.files import exclusive
from mgoe.errors import ConfigError, OutputError
from mgoe.metrics import auc
from mgoe.simulation import DEVICES, Truth, WorldSettings, simulate
from mgoe.simulation.chance import chances
from tests.simulation.worlds import OPPOSED, SMALL, drawn

FOLDERS = ("events", "exposures")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    out = tmp_path_factory.mktemp("log") / "out"
    return out, simulate(SMALL, out)


def test_the_summary_counts_what_was_written(log):
    out, summary = log
    exposures, events = pq.read_table(out / "exposures"), pq.read_table(out / "events")
    assert len(exposures) == summary.exposures == SMALL.exposures
    assert len(events) == summary.events == sum(summary.counts.values())
    behaviors = events["behavior"].to_pylist()
    assert {name: behaviors.count(name) for name in SMALL.names} == summary.counts
    assert {name: exposures[name].to_numpy().sum() for name in SMALL.names} == summary.counts
    assert all(0.6 < area < 0.95 for area in summary.best_auc.values())


def test_events_are_the_behaviours_of_the_exposures(log):
    exposures, events = (pq.read_table(log[0] / form).to_pandas() for form in ("exposures", "events"))
    row, behavior = np.nonzero(exposures[list(SMALL.names)].to_numpy())
    for name in ("user_id", "item_id", "timestamp"):
        assert (events[name].to_numpy() == exposures[name].to_numpy()[row]).all()
    assert (events["behavior"] == np.array(SMALL.names)[behavior]).all()


def test_ids_of_a_log_are_known_to_its_truth(log):
    out, _ = log
    truth, exposures = Truth.open(out), pq.read_table(out / "exposures")
    user, item = truth.indices(exposures["user_id"], exposures["item_id"])
    device = pd.Index(DEVICES).get_indexer(exposures["device"].to_pandas())
    chance = chances(truth, user, item, truth.days(exposures["timestamp"]), device)
    for t, name in enumerate(SMALL.names):
        done = exposures[name].to_numpy()
        assert abs(done.mean() - chance[:, t].mean()) < 4 * np.sqrt(0.25 / len(done))
        assert auc(done, chance[:, t]) > 0.65


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(log, tmp_path):
    simulate(SMALL, tmp_path / "again")
    simulate(SMALL.model_copy(update={"seed": 1}), tmp_path / "other")
    digests = [
        {f.relative_to(out): hashlib.sha256(f.read_bytes()).hexdigest() for f in out.rglob("*.parquet")}
        for out in (log[0], tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1]
    assert digests[0].keys() == digests[2].keys()
    assert not set(digests[0].values()) & set(digests[2].values())


def test_one_form_alone_gives_the_same_log(log, tmp_path):
    simulate(SMALL, tmp_path / "events", form="events")
    simulate(SMALL, tmp_path / "exposures", form="exposures")
    for folder in ("events", "exposures"):
        assert pq.read_table(tmp_path / folder / folder).equals(pq.read_table(log[0] / folder))
    assert not (tmp_path / "events" / "exposures").exists()
    assert not (tmp_path / "exposures" / "events").exists()


def test_several_scenarios_are_named_in_the_log(log, tmp_path):
    simulate(OPPOSED, tmp_path / "log", form="exposures")
    named = pq.read_table(tmp_path / "log" / "exposures")["scenario"].to_numpy()
    assert (named == np.array(["s0", "s1", "s2"])[drawn(OPPOSED).shown.scenario]).all()
    assert "scenario" not in pq.read_table(log[0] / "exposures").column_names
    with pytest.raises(ConfigError, match="several `scenarios` is known by its exposures"):
        simulate(OPPOSED, tmp_path / "events", form="events")


def test_memory_holds_one_chunk_whatever_the_size_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.simulation.draw.CHUNK", 500)
    seen = []
    summary = simulate(SMALL, tmp_path / "out", on_progress=lambda done, total: seen.append((done, total)))
    assert summary.exposures == SMALL.exposures
    [events] = (tmp_path / "out" / "events").iterdir()
    groups = pq.ParquetFile(events).metadata
    rows = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert max(rows) <= 500 * len(SMALL.names)
    assert len(seen) >= SMALL.exposures // 500
    assert seen[-1] == (SMALL.exposures, SMALL.exposures)


def test_the_number_of_events_can_be_set(tmp_path):
    summary = simulate(SMALL, tmp_path / "out", events=50_000, form="events")
    assert summary.events == pytest.approx(50_000, rel=0.05)
    assert Truth.open(tmp_path / "out").settings.exposures == summary.exposures
    with pytest.raises(ConfigError, match="exposures"):
        simulate(SMALL, tmp_path / "none", events=-5)


def test_the_smallest_world_is_written(tmp_path):
    tiny = WorldSettings(users=1, items=1, exposures=1, days=1, user_communities=1, item_communities=1)
    assert simulate(tiny, tmp_path / "out").exposures == 1
    assert pq.read_table(tmp_path / "out" / "exposures").num_rows == 1
    assert pq.read_table(tmp_path / "out" / "events").column_names == [
        "user_id",
        "item_id",
        "timestamp",
        "behavior",
    ]


def test_a_folder_in_use_is_refused_and_a_simulation_replaced_only_with_overwrite(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("42")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="choose a new folder"):
            simulate(SMALL, tmp_path / "mine", overwrite=overwrite)
    simulate(SMALL, tmp_path / "log")
    with pytest.raises(OutputError, match="`overwrite`"):
        simulate(SMALL, tmp_path / "log")
    before = pq.read_table(tmp_path / "log" / "events")
    simulate(SMALL.model_copy(update={"seed": 5}), tmp_path / "log", overwrite=True)
    assert not pq.read_table(tmp_path / "log" / "events").equals(before)


def test_an_interrupted_simulation_leaves_no_files_and_keeps_the_old_ones(log, tmp_path):
    simulate(SMALL, tmp_path / "log")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for out in ("new", "log"):
        with pytest.raises(KeyboardInterrupt):
            simulate(SMALL, tmp_path / out, overwrite=True, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert pq.read_table(tmp_path / "log" / "events").equals(pq.read_table(log[0] / "events"))


def test_one_process_writes_a_log_and_removes_what_a_killed_one_left(tmp_path):
    left = tmp_path / ".log.1.partial"
    left.mkdir()
    with (
        exclusive(tmp_path / "log", "a simulated log"),
        pytest.raises(OutputError, match=r"another process .* is writing a simulated log"),
    ):
        simulate(SMALL, tmp_path / "log")
    assert left.exists()
    simulate(SMALL, tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
