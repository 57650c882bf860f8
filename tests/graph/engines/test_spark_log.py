"""`mgoe graph build` of a whole log on Spark: it is read and numbered there, and the graph is that of the
local engine.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mgoe import experiments
from mgoe._util.tables import checksum, computed
from mgoe.cli import app
from mgoe.config import FeatureSettings, RunSettings, dump_settings
from mgoe.data.columns import read_id
from mgoe.data.features import fit_encoders
from mgoe.data.requests import merged
from mgoe.data.times import read_time
from mgoe.errors import DataError
from mgoe.experiments import graphs
from mgoe.graph import MacroGraph
from mgoe.graph.build.rate_counter import RECORDS
from mgoe.graph.build.workplace import Observer
from tests.effort import SOAK, slow
from tests.graph.engines.test_spark import LOCAL, check_identical
from tests.graph.engines.test_spark import pytestmark as pytestmark
from tests.graph.histories import contents, differences
from tests.sharing import Shared
from tests.spark import SPARK


@pytest.fixture(scope="module")
def texts(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated log in two files, with ids as texts and times in nanoseconds, as pandas writes them."""
    rows = pd.read_parquet(world / "events")
    rows["user_id"], rows["item_id"] = (
        "\u00fc" + rows["user_id"].astype(str),
        "I-" + rows["item_id"].astype(str),
    )
    rows["timestamp"] = rows["timestamp"].astype("datetime64[ns]") + pd.Timedelta(999, "ns")
    folder = tmp_path_factory.mktemp("texts")
    for number, part in enumerate((rows[::2], rows[1::2])):
        part.to_parquet(folder / f"{number}.parquet")
    return folder


def settings(small: RunSettings, log: Path, **graph: Any) -> RunSettings:
    raw = small.model_dump(mode="json")
    raw["data"]["log"] = [str(log)]
    raw["spark"] = graph.pop("spark", SPARK).model_dump()
    raw["graph"] |= {"snapshots": "last", **graph}
    return RunSettings.model_validate(raw)


@pytest.fixture(scope="module")
def local(small: RunSettings, world: Path, shared: Shared) -> MacroGraph:
    """The graph of the simulated log as the local engine builds it."""
    log = settings(small, world / "events")
    return MacroGraph.open(shared("spark-local", lambda path: experiments.macro_graph(log, path)) / "graph")


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the log is brought to the driver")


class Cut(BaseException):
    """What a test cuts a build off with."""


class CutOff(Observer):
    """Cuts a build off when it begins with macro nodes."""

    def __init__(self, *args: Any):
        pass

    def stage(self, name: str, total: int, unit: str) -> Any:
        if "clusters" in name:
            raise Cut
        return super().stage(name, total, unit)


def check_nodes(one: MacroGraph, other: MacroGraph) -> None:
    """Both have numbered users and items alike."""
    for file in ("users.parquet", "items.parquet"):
        assert pq.read_table(one.path / file).equals(pq.read_table(other.path / file))


@slow
@pytest.mark.parametrize("ids", ["whole numbers", "texts"])
def test_the_command_reads_the_log_on_spark(
    spark: Any,
    small: RunSettings,
    world: Path,
    texts: Path,
    local: MacroGraph,
    tmp_path: Path,
    ids: str,
    monkeypatch: pytest.MonkeyPatch,
):
    log, expected = world / "events", local
    if ids == "texts":
        log, expected = texts, experiments.macro_graph(settings(small, texts), tmp_path / "local")
    (tmp_path / "run.yaml").write_text(dump_settings(settings(small, log, **LOCAL)))
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "connect", refuse)
        command = ["graph", "build", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "spark")]
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = MacroGraph.open(tmp_path / "spark" / "graph")
    check_identical(found, expected)
    check_nodes(found, expected)
    assert sorted(path.name for path in found.path.parent.iterdir()) == [
        "graph",
        "graph.asked.json",
        "run.json",
        "settings.yaml",
        "source.json",
    ]


