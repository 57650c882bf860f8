"""Rows that count: a condition leaves out what filtering the log beforehand would."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe import experiments
from mgoe.config import DataSettings
from mgoe.data import profile
from mgoe.data.size import LogSize
from mgoe.data.where import rows_where
from mgoe.errors import ConfigError
from mgoe.lifecycle.graphs import update_macro_graph
from tests.data import logs

CONDITIONS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "quantity > 0": lambda rows: rows.quantity > 0,
    'quantity >= 0 and not _["the invoice"].startswith("C")': lambda rows: (
        (rows.quantity >= 0) & ~rows["the invoice"].str.startswith("C")
    ),
    "-1 <= quantity < 2 or user_id == 5": lambda rows: rows.quantity.between(-1, 1) | (rows.user_id == 5),
    "quantity.isnull() or quantity not in [1, 2]": lambda rows: ~rows.quantity.isin([1, 2]),
    "quantity.between(0, 1) or behavior in ('buy',)": lambda rows: (
        rows.quantity.between(0, 1) | (rows.behavior == "buy")
    ),
    "quantity * 2 - 1 > user_id / 2": lambda rows: rows.quantity * 2 - 1 > rows.user_id / 2,
}


def with_columns(rows: list, quantities: list[int | None], invoices: list[str]) -> pd.DataFrame:
    """A log of rows, and of users who click and buy every day, whom every condition keeps."""
    size = len(rows)
    more = logs.events(rows).assign(**{"quantity": quantities[:size], "the invoice": invoices[:size]})
    quiet = logs.quiet_events().assign(**{"quantity": 1, "the invoice": "7"})
    quiet["user_id"] += 5 * (quiet["user_id"] > 0)
    kept = pd.concat([quiet, quiet.assign(quantity=None, user_id=5, behavior="buy"), more], ignore_index=True)
    return kept.astype({"quantity": "Int64"})


@given(
    st.sampled_from([*CONDITIONS]),
    logs.event_rows(),
    st.lists(st.sampled_from([-1, 0, 1, 2, None]), min_size=25, max_size=25),
    st.lists(st.sampled_from(["C1", "7", "c"]), min_size=25, max_size=25),
    st.booleans(),
)
def test_a_condition_is_a_log_without_those_rows(where, rows, quantities, invoices, file):
    log = with_columns(rows, quantities, invoices)
    kept = log.loc[CONDITIONS[where](log).fillna(False).astype(bool)]
    with TemporaryDirectory() as folder:
        log.to_parquet(name := str(Path(folder) / "log.parquet"), index=False)
        source = ibis.duckdb.connect().read_parquet(name) if file else ibis.memtable(log)
        found = rows_where(source, DataSettings(log=[name], where=where)).to_pandas()
    pd.testing.assert_frame_equal(
        found.astype(log.dtypes.to_dict()).reset_index(drop=True), kept.reset_index(drop=True)
    )


@pytest.fixture
def some_rows(tmp_path: Path) -> tuple[Path, Path]:
    """A log with rows that do not count, which have no user or come before all others, and one without."""
    rows = [(1, 2, day, "click") for day in range(logs.DAYS)]
    kept = with_columns(rows, [1] * len(rows), ["7"] * len(rows)).assign(quantity=1)
    lost = kept.assign(quantity=-1, user_id=None, timestamp=kept["timestamp"] - 900 * logs.DAY)
    files = tmp_path / "whole.parquet", tmp_path / "kept.parquet"
    pd.concat([kept[:9], lost, kept[9:]]).astype({"user_id": "Int64"}).to_parquet(files[0])
    kept.to_parquet(files[1])
    return files


def settings_of(file: Path, where: str | None, **changes: Any):
    return logs.event_settings(data={"log": str(file), "where": where}, **changes)


def test_every_reader_of_a_log_leaves_the_rows_out(some_rows: tuple[Path, Path], tmp_path: Path):
    filtered, kept = (
        settings_of(file, where) for file, where in zip(some_rows, ("quantity > 0", None), strict=True)
    )
    described = [profile(settings) for settings in (filtered, kept)]
    assert described[0] == described[1]
    sizes = [LogSize.of(settings) for settings in (filtered, kept)]
    assert repr(sizes[0]) == repr(sizes[1])
    frames = [pd.read_parquet(file) for file in some_rows]
    one, other = (
        logs.contents(logs.prepared(log, settings, tmp_path / name))
        for name, log, settings in zip(("one", "other"), frames, (filtered, kept), strict=True)
    )
    assert repr(one) == repr(other)


def test_an_update_of_a_graph_leaves_the_rows_out(some_rows: tuple[Path, Path], tmp_path: Path):
    graphs = []
    for name, file, where in zip(("one", "other"), some_rows, ("quantity > 0", None), strict=True):
        changes = {"graph": {"snapshots": "last", "resolutions": [[2, 2]]}}
        settings = settings_of(file, where, **changes)
        experiments.macro_graph(settings, tmp_path / name)
        later = pd.read_parquet(file)
        later["timestamp"] += 100 * logs.DAY
        later.to_parquet(file)
        graphs.append(update_macro_graph(tmp_path / name, [str(file)]))
    assert [graph.manifest.users for graph in graphs] == [[4], [4]]
    files = [graph.path.parent / "graph" for graph in graphs]
    tables = [sorted(path.name for path in folder.glob("*.parquet")) for folder in files]
    assert tables[0] == tables[1]
    assert tables[0]
    for name in tables[0]:
        assert pq.read_table(files[0] / name).equals(pq.read_table(files[1] / name)), name


def test_a_condition_is_part_of_what_was_prepared(some_rows: tuple[Path, Path]):
    from mgoe.pipeline.values import values_of_run

    values = [values_of_run(settings_of(some_rows[0], where)) for where in (None, "quantity > 0")]
    assert values[0] != values[1]
    assert "where" not in values[0]["data"]  # so what was prepared before conditions existed stays


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("Quantity > 0", "must name columns of the log, found 'Quantity'; did you mean 'quantity'?"),
        ("quantity", "must be true or false for each row, found 'quantity', which is of the type int64"),
        ("1 == 1", "must be true or false for each row"),
        ("quantity > 'a'", "must compare values of one type"),
        ("quantity in [1, 'a']", "must compare values of one type"),
        ("user_id.startswith('C')", "must compare values of one type"),
        ("behavior.startswith(5)", "must compare values of one type"),
        ("quantity > 0 and", "must be one condition, found 'quantity > 0 and'"),
        ("quantity = 1", "must be one condition"),
        ("quantity > (select 1)", "must be one condition"),
        ("quantity > 0; True", "must be one condition"),
        ("(" * 3000, "must be one condition"),
        (
            "quantity > quantity.mean()",
            "must be a condition on the columns of a row, found 'quantity.mean()'",
        ),
        ("__import__('os').system('true')", "must be a condition on the columns of a row"),
        ("[1]", "must be a condition on the columns of a row, found '[1]'"),
        ("quantity in item_id", "must be a condition on the columns of a row"),
        ("_['quantity'].__class__", "must be a condition on the columns of a row"),
        ("quantity is None", "must be a condition on the columns of a row"),
    ],
)
def test_what_is_no_condition_is_refused(where: str, rule: str):
    rows = ibis.memtable(with_columns([], [], []))
    with pytest.raises(ConfigError, match=re.escape(rule)) as refused:
        rows_where(rows, DataSettings(log=["-"], where=where))
    assert refused.value.place == "data.where"
