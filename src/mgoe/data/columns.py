"""What each kind of column may hold, and how it is read: ids, times, behaviours, labels, weights, positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute

from mgoe.data.binary import is_binary, texts_of_bytes
from mgoe.data.checks import Check
from mgoe.data.expr import Expr, Table
from mgoe.errors import DataError

pc: Any = compute  # most of its functions are made at import, out of a type checker's sight

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds of each unit; a nanosecond (`ns`) is less than one."""
_LIMITS = {"s": 10**11, "ms": 10**14, "us": 10**17}
"""From where a number since 1970 is of the next unit: the year 5138 in each."""
_DATES = {
    "YYYYMMDD": (19_000_101, 21_001_231),
    "YYYYMMDDhhmm": (190_001_010_000, 210_012_312_359),
    "YYYYMMDDhhmmss": (19_000_101_000_000, 21_001_231_235_959),
}
"""Dates written as numbers; read as numbers since 1970 they would lie in 1970, 1976 and after 2500."""
POSITIONS = 100_000
"""Below which positions lie: each has a bias, up to the largest."""
MOST_TEXT = 2**31 - 1
"""Bytes of an array of strings."""
_FARTHEST = 2**58
"""Microseconds, 9,000 years: a graph packs a moment, the longest `delay` added, in 60 bits."""
_ZONE = r"[ T][0-9:.,]*[0-9]\s*([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2}){0,2})$"
"""An offset after a time of day. Other names are guessed: BST is London's summer to one reader and Bangladesh to another."""
_EXACT = 2.0**53  # whole numbers above this are no longer exact in a float


@ibis.udf.scalar.builtin
def epoch_us(moment: dt.timestamp) -> dt.int64:  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's own function: microseconds since 1970, UTC."""


@ibis.udf.scalar.builtin
def unix_micros(moment: dt.timestamp) -> dt.int64:  # pyright: ignore[reportInvalidTypeForm]
    """Spark's name for the same."""


def _microseconds(moment: Expr) -> Expr:
    return unix_micros(moment) if moment.get_backend().name == "pyspark" else epoch_us(moment)


