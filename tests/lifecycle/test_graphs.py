"""Graphs of a whole log: updated with new files, and without users who left."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mgoe import experiments
from mgoe.config import load_settings
from mgoe.errors import DataError, GraphError, OutputError
from mgoe.graph import MacroGraph
from mgoe.lifecycle import forget_in_macro_graph, graphs, update_macro_graph
from mgoe.pipeline import whole_log
from tests.experiments.test_graphs import (
    LEFT,
    build,
    copy,
    events_of,
    ids,
    left,
    pairs,
    row_of_new_nodes,
    settings_of,
    shared_graph,
    written,
)
from tests.graph.histories import contents, differences
from tests.sharing import Shared


@pytest.fixture(scope="module")
def log(world: Path) -> pd.DataFrame:
    return events_of(world)


@pytest.fixture(scope="module")
def whole(log: pd.DataFrame, shared: Shared) -> MacroGraph:
    """Of all events. Read it only."""
    return shared_graph(log, shared, "whole")


@pytest.fixture(scope="module")
def cut(log: pd.DataFrame) -> int:
    return row_of_new_nodes(log)


@pytest.fixture(scope="module")
def first(log: pd.DataFrame, cut: int, shared: Shared) -> MacroGraph:
    """Of the events before the cut. Read it only."""
    return shared_graph(log[:cut], shared, "first")


def test_new_events_make_the_pairs_of_all_events(
    first: MacroGraph, whole: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    out = copy(first, tmp_path)
    assert len(ids(first, "user")) < len(ids(whole, "user"))
    found = update_macro_graph(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
    assert ids(found, "user") == ids(whole, "user")
    assert ids(found, "item") == ids(whole, "item")
    assert differences(pairs(found), pairs(whole)) == []
    assert found.describe() | {"changes": [], "drift": 0} != first.describe() | {"changes": [], "drift": 0}
    for name in ("events", "first", "last", "users", "items", "pairs"):
        assert found.describe()[name] == whole.describe()[name]
    found.verify()
    assert left(out) == LEFT


def test_a_graph_built_on_spark_is_updated_without_it(
    first: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The process that updates would take all events from Spark at once."""
    new = [str(written(log[cut:], tmp_path / "new.parquet"))]
    expected = update_macro_graph(copy(first, tmp_path / "local"), new)
    out = copy(first, tmp_path / "spark")
    found = json.loads((out / "graph" / "graph.json").read_text())
    found["settings"]["engine"] = "spark"
    (out / "graph" / "graph.json").write_text(json.dumps(found))
    monkeypatch.setattr(whole_log, "open_on_spark", None)
    assert differences(contents(update_macro_graph(out, new), 0), contents(expected, 0)) == []


