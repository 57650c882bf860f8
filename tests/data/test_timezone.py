"""Times without a zone are what the clocks of `data.timezone` show: in a log, in settings, in live events."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import RunSettings, SplitSettings, make_settings
from mgoe.data import prepare
from mgoe.data.log import open_source, work_database
from mgoe.data.profile import profile
from mgoe.data.schema import read_rows
from mgoe.data.times import make_cuts, microseconds, moment_of, read_time
from mgoe.errors import ConfigError
from mgoe.serving.events.event import EventReader
from tests.data import logs
from tests.effort import up_to

CHANGES = {
    "America/New_York": [datetime(2024, 3, 10, 2), datetime(2024, 11, 3, 1)],
    "Europe/Berlin": [datetime(2024, 3, 31, 2), datetime(2024, 10, 27, 2)],
    "Australia/Lord_Howe": [datetime(2024, 4, 7, 1, 30), datetime(2024, 10, 6, 2)],  # by half an hour
    "Asia/Shanghai": [datetime(1990, 4, 15, 2), datetime(1990, 9, 16, 1)],
    "Asia/Kathmandu": [],
    "UTC": [],
}
"""Times that the clocks of a zone skip or show twice."""
ZONES = st.sampled_from(list(CHANGES))
CLOCKS = st.lists(st.datetimes(datetime(1970, 1, 2), datetime(2037, 1, 1)), min_size=1, max_size=20)


def around_changes(zone: str) -> list[datetime]:
    return [change + timedelta(minutes=15 * k) for change in CHANGES[zone] for k in range(-8, 9)]


def instant(clock: datetime, zone: str) -> int:
    """The latest moment at which the clocks show a time; for a skipped one, by the offset before."""
    both = [clock.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)]
    return (max(both) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture(scope="module")
def engine() -> Any:
    """Return DuckDB in a session with a time zone that must not matter."""
    backend = ibis.duckdb.connect()
    backend.con.execute("SET TimeZone = 'America/Chicago'")
    return backend


def read(engine: Any, times: Any, zone: str) -> list[int | None]:
    engine.con.register("times", pa.table({"at": times}))
    return read_time(engine.table("times")["at"], "at", "auto", "log", zone=zone).to_pyarrow().to_pylist()


@up_to(15)
@given(clocks=CLOCKS, zone=ZONES, separator=st.sampled_from("T "))
def test_times_without_a_zone_are_the_moments_that_zoneinfo_gives(
    engine: Any, clocks: list[datetime], zone: str, separator: str
):
    clocks = [*clocks, *around_changes(zone)]
    moments = [instant(clock, zone) for clock in clocks]
    written = [f" {clock.isoformat(separator)}" for clock in clocks]
    for times in (written, *(pa.array(clocks, pa.timestamp(unit)) for unit in ("us", "ns"))):
        assert read(engine, times, zone) == moments
    assert [microseconds(clock, zone) for clock in clocks] == moments
    reader = EventReader({}, {}, zone=zone)
    assert [reader.read_time(clock.isoformat(separator), now=2**55) for clock in clocks] == moments


@up_to(8)
@given(clocks=CLOCKS, zone=ZONES)
def test_dates_begin_at_midnight_of_the_zone(engine: Any, clocks: list[datetime], zone: str):
    days = [clock.date() for clock in clocks]
    moments = [instant(datetime.combine(day, time.min), zone) for day in days]
    for times in (days, [day.isoformat() for day in days]):
        assert read(engine, times, zone) == moments
    assert [microseconds(day, zone) for day in days] == moments


@up_to(8)
@given(clocks=CLOCKS, zone=ZONES, other=ZONES)
def test_times_with_a_zone_and_numbers_stay_as_they_are(
    engine: Any, clocks: list[datetime], zone: str, other: str
):
    clocks = [*clocks, *around_changes(other)]
    moments = [instant(clock, "UTC") for clock in clocks]
    aware = [clock.replace(tzinfo=UTC).astimezone(ZoneInfo(other)) for clock in clocks]
    written = [moment.isoformat() for moment in aware]
    for times in (
        written,
        pa.array(aware, pa.timestamp("us", other)),
    ):
        assert read(engine, times, zone) == moments
    assert read(engine, [second := moments[0] // 1_000_000, second], zone) == [second * 1_000_000] * 2
    reader = EventReader({}, {}, zone=zone)
    assert [reader.read_time(text, now=2**55) for text in written] == moments
    assert [microseconds(moment, zone) for moment in aware] == moments


def test_a_time_that_cannot_be_read_is_null_in_every_zone(engine: Any):
    wrong = ["soon", "", "2025-13-01", "2025-01-01T00:00:00 CST", "infinity"]
    assert read(engine, wrong, "Asia/Shanghai") == [None] * len(wrong)


def with_offsets(clock: pd.Timestamp | pd.Series, zone: str) -> Any:
    """Return the moments at which the clocks of a zone show times, none of which they show twice or skip."""
    return clock.dt.tz_localize(zone) if isinstance(clock, pd.Series) else clock.tz_localize(zone).isoformat()


def on_both(settings: Callable[..., RunSettings], zone: str, *bounds: str, **more: Any) -> list[RunSettings]:
    """Return settings with a start, an end and cuts on local clocks, and the same ones with offsets."""
    start, end, *cuts = map(pd.Timestamp, bounds)
    return [
        settings(
            data={"timezone": key, "start": at(start), "end": at(end)},
            split={"cuts": [at(cut) for cut in cuts]},
            **more,
        )
        for key, at in ((zone, str), ("UTC", lambda clock: with_offsets(clock, zone)))
    ]


FORMS = {
    "texts": lambda clock: clock.astype(str),
    "timestamps": lambda clock: clock.astype("datetime64[us]"),
    "nanoseconds": lambda clock: clock.astype("datetime64[ns]"),
}
KNOWN = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", "known_at": "known"}]


@up_to(8)
@given(shown=logs.exposure_rows(), zone=ZONES, form=st.sampled_from(list(FORMS)))
def test_rows_on_local_clocks_are_those_with_offsets(shown: list[Any], zone: str, form: str):
    log = pd.concat([logs.quiet_exposures(), logs.exposures(shown)])
    clock = pd.to_datetime(log["timestamp"] + 7 * 3600, unit="s")
    columns = {"timestamp": clock, "known": clock + pd.Timedelta("1h")}
    bounds = "2020-01-03 07:30", "2020-01-11 07:30", *logs.CUTS  # between the rows of two users
    found = []
    for settings, write in zip(
        on_both(logs.exposure_settings, zone, *bounds, tasks=KNOWN),
        (FORMS[form], lambda clock: with_offsets(clock, zone)),
        strict=True,
    ):
        written = log.assign(**{name: write(column) for name, column in columns.items()})
        rows, count = read_rows(ibis.memtable(written), settings, "log")
        found.append((count, rows.to_pandas().sort_values(list(rows.columns), ignore_index=True)))
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])
    assert 0 < len(found[0][1]) < len(log)


def test_a_log_on_local_clocks_is_prepared_as_the_same_one_with_offsets(tmp_path: Path):
    """Buckets begin at midnight in UTC, which is eight o'clock in Shanghai, and are shown so."""
    zone, log = "Asia/Shanghai", logs.quiet_events()
    clock = pd.to_datetime(log["timestamp"] + 10 * 3600, unit="s")
    cuts = [f"{day} 08:00:00" for day in logs.CUTS]
    local, utc = on_both(logs.event_settings, zone, "2019-12-31", "2020-01-13", *cuts)
    prepared = [
        prepare(settings, tmp_path / name, log.assign(timestamp=times))
        for name, settings, times in (("local", local, clock), ("utc", utc, with_offsets(clock, zone)))
    ]
    assert prepared[0].summary["cuts"] == cuts
    one, other = map(logs.contents, prepared)
    assert one["cuts"].tolist() == other["cuts"].tolist()
    for part in ("history", "examples"):
        pd.testing.assert_frame_equal(one[part], other[part])
    assert profile(local, log.assign(timestamp=clock))["span"]["first"] == "2020-01-01 08:00:00"


