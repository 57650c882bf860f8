"""A log that lies in memory is read as the file that it would be written to."""

from pathlib import Path
from typing import Any
from uuid import UUID

import ibis
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mgoe.config import RunSettings
from mgoe.data import prepare, profile
from mgoe.data.log import as_table
from mgoe.errors import DataError, MgoeError
from mgoe.experiments import macro_graph, run
from tests.data import logs
from tests.effort import SOAK

EVENTS = logs.quiet_events().assign(user_id=lambda log: "u" + log["user_id"].astype(str))
FRAMES: dict[str, Any] = {
    "pandas": lambda log: log,
    "pandas with categories": lambda log: log.astype({"behavior": "category", "user_id": "category"}),
    "pandas with an index": lambda log: log.set_index("user_id"),
    "polars": pl.from_pandas,
    "polars with categories": lambda log: pl.from_pandas(log).with_columns(
        pl.col("behavior").cast(pl.Categorical)
    ),
    "Arrow": lambda log: pa.Table.from_pandas(log, preserve_index=False),
    "Arrow, one batch": lambda log: pa.RecordBatch.from_pandas(log, preserve_index=False),
    "Ibis": ibis.memtable,
}


@pytest.fixture(scope="module")
def of_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSettings, dict[str, Any], dict[str, Any]]:
    """Settings of the log in a file, what it is prepared to, and its profile."""
    folder = tmp_path_factory.mktemp("frames")
    EVENTS.to_parquet(folder / "log.parquet")
    settings = logs.event_settings(data={"log": str(folder / "log.parquet")})
    return settings, logs.contents(prepare(settings, folder / "file")), profile(settings)


@pytest.mark.parametrize("kind", FRAMES if SOAK else [*FRAMES][1::2])
def test_a_frame_is_read_like_its_file(kind: str, tmp_path: Path, of_file: tuple[RunSettings, dict, dict]):
    settings, expected, profiled = of_file
    found = logs.contents(prepare(settings, tmp_path / "frame", FRAMES[kind](EVENTS)))
    tables = ("history", "examples")
    for name in tables:
        pd.testing.assert_frame_equal(found[name], expected[name])
    one, other = (
        {name: value for name, value in each.items() if name not in tables} for each in (found, expected)
    )
    assert repr(one) == repr(other)
    assert profile(settings, FRAMES[kind](EVENTS)) == profiled


@pytest.mark.parametrize(
    "table",
    [[1], 7, "log.parquet", {"user_id": [1]}, pd.Series([1]), pd.DataFrame({"a": [1, "b"]}), pa.array([1])],
)
def test_other_objects_than_tables_are_refused(table: Any):
    with pytest.raises(
        DataError,
        match=r"table: must be a table of Ibis or a frame of pandas, polars or Arrow.*, found .*; "
        r"(convert|fix)",
    ):
        as_table(table)


@pytest.mark.parametrize(
    "column",
    [
        pd.period_range("2025-01-01", periods=2),
        pd.interval_range(0, 2),
        pd.to_timedelta([1, 2], unit="s"),
        pd.array([1.5, 2.5]).astype("float16"),
    ],
    ids=["periods", "intervals", "durations", "half floats"],
)
def test_a_column_of_a_type_that_nothing_reads_is_named(column: Any):
    with pytest.raises(DataError, match="column 'extra': must hold numbers, texts, times or lists"):
        as_table(pd.DataFrame({"extra": column}))


def test_ids_may_be_uuids_of_python():
    ids = [UUID(int=7), None, UUID(int=2**127)]
    found = as_table(pd.DataFrame({"user_id": ids})).to_pyarrow()["user_id"].to_pylist()
    assert found == [None if one is None else str(one) for one in ids]


def test_a_table_is_checked_wherever_it_is_accepted(tmp_path: Path):
    settings = logs.event_settings()
    whole = logs.event_settings(graph={"snapshots": "last", "resolutions": [[2, 2]]})
    wrong: Any = [1]
    for take in (
        lambda: prepare(settings, tmp_path / "prepared", wrong),
        lambda: profile(settings, wrong),
        lambda: run(settings, tmp_path / "run", table=wrong),
        lambda: macro_graph(settings, tmp_path / "graph", table=wrong),
        lambda: macro_graph(whole, tmp_path / "whole", table=wrong),
    ):
        with pytest.raises(MgoeError, match="table: must be a table of Ibis"):
            take()
    assert macro_graph(whole, tmp_path / "good", table=EVENTS).manifest.users[-1] == 2