def read_id(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """An id as int64, uint64 or string; nothing is rounded."""
    kind = column.type()
    checks = [
        Check(
            name,
            column.isnull(),
            column,
            "an id must not be null",
            "leave such rows out of the log, or give them an id of their own",
        )
    ]
    if kind.is_floating():
        whole = column.isnull() | (
            (column % 1 == 0) & (column.abs() < _EXACT)
        )  # Ibis casts what it floors, which infinity is not
        mend = "write ids as integers or strings"
        return column.try_cast("int64"), [
            *checks,
            Check(name, ~whole, column, "an id held as a float must be a whole number below 2^53", mend),
        ]
    if kind.is_integer():
        return column.cast("uint64" if kind.is_unsigned_integer() and kind.nbytes == 8 else "int64"), checks
    if kind.is_decimal():
        return _read_decimal_id(column, name, checks)
    if kind.is_string():
        return column, checks
    if kind.is_date() or kind.is_timestamp() or kind.is_uuid():
        return column.cast("string"), checks
    raise wrong_type(place, name, kind, "an id must be an integer or a string")


def _read_decimal_id(column: Expr, name: str, checks: list[Check]) -> tuple[Expr, list[Check]]:
    """As int64 where all of the type's whole digits fit, else as text without the fraction."""
    kind, whole = column.type(), column
    if kind.scale != 0:  # of a scale that is not known either
        whole = column.cast("decimal(38, 0)")
        rule = "an id held as a decimal must be a whole number"
        checks = [*checks, Check(name, column % 1 != 0, column, rule, "write ids as integers or strings")]
    fits = kind.precision is not None and kind.precision - kind.scale <= 18
    return whole.cast("int64" if fits else "string"), checks


def read_time(column: Expr, name: str, unit: str, place: str, key: str = "data.time_unit") -> Expr:
    """A moment as int64 microseconds since 1970, UTC; null where it is missing or cannot be read. Without an offset it is UTC."""
    kind = column.type()
    if kind.is_string():
        text = column.strip()
        zoned = _microseconds(text.re_replace(r"\s*([Zz]|UTC|GMT)$", "+00").try_cast("timestamp('UTC', 6)"))
        plain = _microseconds(
            text.try_cast("timestamp(6)")
        )  # which passes over an offset, as the other takes none for the session's
        said = ibis.ifelse(
            text.re_search("[T ].*[A-Za-z+-]"), ibis.ifelse(text.re_search(_ZONE), zoned, None), plain
        )
        return ibis.ifelse(text.re_search("^[0-9]{4}[-/]"), said, None)  # else 1/2/24 is a day of the year 1
    if kind.is_date() or kind.is_timestamp():
        plain = kind.is_timestamp() and (
            kind.timezone is not None or kind.scale == 9
        )  # a cast of nanoseconds would round up
        return _microseconds(column if plain else column.cast("timestamp(6)"))
    if kind.is_decimal():
        column = column.try_cast("int64") if kind.scale == 0 else column.cast("float64")
        kind = column.type()
    if not (kind.is_integer() or kind.is_floating()):
        raise wrong_type(
            place, name, kind, "a time must be a date, a timestamp, an ISO 8601 string or a number since 1970"
        )
    finite: Expr = (
        ibis.ifelse(column.isnan() | column.isinf(), None, column) if kind.is_floating() else column
    )
    if unit == "auto":
        unit = _unit(finite, name, place, key)
    if unit == "ns":
        return (
            ((finite - finite % 1000) / 1000).round().cast("int64")
        )  # engines divide as floats, whose floor can be one too low
    if kind.is_floating():  # rounded before the cast, in which one engine would round and another cut off
        moment: Expr = finite * UNITS[unit]
        held: Expr = ibis.ifelse(moment.abs() < 2.0**62, moment, None)
        return held.round().cast("int64")
    return finite.cast("int64") * UNITS[unit]


def time_check(column: Expr, moment: Expr, name: str) -> Check:
    """Every row has a time that could be read, and of which a graph can tell the order."""
    rule = "a time must be given and readable (a date, a timestamp, ISO 8601, or a number since 1970), within 9,000 years of 1970"
    return Check(name, moment.isnull() | too_far(moment), column, rule, "mend or leave out such rows")


def too_far(moment: Expr) -> Expr:
    """Whether a moment in microseconds lies where no graph holds it."""
    return ~moment.between(-_FARTHEST, _FARTHEST)


def read_label(column: Expr, name: str, binary: bool, place: str) -> tuple[Expr, list[Check]]:
    """A label as float32, null where missing."""
    number = _number(column, name, place, "a label must be a number or a boolean")
    if binary:
        mend = "map the column to 0 and 1, leave unknown labels null, or say `kind: regression`"
        return number.cast("float32"), [
            Check(
                name, ~number.isin([0.0, 1.0]), column, "a binary label must be 0, 1 or null (missing)", mend
            )
        ]
    mend = "mend the column, or leave unknown labels null"
    return number.cast("float32"), [
        Check(
            name,
            ~_finite_from_zero(number),
            column,
            "a regression label must be finite and at least 0, or null (missing)",
            mend,
        )
    ]


def read_weight(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """A sample weight as float32."""
    number = _number(column, name, place, "a weight must be a number")
    bad = number.isnull() | ~_finite_from_zero(number)
    return number.cast("float32"), [
        Check(
            name,
            bad,
            column,
            "a weight must be finite and at least 0",
            "mend the column; 0 leaves a row out of the loss",
        )
    ]


def read_position(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """A shown position as int64."""
    number = _number(column, name, place, "a position must be a whole number")
    bad = number.isnull() | ~_finite_from_zero(number) | (number % 1 != 0) | (number >= POSITIONS)
    rule = f"a position must be a whole number, at least 0 and below {POSITIONS:,}"
    return number.try_cast("int64"), [
        Check(name, bad, column, rule, "mend the column or drop `data.position`")
    ]


def read_numeric(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """A numeric feature as float64, null where missing (null or NaN)."""
    number = _number(column, name, place, "a numeric feature must be a number")
    value = ibis.ifelse(number.isnan(), None, number)
    rule = "a numeric feature must be finite and within 1e100, or null (missing)"
    return value, [Check(name, ~number.isnan() & (number.abs() > 1e100), column, rule, "mend the column")]


def to_arrow(values: Any, place: str = "values") -> pa.Array:
    """A column of any library, or one value, as one Arrow array; UUIDs, bytes and values that no single type holds become strings.

    Args:
        values: A list, a NumPy array, a pandas or polars series, an Arrow array, or one value.
        place: What they are, for messages.

    Raises:
        DataError: They are no column: an iterator, a table, a set, a mapping, or an array of more dimensions.
        DataError: They are bytes that are no text and no UUIDs.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _plain(values, place)
    _check_column(values, place)
    if hasattr(values, "to_arrow"):
        return to_arrow(values.to_arrow(), place)
    if isinstance(values, np.generic) or (isinstance(values, np.ndarray) and not values.ndim):
        values = values.item()
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        values = [values]
    try:
        return to_arrow(pa.array(values), place)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array(
            [None if pd.isna(v) is True else str(v) for v in values], pa.string()
        )  # of a list it says more than one


def _check_column(values: Any, place: str) -> None:
    unordered = isinstance(values, Iterator | Mapping | set | frozenset)
    if unordered or len(getattr(values, "shape", ())) > 1:
        shape = "" if unordered else f" of the shape {tuple(values.shape)}"
        rule = "must be one column (a list, an array, a series) or one value"
        raise DataError(
            place,
            f"{rule}, found a {type(values).__name__}{shape}; make a list of it, or take one of its columns",
        )


def _plain(values: pa.Array | pa.ChunkedArray, place: str) -> pa.Array:
    """As one array of a type that all functions read: no run ends, no dictionary, no views, and UUIDs and bytes as text."""
    kind = values.type
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(values), place)
    if pa.types.is_dictionary(kind):
        return _plain(pc.call_function("dictionary_decode", [values]), place)
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return _plain(values.cast(pa.binary(16)), place)
    if is_binary(kind):
        return one_array(texts_of_bytes(one_array(values), place))
    if is_list(kind):
        item = pa.string() if pa.types.is_string_view(kind.value_type) else kind.value_type
        values = values.cast(pa.large_list(item) if pa.types.is_large_list(kind) else pa.list_(item))
    return one_array(values)


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """As one array; text with offsets of 32 bits where these reach, of more with those of 64."""
    if is_text(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string() if values.nbytes <= MOST_TEXT else pa.large_string())
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of lists, of any lengths and layout."""
    lists = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(is_one(kind) for is_one in lists)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of strings, with offsets of either length."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def wrong_type(place: str, name: str, kind: object, rule: str) -> DataError:
    """A column whose type cannot do."""
    return DataError(
        f"{place}, column {name!r}", f"{rule}, found the type {kind}; convert it or name another column"
    )


def _number(column: Expr, name: str, place: str, rule: str) -> Expr:
    kind = column.type()
    if kind.is_numeric() or kind.is_boolean() or _is_null(kind):
        return column.cast("float64")
    raise wrong_type(place, name, kind, rule)


def _is_null(kind: Any) -> bool:
    """Whether a type is that of nulls alone, as Parquet has it of a column without a value; of DuckDB's, Ibis does not know the name."""
    return kind.is_null() or (kind.is_unknown() and 'kind="NULL"' in str(kind))


def _finite_from_zero(number: Expr) -> Expr:
    return (number >= 0) & ~number.isnan() & ~number.isinf()


def _unit(column: Expr, name: str, place: str, key: str) -> str:
    """The unit of a column's numeric times: by the largest, if most rows say the same."""
    rows: Table = column.name("at").as_table()
    given = ~rows.at.isin([0, -1])  # what an unknown time is often written as
    most = {unit: (given & rows.at.between(-limit, limit)).sum() for unit, limit in _LIMITS.items()}
    dates = {form: rows.at.between(*span).sum() for form, span in _DATES.items()}
    held = (
        rows.aggregate(low=rows.at.min(), high=rows.at.max(), rows=given.sum(), **most, **dates)
        .to_pyarrow()
        .to_pylist()[0]
    )
    low, high, half = held["low"] or 0, held["high"] or 0, (held["rows"] or 0) / 2
    if form := next((form for form in _DATES if (held[form] or 0) > half), None):
        found = f"found {low} to {high}, of which most look like dates written {form}"
        mend = f"write them as dates, or set {key} if they are numbers since 1970"
        raise DataError(f"{place}, column {name!r}", f"a numeric time counts from 1970, {found}; {mend}")
    far = max(low, high, key=abs)
    unit, usual = unit_of(abs(far)), next((unit for unit in _LIMITS if (held[unit] or 0) >= half), "ns")
    if unit != usual:  # one odd row would move all others to 1970
        mend = f"mend or leave out such rows, or set {key}"
        found = f"found {far}, which would be {unit}, where most are {usual}"
        raise DataError(f"{place}, column {name!r}", f"numeric times must be of one unit, {found}; {mend}")
    return unit


def unit_of(size: float) -> str:
    """The unit of a time since 1970 by its magnitude."""
    return next((unit for unit, limit in _LIMITS.items() if size < limit), "ns")
