"""Graphs of a whole log: built, updated with new files, and without users who left."""

import inspect
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pandas as pd
import pytest

import mgoe
from mgoe import experiments
from mgoe.config import RunSettings, dump_settings, load_settings, make_settings
from mgoe.data import Vocabulary
from mgoe.errors import ConfigError, DataError, GraphError, OutputError
from mgoe.experiments import graphs
from mgoe.graph import MacroGraph
from tests.effort import SOAK
from tests.graph.histories import contents, differences
from tests.sharing import Shared

GRAPH = {"snapshots": "last", "recents": 5, "rank": 8, "resolutions": [(4, 5), (8, 8)]}


@pytest.fixture(scope="module")
def log(world: Path) -> pd.DataFrame:
    """Events in the order of time; ids are strings."""
    events = pd.concat(pd.read_parquet(file) for file in sorted((world / "events").glob("*.parquet")))
    named = {"user_id": "u" + events["user_id"].astype(str), "item_id": "i" + events["item_id"].astype(str)}
    return events.assign(**named).sort_values(
        ["timestamp", "user_id", "item_id", "behavior"], ignore_index=True
    )


def settings_of(path: Path, **changes) -> RunSettings:
    return make_settings({"data": {"log": str(path)}, "tasks": ["click", "buy"], "graph": GRAPH | changes})


def written(rows: pd.DataFrame, path: Path) -> Path:
    rows.to_parquet(path)
    return path


def build(rows: pd.DataFrame, folder: Path, name: str, **changes) -> MacroGraph:
    return experiments.macro_graph(
        settings_of(written(rows, folder / f"{name}.parquet"), **changes), folder / name
    )


@pytest.fixture(scope="module")
def whole(log: pd.DataFrame, shared: Shared) -> MacroGraph:
    """Of all events. Read it only."""
    return shared_graph(log, shared, "whole")


def shared_graph(rows: pd.DataFrame, shared: Shared, name: str) -> MacroGraph:
    def make(folder: Path) -> None:
        folder.mkdir()
        build(rows, folder, name)

    return experiments.open_graph(shared(f"experiments-graph-{name}", make) / name)


@pytest.fixture(scope="module")
def cut(log: pd.DataFrame) -> int:
    """A row with whose day new users and items come."""
    day = log["timestamp"].dt.floor("D")
    return int((day < day.quantile(0.7)).sum())


@pytest.fixture(scope="module")
def first(log: pd.DataFrame, cut: int, shared: Shared) -> MacroGraph:
    """Of the events before the cut. Read it only."""
    return shared_graph(log[:cut], shared, "first")


def copy(graph: MacroGraph, folder: Path) -> Path:
    return shutil.copytree(graph.path.parent, folder / "run")


def ids(graph: MacroGraph, node: str) -> list:
    vocabulary = Vocabulary.load(graph.path / f"{node}s.parquet")
    return vocabulary.ids(np.arange(vocabulary.size)).to_pylist()


def pairs(graph: MacroGraph) -> dict[str, np.ndarray]:
    return {name: array for name, array in contents(graph, 0).items() if name.startswith("pairs.")}


LEFT = ["graph", "graph.asked.json", "run.json", "settings.yaml", "source.json"]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_codes_and_pairs_are_what_the_log_says(whole: MacroGraph, log: pd.DataFrame):
    did = log[log["behavior"].isin(["click", "buy"])].assign(
        code=lambda rows: rows["behavior"].map({"click": 1, "buy": 2}).astype(int)
    )
    day = did["timestamp"].dt.floor("D")
    for node in ("user", "item"):
        order = (
            day.groupby(did[f"{node}_id"])
            .min()
            .rename("day")
            .reset_index()
            .sort_values(["day", f"{node}_id"])
        )
        assert ids(whole, node) == order[f"{node}_id"].tolist()
    codes = {node: {name: code for code, name in enumerate(ids(whole, node))} for node in ("user", "item")}
    did = did.assign(user=did["user_id"].map(codes["user"]), item=did["item_id"].map(codes["item"]))
    expected = did.groupby(["user", "item"])["code"].agg(lambda codes: sum(set(codes))).reset_index()
    found = pairs(whole)
    users = np.repeat(np.arange(len(found["pairs.indptr"]) - 1), np.diff(found["pairs.indptr"]))
    np.testing.assert_array_equal(
        np.column_stack([users, found["pairs.item"], found["pairs.task_mask"]]), expected.to_numpy()
    )
    assert whole.meta["events"] == len(did.drop_duplicates(["user_id", "item_id", "timestamp", "behavior"]))


