"""A time written as text is the moment that it says, wherever it is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data.columns import read_time

ZONES = st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)))
SPAN = datetime(1970, 1, 2), datetime(2100, 1, 1)
MOMENTS = st.datetimes(*SPAN) | st.datetimes(*SPAN, timezones=ZONES)


def microseconds(moment: datetime) -> int:
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture(scope="module", params=["UTC", "America/New_York"])
def engine(request: pytest.FixtureRequest) -> Any:
    """DuckDB in a session whose own zone must not matter."""
    backend = ibis.duckdb.connect()
    backend.con.execute(f"SET TimeZone = '{request.param}'")
    return backend


def read(engine: Any, texts: list[str]) -> list[int | None]:
    engine.con.register("texts", pa.table({"at": texts}))
    return read_time(engine.table("texts")["at"], "at", "auto", "log").to_pyarrow().to_pylist()


@given(moments=st.lists(MOMENTS, min_size=1, max_size=20), separator=st.sampled_from("T "))
def test_an_offset_is_heeded_and_none_is_utc(engine: Any, moments: list[datetime], separator: str):
    assert read(engine, [moment.isoformat(separator) for moment in moments]) == [microseconds(moment) for moment in moments]


def test_other_ways_to_write_a_moment(engine: Any):
    midnight = microseconds(datetime(2025, 1, 1))
    assert read(engine, ["2025-01-01", "2025-01-01T00:00:00Z", "2025-01-01 00:00", "2025-01-01T05:30:00+0530"]) == [midnight] * 4


def test_what_is_no_time_is_null(engine: Any):
    assert read(engine, ["soon", "", "2025-13-01", "2025-01-01T00:00:00 Nowhere"]) == [None] * 4
