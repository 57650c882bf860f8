"""Connections to DuckDB, and checksums of rows, which every engine has to agree on."""

import ast
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe._util.tables import checksum, open_duckdb


@pytest.fixture(scope="module")
def engine() -> Any:
    return ibis.duckdb.connect()


@given(numbers=st.lists(st.integers(0, (1 << 63) - 1), min_size=1))
def test_a_checksum_is_the_sum_as_far_as_63_bits_hold_it(engine: Any, numbers: list[int]):
    """A few large numbers for the billions of small ones of a long log."""
    engine.con.register("rows", pa.table({"number": pa.array(numbers, pa.int64())}))
    rows = engine.table("rows")
    found = rows.aggregate(found=checksum(rows.number)).to_pyarrow()["found"][0].as_py()
    assert found == sum(numbers) % (1 << 63)


class NotebookWithoutWidgets:
    """A connection in a notebook without ipywidgets, where DuckDB refuses every setting of its bar."""

    def __init__(self, con: duckdb.DuckDBPyConnection):
        self.con = con

    def execute(self, query: str) -> duckdb.DuckDBPyConnection:
        if "SET enable_progress_bar" in query:
            raise duckdb.InvalidInputException("required package 'ipywidgets' is missing")
        return self.con.execute(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.con, name)


@pytest.mark.parametrize("widgets", [True, False])
def test_the_progress_bar_of_duckdb_is_off(widgets: bool, monkeypatch: pytest.MonkeyPatch):
    """As in a process without a script, where DuckDB switches it on."""
    connect = duckdb.connect

    def interactive(*args: Any, **settings: Any) -> Any:
        con = connect(*args, **settings)
        con.execute(f"SET enable_progress_bar = {str(widgets).lower()}")
        return con if widgets else NotebookWithoutWidgets(con)

    monkeypatch.setattr(duckdb, "connect", interactive)
    shown = open_duckdb().con.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    assert shown == [(False,)]


def test_only_one_place_connects_to_duckdb():
    made = [
        file.name
        for file in sorted(Path(mgoe.__path__[0]).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("duckdb.connect", "ibis.duckdb.connect")
    ]
    assert made == ["tables.py"]