@slow
def test_exposures_on_spark_are_counted_as_on_the_local_engine(
    spark: Any, exposures: RunSettings, world: Path, tmp_path: Path
):
    rows = pd.read_parquet(world / "exposures")[::10]
    rows["position"] = rows["position"].where(rows["user_id"] % 5 > 0)
    rows["query"] = np.array(["a|b", " b||c|b", None, "a|d|a"], object)[rows["item_id"] % 4]
    rows.to_parquet(tmp_path / "log.parquet")
    data = exposures.data.model_copy(
        update={"context": [*exposures.data.context, FeatureSettings(name="query", kind="multi")]}
    )
    shown, log = (
        exposures.model_copy(update={"data": data, "tasks": exposures.tasks[::2]}),
        tmp_path / "log.parquet",
    )
    groups = ["user", "device", "users.community x item", *["device x user"] * SOAK, "query x device"]
    expected = experiments.macro_graph(settings(shown, log, rates=groups), tmp_path / "local")
    found = experiments.macro_graph(settings(shown, log, rates=groups, **LOCAL), tmp_path / "spark")
    assert found.manifest.checksum == expected.manifest.checksum
    records, same = (pq.read_table(graph.path / RECORDS) for graph in (found, expected))
    assert records.cast(same.schema).equals(same)
    assert {*records["position"].to_pylist()} == {0, *range(2, 12)}
    assert differences(contents(found, 0), contents(expected, 0)) == []


def test_rows_of_one_exposure_are_merged_alike(spark: Any, exposures: RunSettings):
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 2, 200) for name in ("user", "item", "label_click", "context_device")}
    labels = {"label_buy": pa.nulls(200, pa.float32()), "label_stay": rng.random(200, np.float32)}
    request = [None, "a", "b", "c"]
    rows = pa.table(
        {
            **columns,
            **labels,
            "time": rng.integers(0, 9, 200),
            "request": pa.array([request[n] for n in rng.integers(0, 4, 200)]),
        }
    )
    data = exposures.data.model_copy(update={"request": "rid"})
    settings = exposures.model_copy(update={"data": data})
    spark._session.createDataFrame(rows.to_pandas()).createOrReplaceTempView("exposures")
    found, expected = (
        computed(merged(table, settings))
        .to_pandas()
        .sort_values(["user", "item", "request", "time"])
        .astype(object)
        .fillna(-1)
        for table in (spark.table("exposures"), ibis.memtable(rows))
    )
    for name in expected.columns.drop("label_buy"):
        assert found[name].tolist() == expected[name].tolist(), name
    assert len(found) < 60


def test_spark_refuses_a_zone(spark: Any):
    """It does not say which of its timestamps have one."""
    frame = pd.DataFrame({"at": ["2024-01-01 00:00:00"]})
    spark._session.createDataFrame(frame).createOrReplaceTempView("times")
    with pytest.raises(
        DataError,
        match=r"UTC, found data.timezone Asia/Shanghai; .* set data.engine and graph.engine to local",
    ):
        read_time(spark.table("times")["at"], "at", "auto", "log", zone="Asia/Shanghai")