@given(days=st.lists(st.integers(1, 60), min_size=3, max_size=6, unique=True), zone=ZONES)
def test_a_date_cuts_at_midnight_of_the_zone(days: list[int], zone: str):
    first = date(2020, 1, 1)
    named = [first + timedelta(days=day) for day in sorted(days)]
    aware = [datetime.combine(day, time.min, ZoneInfo(zone)) for day in named]
    hours = np.arange(24 * 18_260, 24 * 18_330)
    found = [
        make_cuts(SplitSettings(cuts=cuts), "1h", hours, np.ones_like(hours), of)
        for cuts, of in ((named, zone), (aware, "UTC"))
    ]
    assert found[0].tolist() == found[1].tolist()
    if zone != "Asia/Kathmandu" and zone != "Australia/Lord_Howe":  # midnight is between two hours in UTC
        assert [moment_of(int(cut) + 1, "1h", zone) for cut in found[0]] == [str(day) for day in named]


@pytest.mark.parametrize("order", [1, -1])
def test_files_with_and_without_a_zone_are_one_log(tmp_path: Path, order: int):
    """As a log on local clocks and the exposures that a service has taken."""
    clock = datetime(2024, 7, 1, 12)
    kinds = (pa.timestamp("us"), pa.timestamp("us", "UTC"))
    for name, kind in zip("ab"[::order], kinds, strict=True):
        rows = {"user_id": [1], "timestamp": pa.array([clock], kind), "who": [str(kind)]}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    data = make_settings(
        {"data": {"log": str(tmp_path), "timezone": "Asia/Shanghai"}, "tasks": ["click"]}
    ).data
    with work_database(tmp_path / "work", "log", zone=data.timezone) as con:
        source = open_source(con, data, None)
        moment = read_time(source["timestamp"], "timestamp", "auto", "log", zone=data.timezone)
        found = source.select("who", at=moment).to_pyarrow().to_pylist()
    assert {row["who"]: row["at"] for row in found} == {
        str(kind): microseconds(clock, zone)
        for kind, zone in zip(kinds, ("Asia/Shanghai", "UTC"), strict=True)
    }


@pytest.mark.parametrize(
    ("zone", "found"),
    [
        ("Asia/Shangai", r"found 'Asia/Shangai'; did you mean 'Asia/Shanghai'\?$"),
        ("asia/shanghai", r"found 'asia/shanghai'; did you mean 'Asia/Shanghai'\?$"),
        ("Shanghai", r"found 'Shanghai'; did you mean 'Asia/Shanghai'\?$"),
        ("+08:00", r"found '\+08:00'$"),
        ("", "found ''$"),
        ("localtime", "found 'localtime'"),
        ("../../etc/passwd", "found '../../etc/passwd'"),
    ],
)
def test_a_zone_that_does_not_exist_is_refused(zone: str, found: str):
    rule = "settings: data.timezone: must be the IANA name of a time zone, such as Asia/Shanghai, "
    with pytest.raises(ConfigError, match=rule + found):
        make_settings({"data": {"log": "log.parquet", "timezone": zone}, "tasks": ["click"]})


def test_a_zone_is_kept_by_saved_settings():
    settings = logs.event_settings(data={"timezone": "Europe/Berlin"})
    assert RunSettings.model_validate(settings.model_dump(mode="json")) == settings
