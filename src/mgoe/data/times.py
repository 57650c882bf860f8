"""Time in a log: microseconds since 1970, buckets, and the cuts between windows.

A moment is microseconds since 1970, UTC, with one reader per representation. A time without a zone, in
a log, in settings and in messages, is what the clocks of `data.timezone` show.

Bucket b holds the moments in [b, b + 1) bucket lengths since 1970. Cut k is the number of the last bucket
before it: snapshot k is the history with bucket <= cuts[k], window k the examples with cuts[k] < bucket <=
cuts[k + 1]. So no example reads an event of its own bucket, unless rows read up to their moment.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.datatypes as dt
import numpy as np
from numpy.typing import NDArray

from mgoe.config import DataSettings, SplitSettings, seconds
from mgoe.data.columns import Expr, Table, only_row, wrong_type
from mgoe.errors import DataError

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds of each unit; a nanosecond (`ns`) is shorter."""
_LIMITS = {"s": 10**11, "ms": 10**14, "us": 10**17}
"""A number since 1970 of at least this size is in the next smaller unit: the limit is the year 5138 in
each."""
_DATES = {
    "YYYYMMDD": (19_000_101, 21_001_231),
    "YYYYMMDDhhmm": (190_001_010_000, 210_012_312_359),
    "YYYYMMDDhhmmss": (19_000_101_000_000, 21_001_231_235_959),
}
"""Dates written as numbers. Read as numbers since 1970 they would mean 1970, 1976 and after 2500."""
_FARTHEST = 2**58
"""Microseconds, 9,000 years: a graph packs a moment plus the longest `delay` in 60 bits."""
_YEAR_FIRST = r"^[0-9]{4}[-/]"
_ZONE = "[T ].*[A-Za-z+-]"
_OFFSET = r"[ T][0-9:.,]*[0-9]\s*([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2}){0,2})$"
"""An offset after a time of day. Other names are ambiguous: BST is a time zone of London and of
Bangladesh."""


@ibis.udf.scalar.builtin
def epoch_us(moment: dt.timestamp) -> dt.int64:  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's own function: microseconds since 1970, UTC."""


@ibis.udf.scalar.builtin
def unix_micros(moment: dt.timestamp) -> dt.int64:  # pyright: ignore[reportInvalidTypeForm]
    """Spark's name for the same function."""


@ibis.udf.scalar.builtin
def make_timestamp(microseconds: dt.int64) -> dt.timestamp:  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's inverse of `epoch_us`."""


@ibis.udf.scalar.builtin
def timezone(zone: dt.string, clock: dt.timestamp) -> dt.timestamp:  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's own function: when the clocks of a zone show a time."""