@slow
def test_a_build_of_a_log_on_spark_goes_on_with_the_other_engine(
    spark: Any, small: RunSettings, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both engines number alike and find the log unchanged, whatever hashes of their own they have."""
    out = tmp_path / "spark"
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "ShowBuild", CutOff)
        with pytest.raises(Cut):
            experiments.macro_graph(settings(small, texts, **LOCAL), out)
    found = experiments.macro_graph(settings(small, texts), out)
    expected = experiments.macro_graph(settings(small, texts), tmp_path / "local")
    check_identical(found, expected)
    check_nodes(found, expected)
    assert found.manifest.engine == "local"


@pytest.mark.parametrize("separator", ["|", "."])
def test_a_separator_is_no_regular_expression(spark: Any, separator: str):
    rows = pd.DataFrame({"tags": [separator.join(["shoes", "hats"]), "hats"]})
    spark._session.createDataFrame(rows).createOrReplaceTempView("tagged")
    feature = FeatureSettings(name="tags", kind="multi", separator=separator)
    found = fit_encoders(spark.table("tagged"), {"tags": "tags"}, [feature])
    assert found.vocabularies["tags"].ids(np.arange(2)).to_pylist() == ["hats", "shoes"]
    assert found.lengths == {"tags": 2}


def test_offsets_of_times_are_heeded_alike(spark: Any):
    """By either engine; a text without one is UTC, and one that is no time is null."""
    rows = pa.table(
        {
            "at": [
                "2025-01-01T00:00:00+02:00",
                "2025-01-01 00:00:00-0800",
                "2025-01-01T00:00:00.25Z",
                "2025-01-01",
                "soon",
            ]
        }
    )
    spark._session.createDataFrame(rows.to_pandas()).createOrReplaceTempView("texts")
    found = read_time(spark.table("texts")["at"], "at", "auto", "log")
    expected = read_time(ibis.memtable(rows)["at"], "at", "auto", "log")
    assert found.to_pyarrow().to_pylist() == expected.to_pyarrow().to_pylist()
    assert expected.to_pyarrow().to_pylist()[:2] == [1_735_682_400_000_000, 1_735_718_400_000_000]


def test_decimals_are_read_alike(spark: Any):
    """As ids and as times, by either engine; a fraction of an id breaks a rule, and a few times of another
    unit are refused.
    """
    whole, broken, odd = (
        [Decimal(text) for text in texts]
        for texts in (["7.00", "120.00"], ["7.50", "0.01"], ["7e9", "7e9", "4e14"])
    )
    for values in (whole, broken, odd):
        rows = pa.table({"at": pa.array(values, pa.decimal128(38, 10))})
        spark._session.createDataFrame(rows).createOrReplaceTempView("decimals")
        found, bad = [], []
        for column in (spark.table("decimals")["at"], ibis.memtable(rows)["at"]):
            read, checks = read_id(column, "at", "log")
            found.append(read.to_pyarrow().to_pylist())
            bad.append(checks[-1].bad.to_pyarrow().to_pylist())
            if values is odd:
                with pytest.raises(
                    DataError, match="numeric times must be of one unit, found 400000000000000"
                ):
                    read_time(column, "at", "auto", "log")
            else:
                assert read_time(column, "at", "auto", "log").to_pyarrow().to_pylist() == [
                    int(value * 10**6) for value in values
                ]
        assert bad == [[value % 1 != 0 for value in values]] * 2
        assert values is broken or found == [[str(int(value)) for value in values]] * 2


def test_fractions_of_a_microsecond_are_rounded_alike(spark: Any):
    """Cut off, the last moment would be of the day before. A number that is no time at all is null."""
    rows = pa.table({"at": [1_700_000_000.1234567, 86_399.9999997, -0.0000007, 1e300]})
    spark._session.createDataFrame(rows.to_pandas()).createOrReplaceTempView("fractions")
    for column in (spark.table("fractions")["at"], ibis.memtable(rows)["at"]):
        assert read_time(column, "at", "s", "log").to_pyarrow().to_pylist() == [
            1_700_000_000_123_457,
            86_400_000_000,
            -1,
            None,
        ]


def test_a_checksum_does_not_overflow(spark: Any):
    """A few large numbers for the billions of small ones of a long log."""
    numbers = [(1 << 63) - 1, (1 << 62) + 12345, 1 << 62, 7]
    spark._session.createDataFrame(pd.DataFrame({"number": numbers})).createOrReplaceTempView("numbers")
    rows = spark.table("numbers")
    found = rows.aggregate(found=checksum(rows.number)).to_pyarrow()["found"][0].as_py()
    assert found == sum(numbers) % (1 << 63)


@slow
def test_a_table_of_the_warehouse_stays_there(
    spark: Any,
    small: RunSettings,
    world: Path,
    local: MacroGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """A table of its owner's: an expression over what is stored there."""
    rows = spark.read_parquet(str(world / "events"))
    table = rows.filter(rows.behavior != "cart")
    for way in ("to_pyarrow_batches", "to_parquet"):
        monkeypatch.setattr(type(table), way, refuse)
    found = experiments.macro_graph(
        settings(small, world / "events", **LOCAL), tmp_path / "spark", table=table
    )
    check_identical(found, local)


@slow
def test_a_csv_is_read_in_this_process(spark: Any, small: RunSettings, world: Path, tmp_path: Path):
    """Where what a column is, is guessed; so both engines guess alike."""
    pd.read_parquet(world / "events").to_csv(tmp_path / "log.csv", index=False)
    found = experiments.macro_graph(settings(small, tmp_path / "log.csv", **LOCAL), tmp_path / "spark")
    check_identical(found, experiments.macro_graph(settings(small, tmp_path / "log.csv"), tmp_path / "local"))


def test_a_truncated_file_is_named(spark: Any, small: RunSettings, texts: Path, tmp_path: Path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.parquet").write_bytes((texts / "0.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read: the Parquet file is truncated"):
        experiments.macro_graph(settings(small, tmp_path / "log", **LOCAL), tmp_path / "spark")
