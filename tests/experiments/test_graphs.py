"""Graphs of a whole log."""

import inspect
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
from mgoe.errors import ConfigError, OutputError
from mgoe.graph import MacroGraph
from mgoe.pipeline import whole_log
from tests.effort import SOAK
from tests.graph.histories import contents, differences
from tests.sharing import Shared

GRAPH = {"snapshots": "last", "recents": 5, "rank": 8, "resolutions": [(4, 5), (8, 8)]}


@pytest.fixture(scope="module")
def log(world: Path) -> pd.DataFrame:
    return events_of(world)


def events_of(world: Path) -> pd.DataFrame:
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
    return row_of_new_nodes(log)


def row_of_new_nodes(log: pd.DataFrame) -> int:
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
    assert whole.manifest.events == len(did.drop_duplicates(["user_id", "item_id", "timestamp", "behavior"]))


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
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
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
    con, limits, real = ibis.duckdb.connect(), [], whole_log.whole_log

    def looked_at(*arguments):
        limits.append(con.con.sql("SELECT current_setting('memory_limit')").fetchall()[0][0])
        return real(*arguments)

    con.con.register("rows", log)
    con.con.execute("CREATE TABLE events AS SELECT * FROM rows")
    monkeypatch.setattr(whole_log, "whole_log", looked_at)
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