def test_events_that_are_there_already_change_nothing_but_the_count(
    first: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    found = update_macro_graph(copy(first, tmp_path), [str(written(log[:cut], tmp_path / "same.parquet"))])
    same = [
        name for name in contents(first, 0) if not name.endswith(("events", "_counts", "total", "_again"))
    ]
    old, new = contents(first, 0), contents(found, 0)
    assert differences({name: old[name] for name in same}, {name: new[name] for name in same}) == []


def test_forgotten_users_were_never_there(whole: MacroGraph, log: pd.DataFrame, tmp_path: Path):
    gone = [ids(whole, "user")[0], ids(whole, "user")[7]]
    found = forget_in_macro_graph(copy(whole, tmp_path), gone)
    rest = build(log[~log["user_id"].isin(gone)], tmp_path, "rest")
    assert [name for name in ids(found, "user") if not name.startswith("forgotten")] == ids(rest, "user")
    for name in ("pairs.task_mask", "pairs.time"):
        np.testing.assert_array_equal(contents(found, 0)[name], contents(rest, 0)[name])
    for file in found.path.glob("users.parquet"):
        assert not any(name.encode() in file.read_bytes() for name in gone)
    found.verify()


def test_users_may_be_named_in_any_order_and_twice(whole: MacroGraph, tmp_path: Path):
    before = ids(whole, "user")
    after = ids(forget_in_macro_graph(copy(whole, tmp_path), [before[7], before[0], before[7]]), "user")
    assert {code: name for code, name in enumerate(after) if name != before[code]} == {
        c: f"forgotten user, index {c}" for c in (0, 7)
    }


def test_a_user_who_comes_back_is_new(whole: MacroGraph, log: pd.DataFrame, tmp_path: Path):
    out, gone = copy(whole, tmp_path), ids(whole, "user")[3]
    forget_in_macro_graph(out, [gone])
    theirs = log[log["user_id"] == gone]
    found = update_macro_graph(out, [str(written(theirs, tmp_path / "again.parquet"))])
    assert ids(found, "user")[-1] == gone
    assert ids(found, "user").count(gone) == 1
    indptr = contents(found, 0)["pairs.indptr"]
    assert indptr[4] == indptr[3]
    assert indptr[-1] - indptr[-2] == theirs[theirs["behavior"].isin(["click", "buy"])]["item_id"].nunique()


def test_what_a_killed_update_numbered_is_not_mistaken_for_another_one(
    first: MacroGraph,
    whole: MacroGraph,
    log: pd.DataFrame,
    cut: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = copy(first, tmp_path)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    few = str(written(log[cut : cut + 5], tmp_path / "few.parquet"))
    with monkeypatch.context() as patched:
        patched.setattr(graphs, "update_graph", die)
        with pytest.raises(KeyboardInterrupt):
            update_macro_graph(out, [few])
    assert "graph.log" in left(out)
    found = update_macro_graph(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
    assert ids(found, "user") == ids(whole, "user")
    assert differences(pairs(found), pairs(whole)) == []


def test_a_user_who_is_not_there_cannot_be_forgotten(whole: MacroGraph, tmp_path: Path):
    out = copy(whole, tmp_path)
    before = contents(whole, 0)
    with pytest.raises(GraphError, match=r"users to forget must be in the graph, found none for 'nobody'"):
        forget_in_macro_graph(out, [ids(whole, "user")[0], "nobody"])
    assert differences(contents(experiments.open_graph(out), 0), before) == []
    assert left(out) == LEFT


def test_new_events_of_another_type_of_ids_are_refused(tmp_path: Path, log: pd.DataFrame):
    numbers = log.assign(user_id=log["user_id"].str[1:].astype(int))
    out = build(numbers, tmp_path, "numbers").path.parent
    with pytest.raises(DataError, match=r"ids of users must be as in the graph \(int64\)"):
        update_macro_graph(out, [str(written(log, tmp_path / "new.parquet"))])
    assert left(out) == LEFT


def test_an_unreadable_file_among_readable_ones_is_named(
    first: MacroGraph, log: pd.DataFrame, tmp_path: Path
):
    out, new = copy(first, tmp_path), tmp_path / "new"
    new.mkdir()
    written(log[:50], new / "a.parquet")
    (new / "b.parquet").write_bytes((new / "a.parquet").read_bytes()[:-100])
    for call in (
        lambda: update_macro_graph(out, [str(new)]),
        lambda: experiments.macro_graph(settings_of(new), tmp_path / "other"),
    ):
        with pytest.raises(DataError, match=r"b\.parquet"):
            call()
    assert experiments.open_graph(out).checksum == first.checksum


def test_the_graph_of_a_bundle_stays(finished: Path):
    for path in (finished / "bundle", finished / "bundle" / "graph"):
        with pytest.raises(GraphError, match="a bundle stays as it was written"):
            update_macro_graph(path, recluster=True)
        with pytest.raises(GraphError, match="a bundle stays as it was written"):
            forget_in_macro_graph(path, ["1"])


def test_the_graph_of_a_run_takes_new_events(finished: Path, log: pd.DataFrame, tmp_path: Path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = experiments.open_graph(finished)
    later = log.assign(
        timestamp=log["timestamp"] + pd.Timedelta(days=40),
        user_id=log["user_id"].str[1:].astype(int) + 10_000,
    )
    later["item_id"] = later["item_id"].str[1:].astype(int)
    found = update_macro_graph(out, [str(written(later, tmp_path / "new.parquet"))])
    assert found.latest.n_users > before.latest.n_users
    assert found.latest.n_items == before.latest.n_items
    for snapshot in range(len(before.snapshots) - 1):
        assert differences(contents(found, snapshot), contents(before, snapshot)) == []
    found.verify()


def test_new_events_are_numbered_by_one_process_at_a_time(
    first: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    """A second update, or a user who leaves, must not write over what the first has numbered."""
    from mgoe._util.files import exclusive

    out, new = copy(first, tmp_path), [str(written(log[cut:], tmp_path / "new.parquet"))]
    for change in (
        lambda: update_macro_graph(out, new),
        lambda: forget_in_macro_graph(out, ids(first, "user")[:1]),
    ):
        with (
            exclusive(out / "graph.log", "what changes the graph"),
            pytest.raises(OutputError, match="another process"),
        ):
            change()
        assert not (out / "graph.log").exists()
    assert experiments.open_graph(out).checksum == first.checksum


def test_an_updated_graph_is_not_taken_for_the_one_that_was_built(
    first: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    out = copy(first, tmp_path)
    asked = load_settings(out / "settings.yaml")
    assert experiments.macro_graph(asked, out).checksum == first.checksum
    updated = update_macro_graph(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
    with pytest.raises(OutputError, match="graph: was changed since it was built"):
        experiments.macro_graph(asked, out)
    assert experiments.open_graph(out).checksum == updated.checksum