def read_time(
    column: Expr, name: str, unit: str, place: str, key: str = "data.time_unit", zone: str = "UTC"
) -> Expr:
    """Return moments as int64 microseconds since 1970, UTC; null where one is missing or cannot be read.

    Args:
        column: Dates, timestamps, ISO 8601 strings, or numbers since 1970.
        name: The log's name of the column, for messages.
        unit: Unit of numbers; `auto` goes by their magnitude.
        place: What the table is, for messages.
        key: The setting that gives the unit, for messages.
        zone: The zone of dates and times without an offset.

    Raises:
        DataError: The column is of another type, its unit is unclear, or the engine does not know zones.
    """
    kind = column.type()
    if zone != "UTC" and column.get_backend().name == "pyspark":  # Ibis does not say which types have a zone
        raise DataError(
            f"{place}, column {name!r}",
            f"Spark reads times without a zone as UTC, found data.timezone {zone}; write them with their "
            "zone and leave data.timezone out, or set data.engine and graph.engine to local",
        )
    if kind.is_string():
        text = column.strip()
        utc = text.re_replace(r"\s*([Zz]|UTC|GMT)$", "+00")
        return ibis.cases(
            (~text.re_search(_YEAR_FIRST), ibis.null("int64")),  # 1/2/24 would be a day of the year 1
            (text.re_search(_OFFSET), _microseconds(utc.try_cast("timestamp('UTC', 6)"))),
            (text.re_search(_ZONE), ibis.null("int64")),
            else_=_microseconds(text.try_cast("timestamp(6)"), zone),  # this cast would ignore an offset
        )
    if kind.is_date() or kind.is_timestamp():
        zoned = kind.is_timestamp() and kind.timezone is not None
        # a cast would round nanoseconds up
        exact = zoned or (kind.is_timestamp() and kind.scale == 9)
        return _microseconds(column if exact else column.cast("timestamp(6)"), "UTC" if zoned else zone)
    if kind.is_decimal():
        column = column.try_cast("int64") if kind.scale == 0 else column.cast("float64")
    if not column.type().is_integer() and not column.type().is_floating():
        raise wrong_type(
            place, name, kind, "a time must be a date, a timestamp, an ISO 8601 string or a number since 1970"
        )
    floating = column.type().is_floating()
    finite: Expr = ibis.ifelse(column.isnan() | column.isinf(), None, column) if floating else column
    if unit == "auto":
        unit = _unit_of_column(finite, name, place, key)
    if unit == "ns":  # engines divide as floats, and the floor of the quotient can be one too low
        return ((finite - finite % 1000) / 1000).round().cast("int64")
    if floating:  # rounded first, because in the cast some engines round and others truncate
        moment: Expr = finite * UNITS[unit]
        held: Expr = ibis.ifelse(moment.abs() < 2.0**62, moment, None)
        return held.round().cast("int64")
    return finite.cast("int64") * UNITS[unit]


def share_with_zone(rows: Table, name: str) -> float | None:
    """Return the share of the times of a column of strings that name a zone; None for other columns."""
    if not rows[name].type().is_string():
        return None
    zoned: Expr = rows[name].strip().re_search(_OFFSET)
    return only_row(rows.aggregate(share=zoned.cast("float64").mean()))["share"]


def _unit_of_column(column: Expr, name: str, place: str, key: str) -> str:
    """Return the unit of numeric times: that of the largest, if it is also the unit of most rows."""
    rows: Table = column.name("at").as_table()
    given = ~rows.at.isin([0, -1])  # unknown times are often written as these
    held = only_row(
        rows.aggregate(
            low=rows.at.min(),
            high=rows.at.max(),
            rows=given.sum(),
            **{unit: (given & rows.at.between(-limit, limit)).sum() for unit, limit in _LIMITS.items()},
            **{form: rows.at.between(*span).sum() for form, span in _DATES.items()},
        )
    )
    low, high, half = held["low"] or 0, held["high"] or 0, (held["rows"] or 0) / 2
    if form := next((form for form in _DATES if (held[form] or 0) > half), None):
        raise DataError(
            f"{place}, column {name!r}",
            f"a numeric time counts from 1970, found {low} to {high}, of which most look like dates written "
            f"{form}; "
            f"write them as dates, or set {key} if they are numbers since 1970",
        )
    far = max(low, high, key=abs)
    unit, usual = unit_of(abs(far)), next((unit for unit in _LIMITS if (held[unit] or 0) >= half), "ns")
    if unit != usual:  # one odd row would move all others to 1970
        raise DataError(
            f"{place}, column {name!r}",
            f"numeric times must be of one unit, found {far}, which would be {unit}, where most are {usual}; "
            f"fix or leave out such rows, or set {key}",
        )
    return unit


def unit_of(size: float) -> str:
    """Return the unit of a time since 1970 by its magnitude."""
    return next((unit for unit, limit in _LIMITS.items() if size < limit), "ns")


def too_far(moment: Expr) -> Expr:
    """Return whether a moment in microseconds is outside the range that a graph can hold."""
    return ~moment.between(-_FARTHEST, _FARTHEST)


