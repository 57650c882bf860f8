"""A time written as text is the moment that it says, wherever it is read."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data.times import read_time
from mgoe.errors import DataError

ZONES = st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)))
SPAN = datetime(1970, 1, 2), datetime(2100, 1, 1)
MOMENTS = st.datetimes(*SPAN) | st.datetimes(*SPAN, timezones=ZONES)


def microseconds(moment: datetime) -> int:
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture(scope="module", params=["UTC", "America/New_York"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Return DuckDB in a session with a time zone that must not matter."""
    backend = ibis.duckdb.connect()
    backend.con.execute(f"SET TimeZone = '{request.param}'")
    return backend


def read(engine: Any, texts: list[str]) -> list[int | None]:
    engine.con.register("texts", pa.table({"at": texts}))
    return read_time(engine.table("texts")["at"], "at", "auto", "log").to_pyarrow().to_pylist()


@given(moments=st.lists(MOMENTS, min_size=1, max_size=20), separator=st.sampled_from("T "))
def test_an_offset_is_respected_and_its_absence_means_utc(
    engine: Any, moments: list[datetime], separator: str
):
    assert read(engine, [moment.isoformat(separator) for moment in moments]) == [
        microseconds(moment) for moment in moments
    ]


def test_other_ways_to_write_a_moment(engine: Any):
    midnight = microseconds(datetime(2025, 1, 1))
    assert (
        read(
            engine,
            [
                "2025-01-01",
                "2025-01-01T00:00:00Z",
                "2025-01-01 00:00",
                "2025-01-01T05:30:00+0530",
                " 2025-01-01 ",
            ],
        )
        == [midnight] * 5
    )


@given(
    moments=st.lists(st.datetimes(*SPAN, timezones=st.just(UTC)), min_size=1, max_size=20),
    separator=st.sampled_from("T "),
    data=st.data(),
)
def test_utc_has_four_names(engine: Any, moments: list[datetime], separator: str, data: st.DataObject):
    texts = [
        moment.replace(tzinfo=None).isoformat(separator)
        + data.draw(st.sampled_from(["Z", "z", " UTC", " GMT", "+00"]))
        for moment in moments
    ]
    assert read(engine, texts) == [microseconds(moment) for moment in moments]


def test_the_short_name_of_a_zone_is_not_guessed(engine: Any):
    zones = ("BST", "CST", "IST", "EST", "PST8PDT", "America/New_York", "A", "UTC+1", "utc")
    wrong = [
        f"2026-07-31{separator}10:15:00{space}{zone}"
        for zone in zones
        for separator in "T "
        for space in ("", " ")
    ]
    assert read(engine, wrong) == [None] * len(wrong)


def test_text_that_is_not_a_time_is_null(engine: Any):
    wrong = [
        "soon",
        "",
        "2025-13-01",
        "2025-01-01T00:00:00 Nowhere",
        "01/02/2025",
        "1/2/25",
        "25-01-02",
        "infinity",
        "epoch",
    ]
    assert read(engine, wrong) == [None] * len(wrong)


NUMBERS = {
    unit: st.integers(315_532_800 * scale, 4_102_444_800 * scale)
    for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6))
}
"""From 1980 to 2100, in each unit."""
UNITS = st.sampled_from(list(NUMBERS))


@given(
    data=st.data(),
    unit=UNITS,
    other=UNITS,
    kind=st.sampled_from([pa.int64(), pa.float64(), pa.decimal128(38, 0), pa.decimal128(30, 6)]),
)
def test_a_few_odd_numbers_do_not_change_the_others(
    engine: Any, data: st.DataObject, unit: str, other: str, kind: pa.DataType
):
    """Numbers that would change the others are refused."""
    many = data.draw(st.lists(NUMBERS[unit], min_size=4, max_size=8))
    few = data.draw(st.lists(NUMBERS[other], max_size=3)) + data.draw(
        st.lists(st.sampled_from([0, -1]), max_size=20)
    )  # unknown
    engine.con.register(
        "numbers", pa.table({"at": pa.array([*many, *few, None]).cast(pa.decimal128(38)).cast(kind)})
    )
    column = engine.table("numbers")["at"]
    if max(few, default=0) > 10 ** (2 + {"s": 9, "ms": 12, "us": 15}[unit]):
        with pytest.raises(
            DataError,
            match=rf"numeric times must be of one unit, found .* where most are {unit}; .* or set "
            r"data.time_unit",
        ):
            read_time(column, "at", "auto", "log")
    else:
        scale = {"s": 10**6, "ms": 10**3, "us": 1}[unit]
        found = read_time(column, "at", "auto", "log").to_pyarrow().to_pylist()
        assert found == [*(number * scale for number in many + few), None]


def test_a_decimal_keeps_its_microseconds(engine: Any):
    engine.con.register(
        "numbers", pa.table({"at": pa.array([Decimal("1700000000.123456"), Decimal("4102444799.999999")])})
    )
    found = read_time(engine.table("numbers")["at"], "at", "auto", "log").to_pyarrow().to_pylist()
    assert found == [1_700_000_000_123_456, 4_102_444_799_999_999]