def test_nothing_but_the_graph_is_left(whole: MacroGraph):
    assert left(whole.path.parent) == LEFT
    whole.verify()


def test_a_table_is_as_good_as_files(whole: MacroGraph, log: pd.DataFrame, tmp_path: Path):
    table = ibis.memtable(log.sample(frac=1, random_state=0))
    found = experiments.macro_graph(settings_of(tmp_path / "unused.parquet"), tmp_path / "run", table=table)
    assert differences(contents(found, 0), contents(whole, 0)) == []
    assert ids(found, "user") == ids(whole, "user")


def test_a_database_of_the_user_is_read_and_left_as_it_was(
    whole: MacroGraph, log: pd.DataFrame, tmp_path: Path
):
    with duckdb.connect(tmp_path / "warehouse.ddb") as mine:
        mine.register("rows", log)
        mine.execute(
            "CREATE TABLE events AS SELECT * FROM rows; CREATE TABLE user_codes AS SELECT 'mine' AS whose"
        )
    con = ibis.duckdb.connect(tmp_path / "warehouse.ddb", read_only=True)
    kept = "('memory_limit', 'preserve_insertion_order', 'temp_directory', 'threads')"
    said = f"SELECT name, value FROM duckdb_settings() WHERE name IN {kept} ORDER BY name"
    before = con.con.sql(said).fetchall()
    found = experiments.macro_graph(
        settings_of(tmp_path / "unused.parquet"), tmp_path / "run", table=con.table("events")
    )
    assert differences(contents(found, 0), contents(whole, 0)) == []
    assert con.con.sql("SELECT whose FROM user_codes").fetchall() == [("mine",)]
    assert con.con.sql(said).fetchall() == before


