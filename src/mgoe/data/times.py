"""Times of a log as microseconds since 1970, UTC: one reader per representation."""

from datetime import UTC, date, datetime

import ibis
import ibis.expr.datatypes as dt

from mgoe.data.checks import Check, Expr, Table, only_row
from mgoe.data.columns import wrong_type
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


def read_time(column: Expr, name: str, unit: str, place: str, key: str = "data.time_unit") -> Expr:
    """Return moments as int64 microseconds since 1970, UTC; null where one is missing or cannot be read.

    Args:
        column: Dates, timestamps, ISO 8601 strings, or numbers since 1970. A moment without an offset is UTC.
        name: The log's name of the column, for messages.
        unit: Unit of numbers; `auto` goes by their magnitude.
        place: What the table is, for messages.
        key: The setting that gives the unit, for messages.

    Raises:
        DataError: The column is of another type, or its unit is unclear.
    """
    kind = column.type()
    if kind.is_string():
        return _read_text(column.strip())
    if kind.is_date() or kind.is_timestamp():
        exact = kind.is_timestamp() and (kind.timezone is not None or kind.scale == 9)
        return _microseconds(
            column if exact else column.cast("timestamp(6)")
        )  # a cast would round nanoseconds up
    if kind.is_decimal():
        column = column.try_cast("int64") if kind.scale == 0 else column.cast("float64")
    if not column.type().is_integer() and not column.type().is_floating():
        rule = "a time must be a date, a timestamp, an ISO 8601 string or a number since 1970"
        raise wrong_type(place, name, kind, rule)
    return _read_number(column, name, unit, place, key)


def _read_text(text: Expr) -> Expr:
    utc = text.re_replace(r"\s*([Zz]|UTC|GMT)$", "+00")
    return ibis.cases(
        (~text.re_search(_YEAR_FIRST), ibis.null("int64")),  # 1/2/24 would be a day of the year 1
        (text.re_search(_OFFSET), _microseconds(utc.try_cast("timestamp('UTC', 6)"))),
        (text.re_search(_ZONE), ibis.null("int64")),
        else_=_microseconds(text.try_cast("timestamp(6)")),  # this cast would ignore an offset
    )


def _read_number(column: Expr, name: str, unit: str, place: str, key: str) -> Expr:
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


def _unit_of_column(column: Expr, name: str, place: str, key: str) -> str:
    """Return the unit of numeric times: that of the largest, if it is also the unit of most rows."""
    rows: Table = column.name("at").as_table()
    given = ~rows.at.isin([0, -1])  # unknown times are often written as these
    fitting = {unit: (given & rows.at.between(-limit, limit)).sum() for unit, limit in _LIMITS.items()}
    dates = {form: rows.at.between(*span).sum() for form, span in _DATES.items()}
    held = only_row(
        rows.aggregate(low=rows.at.min(), high=rows.at.max(), rows=given.sum(), **fitting, **dates)
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


def time_check(column: Expr, moment: Expr, name: str) -> Check:
    """Require a time in every row that could be read and that a graph can hold."""
    rule = (
        "a time must be given and readable (a date, a timestamp, ISO 8601, or a number since 1970), "
        "within 9,000 years of 1970"
    )
    return Check(name, moment.isnull() | too_far(moment), column, rule, "fix or leave out such rows")


def too_far(moment: Expr) -> Expr:
    """Return whether a moment in microseconds is outside the range that a graph can hold."""
    return ~moment.between(-_FARTHEST, _FARTHEST)


def microseconds(moment: date | datetime) -> int:
    """Return microseconds since 1970; a moment without a zone is UTC.

    Example:
        >>> microseconds(date(1970, 1, 2))
        86400000000
    """
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds


def within(rows: Table, start: datetime | None, end: datetime | None) -> Table:
    """Return the rows with `time` at or after the start and before the end."""
    if start is not None:
        rows = rows.filter(rows.time >= microseconds(start))
    return rows if end is None else rows.filter(rows.time < microseconds(end))


def _microseconds(moment: Expr) -> Expr:
    return unix_micros(moment) if moment.get_backend().name == "pyspark" else epoch_us(moment)