def microseconds(moment: date | datetime, zone: str = "UTC") -> int:
    """Return microseconds since 1970; a moment without a zone is of the given one.

    A time that the clocks show twice is the later one, and one that they skip goes by the offset before, both
    as DuckDB has it.

    Example:
        >>> microseconds(date(1970, 1, 2))
        86400000000
        >>> microseconds(date(1970, 1, 2), "Asia/Shanghai") // 3_600_000_000
        16
    """
    at = moment if isinstance(moment, datetime) else datetime.combine(moment, time.min)
    moments = [at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1)]
    return max((one - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for one in moments)


def within(rows: Table, data: DataSettings) -> Table:
    """Return the rows with `time` at or after the start of the settings and before their end."""
    if data.start is not None:
        rows = rows.filter(rows.time >= microseconds(data.start, data.timezone))
    return rows if data.end is None else rows.filter(rows.time < microseconds(data.end, data.timezone))


def _microseconds(moment: Expr, zone: str = "UTC") -> Expr:
    utc = unix_micros(moment) if moment.get_backend().name == "pyspark" else epoch_us(moment)
    return utc if zone == "UTC" else epoch_us(timezone(zone, make_timestamp(utc)))


def bucket_of(moment: Expr, length: str) -> Expr:
    """Return the bucket number of a moment in microseconds, as int64."""
    return (moment // (seconds(length) * 1_000_000)).cast("int64")


def last_moment(moment: Expr, data: DataSettings) -> Expr:
    """Return the last microsecond of the bucket of a moment, or of the log if it ends before."""
    last = (bucket_of(moment, data.bucket) + 1) * (seconds(data.bucket) * 1_000_000) - 1
    return last if data.end is None else ibis.least(last, microseconds(data.end, data.timezone) - 1)


def snapshot_of(bucket: Expr, cuts: NDArray[np.int32]) -> Expr:
    """Return the first snapshot that contains a bucket, as int16: the number of cuts before it."""
    before: Expr = sum((bucket > int(cut)).cast("int16") for cut in cuts)
    return before.cast("int16")


def rows_per_bucket(rows: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the buckets that have rows, rising, and the number of rows in each. Shape (b,) each."""
    counted = rows.group_by("bucket").aggregate(n=rows.count()).order_by("bucket").to_pyarrow()
    return counted["bucket"].to_numpy().astype(np.int64), counted["n"].to_numpy().astype(np.int64)


def finer_than_buckets(rows: Table) -> bool:
    """Return whether times tell more than their bucket: most rows are in buckets with several times."""
    buckets = rows.group_by("bucket").aggregate(n=rows.count(), finer=rows.time.min() < rows.time.max())
    held = only_row(buckets.aggregate(all=buckets.n.sum(), finer=buckets.n.sum(where=buckets.finer)))
    return 2 * (held["finer"] or 0) > (held["all"] or 0)


def share_of_midnights(rows: Table, zone: str) -> float:
    """Return the share of the times at which the clocks of a zone show midnight, as dates do."""
    day = seconds("1d") * 1_000_000  # the zone may have two offsets
    midnights = {microseconds(date(2024, month, 1), zone) % day for month in (1, 7)}
    return only_row(rows.aggregate(share=(rows.time % day).isin(midnights).mean()))["share"] or 0.0


def newest_buckets(
    rows: int, buckets: NDArray[np.int64], counts: NDArray[np.int64], first: int, last: int
) -> int:
    """Return the bucket after which the newest training rows begin: as many whole buckets as hold no more.

    Args:
        rows: Maximum number of training rows.
        buckets: Buckets with rows, rising. Shape (b,).
        counts: Rows in each, at most. Shape (b,).
        first: Training begins after this bucket.
        last: The last bucket of training.

    Raises:
        DataError: The newest bucket has more rows.

    Example:
        >>> newest_buckets(7, np.arange(4), np.array([9, 3, 4, 5]), first=-1, last=2)
        0
    """
    part = (buckets > first) & (buckets <= last)
    held = np.cumsum(counts[part][::-1])
    kept = int(np.searchsorted(held, rows, side="right"))
    if kept == len(held):
        return first
    if not kept:
        raise DataError(
            "training.rows",
            f"the newest bucket of training must be among them, found {rows:,} where it may have {held[0]:,} "
            "rows; raise it, or take a shorter data.bucket",
        )
    return int(buckets[part][-kept - 1])


def make_cuts(
    settings: SplitSettings,
    length: str,
    buckets: NDArray[np.int64],
    positives: NDArray[np.int64],
    zone: str = "UTC",
) -> NDArray[np.int32]:
    """Return cuts by quantiles of the positive examples, or by dates.

    A quantile q falls in the first bucket up to which at least a share q of the positives has happened; that
    bucket belongs to the earlier window. A date is the first moment after the cut; a bucket that contains it
    belongs to the earlier window too.

    Args:
        settings: The quantiles or dates.
        length: Length of a bucket.
        buckets: Buckets with positive examples, rising. Shape (b,).
        positives: Positive examples in each. Shape (b,).
        zone: The zone of dates, also in messages.

    Returns:
        Bucket numbers, rising. Shape (n,).

    Raises:
        DataError: Two cuts fall into one bucket, or a window has no positives.
    """
    if isinstance(settings.cuts[0], float):
        reached = np.round(np.asarray(settings.cuts, dtype=float) * positives.sum(), 6)
        cuts = buckets[np.searchsorted(np.cumsum(positives), reached)]
    else:
        last = [microseconds(cut, zone) - 1 for cut in settings.cuts if isinstance(cut, date)]
        cuts = np.array(last) // (seconds(length) * 1_000_000)
    _check_windows(settings, cuts, length, buckets, zone)
    return cuts.astype(np.int32)


def _check_windows(
    settings: SplitSettings, cuts: NDArray[np.int64], length: str, buckets: NDArray[np.int64], zone: str
) -> None:
    named: Sequence[object] = settings.cuts
    same = np.flatnonzero(np.diff(cuts) <= 0)
    if same.size:
        k = int(same[0])
        raise DataError(
            "split.cuts",
            f"every window needs a bucket of its own, found that cuts {named[k]} and {named[k + 1]} both "
            "fall into "
            f"bucket {moment_of(int(cuts[k]), length, zone)} of {len(buckets)} with positives; "
            "take fewer cuts, or a shorter data.bucket",
        )
    span = f"positives from {' to '.join(moment_of(int(buckets[end]), length, zone) for end in (0, -1))}"
    if buckets[0] > cuts[0]:
        raise DataError(
            "split.cuts",
            f"the first snapshot needs history before the cut {named[0]}, found {span}; move the first cut "
            "later",
        )
    held = np.diff(np.searchsorted(buckets, [*cuts.tolist(), np.iinfo(np.int64).max], side="right"))
    valid = settings.valid_window
    for part, found in {"train": held[:valid], "valid": held[valid], "test": held[valid + 1 :]}.items():
        if not found.sum():
            raise DataError(
                "split.cuts",
                f"every part needs positives, found none in {part} with cuts {', '.join(map(str, named))} "
                f"and {span}; "
                "move the cuts or take fewer, or use a shorter data.bucket",
            )


def check_first_snapshot(
    history: Table, settings: SplitSettings, length: str, cuts: NDArray[np.int32], zone: str
) -> None:
    """Require that something is known at the first cut.

    A label becomes history when it is known, which may be long after its exposure.

    Args:
        history: One row per event and task, with its `bucket`.
        settings: The cuts, for the message.
        length: Length of a bucket.
        cuts: Bucket numbers, rising. Shape (n,).
        zone: The zone of the message.

    Raises:
        DataError: Nothing is known by then.
    """
    first = history.bucket.min().to_pyarrow().as_py()
    if first is None or first > cuts[0]:
        found = "none" if first is None else f"the first one known in {moment_of(first, length, zone)}"
        raise DataError(
            "split.cuts",
            f"the first snapshot needs labels that are known before the cut {settings.cuts[0]}, found "
            f"{found}; "
            "move the first cut later, or fix `delay` and `known_at`",
        )


def moment_of(bucket: int, length: str, zone: str = "UTC") -> str:
    """Return the start of a bucket as the clocks of a zone show it, for messages."""
    try:
        moment = datetime.fromtimestamp(bucket * seconds(length), tz=ZoneInfo(zone))
    except (ValueError, OverflowError, OSError):
        return f"number {bucket}"
    return moment.strftime("%Y-%m-%d" if moment.time() == time.min else "%Y-%m-%d %H:%M:%S")