def test_the_code_of_the_page_gives_a_table_to_both_functions(
    log: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = (Path(__file__).parents[2] / "docs" / "warehouse.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    given = []
    for module, name in ((mgoe, "run"), (experiments, "macro_graph")):
        form = inspect.signature(getattr(module, name))
        monkeypatch.setattr(
            module,
            name,
            lambda *words, form=form, **named: given.append(form.bind(*words, **named).arguments),
        )
    with duckdb.connect(tmp_path / "warehouse.ddb") as mine:
        mine.register("rows", log)
        mine.execute("CREATE TABLE events AS SELECT * FROM rows")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert [one["table"].count().execute() for one in given] == [len(log)] * 2


def test_a_database_of_the_user_is_bounded_while_it_checks_and_numbers(
    whole: MacroGraph, log: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    con, limits, real = ibis.duckdb.connect(), [], graphs.whole_log

    def looked_at(*arguments):
        limits.append(con.con.sql("SELECT current_setting('memory_limit')").fetchall()[0][0])
        return real(*arguments)

    con.con.register("rows", log)
    con.con.execute("CREATE TABLE events AS SELECT * FROM rows")
    monkeypatch.setattr(graphs, "whole_log", looked_at)
    found = experiments.macro_graph(
        settings_of(tmp_path / "unused.parquet").model_copy(update={"memory": 2.0}),
        tmp_path / "run",
        table=con.table("events"),
    )
    assert limits == ["1.1 GiB"]  # 0.6 of 2, which DuckDB tells cut off
    assert differences(contents(found, 0), contents(whole, 0)) == []


@pytest.mark.parametrize("kind", ["int64", "uint64", "int8"])
def test_ids_of_any_type(log: pd.DataFrame, tmp_path: Path, kind: str):
    numbers = log["user_id"].rank(method="dense").astype(int)
    far = {
        "int64": lambda n: n - 100,
        "uint64": lambda n: (1 << 63) + n.astype("uint64"),
        "int8": lambda n: n - 100,
    }[kind](numbers)
    one = build(log.assign(user_id=far.astype(kind)), tmp_path, "numbers")
    two = build(log.assign(user_id=numbers.map("{:03d}".format)), tmp_path, "strings")
    assert differences(contents(one, 0), contents(two, 0)) == []
    assert ids(one, "user") == [
        int(far.iloc[np.flatnonzero(numbers == int(name))[0]]) for name in ids(two, "user")
    ]


def test_new_events_make_the_pairs_of_all_events(
    first: MacroGraph, whole: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    out = copy(first, tmp_path)
    assert len(ids(first, "user")) < len(ids(whole, "user"))
    found = experiments.update(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
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
    expected = experiments.update(copy(first, tmp_path / "local"), new)
    out = copy(first, tmp_path / "spark")
    found = json.loads((out / "graph" / "graph.json").read_text())
    found["settings"]["engine"] = "spark"
    (out / "graph" / "graph.json").write_text(json.dumps(found))
    monkeypatch.setattr(graphs, "open_on_spark", None)
    assert differences(contents(experiments.update(out, new), 0), contents(expected, 0)) == []


def test_events_that_are_there_already_change_nothing_but_the_count(
    first: MacroGraph, log: pd.DataFrame, cut: int, tmp_path: Path
):
    found = experiments.update(copy(first, tmp_path), [str(written(log[:cut], tmp_path / "same.parquet"))])
    same = [name for name in contents(first, 0) if not name.endswith(("events", "_counts"))]
    old, new = contents(first, 0), contents(found, 0)
    assert differences({name: old[name] for name in same}, {name: new[name] for name in same}) == []


def test_forgotten_users_were_never_there(whole: MacroGraph, log: pd.DataFrame, tmp_path: Path):
    gone = [ids(whole, "user")[0], ids(whole, "user")[7]]
    found = experiments.forget(copy(whole, tmp_path), gone)
    rest = build(log[~log["user_id"].isin(gone)], tmp_path, "rest")
    assert [name for name in ids(found, "user") if not name.startswith("forgotten")] == ids(rest, "user")
    for name in ("pairs.task_mask", "pairs.time"):
        np.testing.assert_array_equal(contents(found, 0)[name], contents(rest, 0)[name])
    for file in found.path.glob("users.parquet"):
        assert not any(name.encode() in file.read_bytes() for name in gone)
    found.verify()


def test_users_may_be_named_in_any_order_and_twice(whole: MacroGraph, tmp_path: Path):
    before = ids(whole, "user")
    after = ids(experiments.forget(copy(whole, tmp_path), [before[7], before[0], before[7]]), "user")
    assert {code: name for code, name in enumerate(after) if name != before[code]} == {
        c: f"forgotten user, index {c}" for c in (0, 7)
    }


def test_a_user_who_comes_back_is_new(whole: MacroGraph, log: pd.DataFrame, tmp_path: Path):
    out, gone = copy(whole, tmp_path), ids(whole, "user")[3]
    experiments.forget(out, [gone])
    theirs = log[log["user_id"] == gone]
    found = experiments.update(out, [str(written(theirs, tmp_path / "again.parquet"))])
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
            experiments.update(out, [few])
    assert "graph.log" in left(out)
    found = experiments.update(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
    assert ids(found, "user") == ids(whole, "user")
    assert differences(pairs(found), pairs(whole)) == []


def test_a_user_who_is_not_there_cannot_be_forgotten(whole: MacroGraph, tmp_path: Path):
    out = copy(whole, tmp_path)
    before = contents(whole, 0)
    with pytest.raises(GraphError, match=r"users to forget must be in the graph, found none for 'nobody'"):
        experiments.forget(out, [ids(whole, "user")[0], "nobody"])
    assert differences(contents(experiments.open_graph(out), 0), before) == []
    assert left(out) == LEFT


def test_new_events_of_another_type_of_ids_are_refused(tmp_path: Path, log: pd.DataFrame):
    numbers = log.assign(user_id=log["user_id"].str[1:].astype(int))
    out = build(numbers, tmp_path, "numbers").path.parent
    with pytest.raises(DataError, match=r"ids of users must be as in the graph \(int64\)"):
        experiments.update(out, [str(written(log, tmp_path / "new.parquet"))])
    assert left(out) == LEFT


def test_an_unreadable_file_among_readable_ones_is_named(
    first: MacroGraph, log: pd.DataFrame, tmp_path: Path
):
    out, new = copy(first, tmp_path), tmp_path / "new"
    new.mkdir()
    written(log[:50], new / "a.parquet")
    (new / "b.parquet").write_bytes((new / "a.parquet").read_bytes()[:-100])
    for call in (
        lambda: experiments.update(out, [str(new)]),
        lambda: experiments.macro_graph(settings_of(new), tmp_path / "other"),
    ):
        with pytest.raises(DataError, match=r"b\.parquet"):
            call()
    assert experiments.open_graph(out).checksum == first.checksum


def test_a_graph_of_the_log_alone_trains_nothing(world: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"graph.snapshots: `last` leaves training nothing to read"):
        experiments.run(settings_of(world / "events"), tmp_path / "run")


def test_a_graph_of_the_log_alone_is_not_mistaken_for_one_of_other_settings(
    first: MacroGraph, tmp_path: Path
):
    out = copy(first, tmp_path)
    asked = load_settings(out / "settings.yaml")
    assert experiments.macro_graph(asked, out).checksum == first.checksum
    for section, change in (
        ("graph", {"snapshots": "all"}),
        ("graph", {"rank": 4}),
        ("data", {"bucket": "1h"}),
    ):
        other = asked.model_copy(update={section: getattr(asked, section).model_copy(update=change)})
        changed = f"was made with another `{section}.{next(iter(change))}`"
        with pytest.raises(OutputError, match=changed):
            experiments.macro_graph(other, out)
    with pytest.raises(OutputError, match=r"was made with another `graph\.snapshots`"):
        experiments.run(
            asked.model_copy(update={"graph": asked.graph.model_copy(update={"snapshots": "all"})}), out
        )
    assert load_settings(out / "settings.yaml") == asked
    assert experiments.macro_graph(asked, out).checksum == first.checksum


def test_the_graph_of_a_bundle_stays(finished: Path):
    for path in (finished / "bundle", finished / "bundle" / "graph"):
        with pytest.raises(GraphError, match="a bundle stays as it was written"):
            experiments.update(path, recluster=True)
        with pytest.raises(GraphError, match="a bundle stays as it was written"):
            experiments.forget(path, ["1"])


def test_the_graph_of_a_run_takes_new_events(finished: Path, log: pd.DataFrame, tmp_path: Path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = experiments.open_graph(finished)
    later = log.assign(
        timestamp=log["timestamp"] + pd.Timedelta(days=40),
        user_id=log["user_id"].str[1:].astype(int) + 10_000,
    )
    later["item_id"] = later["item_id"].str[1:].astype(int)
    found = experiments.update(out, [str(written(later, tmp_path / "new.parquet"))])
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
        lambda: experiments.update(out, new),
        lambda: experiments.forget(out, ids(first, "user")[:1]),
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
    updated = experiments.update(out, [str(written(log[cut:], tmp_path / "new.parquet"))])
    with pytest.raises(OutputError, match="graph: was changed since it was built"):
        experiments.macro_graph(asked, out)
    assert experiments.open_graph(out).checksum == updated.checksum


def test_a_second_process_is_refused(log: pd.DataFrame, tmp_path: Path):
    from mgoe._util.files import exclusive

    settings = settings_of(written(log, tmp_path / "log.parquet"))
    with (
        exclusive(tmp_path / "run", "a graph"),
        pytest.raises(OutputError, match=r"another process .* is writing a graph there"),
    ):
        experiments.macro_graph(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("delay", np.random.default_rng(1).uniform(0.5, 4, 20) if SOAK else [None])
def test_a_killed_build_of_the_whole_log_resumes(
    whole: MacroGraph, log: pd.DataFrame, tmp_path: Path, delay: float | None
):
    """In the short form when the log is read and the graph is begun."""
    settings = settings_of(written(log, tmp_path / "log.parquet"))
    (tmp_path / "small.yaml").write_text(dump_settings(settings))
    command = [
        sys.executable,
        "-m",
        "mgoe",
        "graph",
        "build",
        str(tmp_path / "small.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        if delay is not None:
            time.sleep(delay)
        while delay is None and not (tmp_path / "run" / "graph.building").exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    found = experiments.macro_graph(settings, tmp_path / "run")
    assert differences(contents(found, 0), contents(whole, 0)) == []
    assert left(tmp_path / "run") == LEFT
    found.verify()
