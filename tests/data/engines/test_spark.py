"""What Spark prepares is what the local engine prepares, row by row, whatever the partitions."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgoe._util.files import read_json
from mgoe.config import RunSettings, SparkSettings
from mgoe.data import Prepared, prepare
from mgoe.data.engines import spark as engines
from mgoe.data.engines.spark import on_spark
from mgoe.data.events import whole_buckets
from mgoe.data.prepared import MANIFEST
from mgoe.data.store import Store
from mgoe.errors import DataError, MgoeError
from mgoe.experiments import run
from mgoe.graph import MacroGraph
from tests.data.logs import START, event_settings, exposure_settings, quiet_events, quiet_exposures
from tests.effort import SOAK, slow
from tests.graph.engines.cluster import cluster, connect_server
from tests.spark import SPARK, with_java

pytestmark = with_java
DAY = 86_400
PARTITIONS = "spark.sql.shuffle.partitions"
CONF = {
    "spark.sql.adaptive.coalescePartitions.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
}
TABLES = ("history", "exposures", "train", "valid", "test")


@pytest.fixture
def partitions(spark: Any) -> Iterator[Any]:
    """Sets the number of partitions of what Spark sorts and groups; nothing is compiled for so few rows."""
    conf = spark._session.conf
    before = conf.get(PARTITIONS)
    for name, value in CONF.items():
        conf.set(name, value)
    yield lambda number: conf.set(PARTITIONS, str(number))
    conf.set(PARTITIONS, before)
    for name in CONF:
        conf.unset(name)


def event_rows(seed: int) -> pd.DataFrame:
    """Busy users on a few days, with ids as texts, behaviours of no task, and rows without an item."""
    rng, rows = np.random.default_rng(seed), 300
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, 12, rows),
            "item_id": rng.integers(0, 15, rows),
            "timestamp": START + rng.integers(0, 12 * DAY, rows) // 600 * 600,
            "behavior": rng.choice(["click", "buy", "both", "cart"], rows),
        }
    )
    log = pd.concat([quiet_events(), log, log[:20]])
    log["user_id"] = "ü" + log["user_id"].astype(str)
    log["item_id"] = log["item_id"].where(log["item_id"] != 14).astype("Int64")
    return log.sample(frac=1, random_state=seed)


def of_events(history: str = "cut", **changes: Any) -> RunSettings:
    tasks = [{"name": "click", "behaviors": ["click", "both"]}, {"name": "buy", "behaviors": ["buy", "both"]}]
    return event_settings(
        data={"missing_ids": "drop", "end": "2020-01-12", "history": history},
        tasks=tasks,
        spark=SPARK.model_dump(),
        **({"negatives": {"training_seed": 3}} | changes),
    )


def shown_rows(seed: int) -> pd.DataFrame:
    """Whatever a row may hold, with labels that wait and requests of several rows."""
    rng, rows = np.random.default_rng(seed), 300
    log = quiet_exposures().drop(columns="hour")
    more = pd.DataFrame(
        {
            "user_id": rng.integers(0, 12, rows),
            "item_id": rng.integers(0, 15, rows),
            "timestamp": START + rng.integers(0, 12 * DAY, rows) // 600 * 600,
            "clicked": rng.choice([0, 1, None], rows),
            "bought": rng.choice([0, 1, None], rows),
        }
    )
    log = pd.concat([log, more, more[:30].assign(bought=1.0)]).astype({"clicked": float, "bought": float})
    size = len(log)
    log["known"] = (log["timestamp"] + rng.integers(0, 4 * DAY, size)).where(log["bought"] > 0)
    log["stay"] = np.where(rng.random(size) < 0.2, np.nan, rng.gamma(2.0, 9.0, size).round(3))
    log["request"] = rng.choice(["a", "b", None], size)
    log["weight"] = rng.choice([0.5, 1.0, 2.0], size)
    log["place"] = rng.choice([0.0, 3.0, np.nan], size)
    log["random"] = rng.integers(0, 2, size)
    log["device"] = rng.choice(["phone", "Ünder", "tv", None], size)
    log["level"] = pd.array(rng.choice([1, 20, 3, None], size), "Int64")
    log["price"] = rng.choice([1.25, 1e-7, 3e5, np.nan], size)
    log["tags"] = rng.choice(["a|b", " b||c|b", "a|d|a", "", None], size)
    log["words"] = [[["x", "y"], ["y", None, "x", "z"], [], None][n] for n in rng.integers(0, 4, size)]
    return log.sample(frac=1, random_state=seed)


def of_exposures(folder: Path, **changes: Any) -> RunSettings:
    users = pd.DataFrame({"id": range(9), "age": np.arange(9) / 7, "city": ["u", None, "v"] * 3})
    users.assign(name=users["id"].astype(str)).to_parquet(folder / "users.parquet")
    kinds = {"device": "categorical", "level": "categorical", "price": "numeric", "tags": "multi"}
    side = [{"name": "age", "kind": "numeric"}, {"name": "city"}]
    return exposure_settings(
        data={
            "context": [
                *({"name": name, "kind": kind} for name, kind in kinds.items()),
                {"name": "words", "kind": "multi", "min_count": 40},
            ],
            "request": "request",
            "weight": "weight",
            "position": "place",
            "uniform": "random",
            "users": {"path": str(folder / "users.parquet"), "id": "id", "name": "name", "features": side},
        },
        tasks=[
            {"name": "click", "label": "clicked"},
            {"name": "buy", "label": "bought", "given": "click", "known_at": "known"},
            {"name": "stay", "label": "stay", "kind": "regression", "delay": "36h"},
        ],
        spark=SPARK.model_dump(),
        **changes,
    )


def prepared(settings: RunSettings, log: pd.DataFrame, folder: Path, files: int = 1) -> list[Prepared]:
    """Prepare a log on both engines, from so many files on Spark."""
    (folder / "log").mkdir()
    for number in range(files):
        log[number::files].to_parquet(folder / "log" / f"{number}.parquet", index=False)
    found = []
    for engine in ("local", "spark"):
        data = settings.data.model_copy(update={"log": [str(folder / "log")], "engine": engine})
        found.append(prepare(settings.model_copy(update={"data": data}), folder / engine))
    return found


def rows_of(path: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in Store(path).sizes()])


def check_same(local: Prepared, spark: Prepared) -> None:
    """In every file and in the manifest."""
    tables = {f"{name}.parquet" for name in TABLES}
    assert {file.name for file in spark.path.iterdir()} == {file.name for file in local.path.iterdir()}
    for file in [*local.path.rglob("*")]:
        name = file.relative_to(local.path)
        if name.name in tables:
            found, expected = rows_of(spark.path / name), rows_of(file)
            assert found.schema.names == expected.schema.names, name
            assert found.schema.equals(expected.schema) or name.stem not in ("train", "valid", "test"), name
            assert found.cast(expected.schema).equals(expected), name
        elif file.is_file() and file.suffix != ".parquet" and name.name != MANIFEST:
            assert (spark.path / name).read_bytes() == file.read_bytes(), name
        elif file.is_file() and name.name != MANIFEST:
            assert pq.read_table(spark.path / name).equals(pq.read_table(file)), name
    one, other = (read_json(data.path / MANIFEST) for data in (local, spark))
    for manifest in (one, other):
        manifest["settings"]["data"].pop("engine")
        manifest.pop("files")
    assert one == other
    parts = [
        [np.concatenate(part) for part in zip(*data.history_parts(), strict=True)] for data in (local, spark)
    ]
    assert all(map(np.array_equal, *parts))
    assert spark.history.count().to_pyarrow().as_py() == len(parts[0][0])


# --- the same rows ---


@slow
@pytest.mark.parametrize(
    ("number", "history"), [(1, "cut"), (2, "moment"), (3, "bucket"), (3, "moment"), (7, "cut")]
)
def test_an_event_log(partitions: Any, tmp_path: Path, number: int, history: str):
    partitions(number)
    settings = of_events(history, training={"rows": 400})
    local, spark = prepared(settings, event_rows(number), tmp_path, files=number)
    check_same(local, spark)
    assert local.summary["splits"]["train"]["negatives"] > 20
    assert len(Store(spark.path / "train.parquet").sizes()) > 1 or number == 1


def test_rows_that_a_condition_leaves_out(partitions: Any, tmp_path: Path):
    partitions(2)
    settings = of_events()
    where = "not user_id.endswith('3') and (item_id in [1, 0, 5] or item_id * 2 > 14.5)"
    data = settings.data.model_copy(update={"where": where})
    log = event_rows(1).assign(item_id=lambda rows: rows["item_id"].astype(float))
    local, spark = prepared(settings.model_copy(update={"data": data}), log, tmp_path)
    check_same(local, spark)
    assert sorted(spark.items.ids(np.arange(spark.items.size)).to_pylist()) == [0, 1, 5, *range(8, 14)]


@pytest.mark.parametrize("number", [2, *[1, 3, 7] * SOAK])
def test_an_exposure_log(partitions: Any, tmp_path: Path, number: int):
    partitions(number)
    local, spark = prepared(of_exposures(tmp_path), shown_rows(number), tmp_path, files=number)
    check_same(local, spark)
    assert rows_of(local.path / "train.parquet")["context.tags"].type.list_size > 1
    assert len(Store(spark.path / "train.parquet").sizes()) == number


@slow
@pytest.mark.parametrize("seed", range(8))
def test_many_logs(partitions: Any, tmp_path: Path, seed: int):
    partitions(1 + seed % 5)
    for name, log, settings in (
        ("events", event_rows(seed), of_events(negatives={"distribution": "uniform"})),
        ("exposures", shown_rows(seed), of_exposures(tmp_path)),
    ):
        (tmp_path / name).mkdir()
        check_same(*prepared(settings, log, tmp_path / name, files=1 + seed % 3))


@slow
@pytest.mark.usefixtures("no_spark")
@pytest.mark.parametrize("kind", ["cluster", "connect"])
def test_other_processes_do_the_same(tmp_path: Path, kind: str):
    """Two workers of a standalone cluster, and a server of Spark Connect, share nothing but a path."""
    at = tmp_path / kind
    with cluster(at) if kind == "cluster" else connect_server(at) as found:
        own = {"spark.executor.memory": "512m", "spark.driver.host": "127.0.0.1"} if kind == "cluster" else {}
        master = found if isinstance(found, str) else found.master
        spark = {"spark": SparkSettings(master=master, options={PARTITIONS: 3, **own})}
        for name, log, settings in (
            ("events", event_rows(0), of_events()),
            ("exposures", shown_rows(0), of_exposures(tmp_path)),
        ):
            (tmp_path / name).mkdir()
            check_same(*prepared(settings.model_copy(update=spark), log, tmp_path / name, files=3))


@slow
def test_what_follows_reads_shards(spark: Any, exposures: RunSettings, shown: Path, tmp_path: Path):
    """The graph has all snapshots and rates, on Spark too, and a model learns."""
    raw = exposures.model_dump(mode="json")
    raw["data"]["engine"] = raw["graph"]["engine"] = "spark"
    raw["spark"] = SPARK.model_dump()
    run(RunSettings.model_validate(raw), tmp_path / "run", reuse=True)
    found, expected = (MacroGraph.open(path / "graph").manifest for path in (tmp_path / "run", shown))
    assert found.files == expected.files
    assert (found.engine, len(found.cuts)) == ("spark", 4)


def test_no_bucket_is_divided():
    rng = np.random.default_rng(0)
    for size in (1, 5, 40, 10_000):
        bucket = np.sort(rng.integers(0, 30, 500))
        rows = pa.table({"bucket": bucket, "row": np.arange(500)})
        found = [*whole_buckets(rows.to_batches(max_chunksize=int(rng.integers(1, 60))), size)]
        assert pa.concat_tables(found).equals(rows)
        assert all(one["bucket"][-1] != other["bucket"][0] for one, other in pairwise(found))
        assert all(len(one) >= size for one in found[:-1])
        assert len(found) > 5 or size > 5


# --- what is refused ---


def refusals(settings: RunSettings, log: pa.Table, folder: Path) -> tuple[str, str]:
    """What both engines say of a log; only the local one numbers its rows."""
    pq.write_table(log, folder / "log.parquet")
    said = []
    for engine in ("local", "spark"):
        data = settings.data.model_copy(update={"log": [str(folder / "log.parquet")], "engine": engine})
        with pytest.raises(DataError) as error:
            prepare(settings.model_copy(update={"data": data}), folder / "out")
        assert [file.name for file in folder.iterdir() if file.suffix != ".parquet"] == []
        said.append(re.sub(r" in row \d+", "", str(error.value)))
    return said[0], said[1]


def test_bad_logs_are_refused_alike(spark: Any, tmp_path: Path):
    settings, log = of_exposures(tmp_path), shown_rows(0)
    odd = log.assign(clicked=log["clicked"].where(np.arange(len(log)) != 7, 2.0))
    for bad, rule in (
        (odd, "column 'clicked': a binary label must be 0, 1 or null (missing), found '2.0'; map"),
        *[(log.drop(columns="place"), "column 'place' (data.position) is missing")] * SOAK,
        *[(None, "the log must hold rows, found none")] * SOAK,
    ):
        rows = pa.Table.from_pandas(log if bad is None else bad, preserve_index=False)
        local, found = refusals(settings, rows[:0] if bad is None else rows, tmp_path)
        assert found == local
        assert rule in found


def test_a_csv_is_refused(spark: Any, tmp_path: Path):
    quiet_events().to_csv(tmp_path / "log.csv")
    settings = event_settings(
        data={"engine": "spark", "log": str(tmp_path / "log.csv")}, spark=SPARK.model_dump()
    )
    with pytest.raises(
        DataError, match=r"data.engine: Spark prepares logs in Parquet, found a CSV in .*log.csv"
    ):
        prepare(settings, tmp_path / "out")


@pytest.mark.parametrize("loses", [False, *[True] * SOAK])
def test_a_worker_fails(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loses: bool):
    def fail(*_: Any, **__: Any) -> Any:  # pickled by value, since no worker knows this module
        if loses:
            os._exit(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engines, "write_shard", fail)
    spark._session.range(5).createOrReplaceTempView("five")
    with pytest.raises(MgoeError) as error:  # noqa: SIM117
        with on_spark(ibis.duckdb.connect(), of_events(), tmp_path, tmp_path) as engine:
            engine.write("history.parquet", spark.table("five"))
    said = str(error.value)
    assert loses or "OSError: [Errno 28] No space left on device" in said
    assert said.startswith("spark: Spark failed: ")
    assert said.endswith("; fix the cluster or its disks, and give the same command again")
    assert "\n" not in said
