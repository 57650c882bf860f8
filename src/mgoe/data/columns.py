"""What each kind of column may hold, and how it is read: ids, behaviours, labels, weights, positions,
numbers."""

from typing import Any

import ibis

from mgoe.data.checks import Check, Expr
from mgoe.errors import DataError

POSITIONS = 100_000
"""Positions are below this: a model has one bias per position, up to the largest."""
_EXACT = 2.0**53
"""Whole numbers above this are no longer exact in a float."""


def read_id(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return ids as int64, uint64 or strings, and the checks on them; nothing is rounded."""
    kind = column.type()
    fix = "leave such rows out of the log, or give them an id of their own"
    given = Check(name, column.isnull(), column, "an id must not be null", fix)
    if kind.is_floating():
        # compared before the cast, because Ibis casts what it floors, and infinity has no integer
        whole = column.isnull() | ((column % 1 == 0) & (column.abs() < _EXACT))
        rule = "an id stored as a float must be a whole number below 2^53"
        return column.try_cast("int64"), [
            given,
            Check(name, ~whole, column, rule, "write ids as integers or strings"),
        ]
    if kind.is_integer():
        return column.cast("uint64" if kind.is_unsigned_integer() and kind.nbytes == 8 else "int64"), [given]
    if kind.is_decimal():
        return _read_decimal_id(column, name, given)
    if kind.is_string():
        return column, [given]
    if kind.is_date() or kind.is_timestamp() or kind.is_uuid():
        return column.cast("string"), [given]
    raise wrong_type(place, name, kind, "an id must be an integer or a string")


def _read_decimal_id(column: Expr, name: str, given: Check) -> tuple[Expr, list[Check]]:
    """Return int64 where all whole digits of the type fit, otherwise text without the fraction."""
    kind, whole, checks = column.type(), column, [given]
    if kind.scale != 0:  # the scale may also be unknown
        whole = column.cast("decimal(38, 0)")
        rule = "an id stored as a decimal must be a whole number"
        checks.append(Check(name, column % 1 != 0, column, rule, "write ids as integers or strings"))
    fits = kind.precision is not None and kind.precision - kind.scale <= 18
    return whole.cast("int64" if fits else "string"), checks


def read_behavior(column: Expr, name: str, place: str) -> Expr:
    """Return behaviours as strings."""
    kind = column.type()
    if kind.is_string() or kind.is_integer() or kind.is_boolean():
        return column.cast("string").fill_null("null")
    raise wrong_type(place, name, kind, "a behaviour must be a string or an integer")


def read_label(column: Expr, name: str, binary: bool, place: str) -> tuple[Expr, list[Check]]:
    """Return a label as float32, null where it is missing, and the check on it."""
    number = _number(column, name, place, "a label must be a number or a boolean")
    if binary:
        bad, rule = ~number.isin([0.0, 1.0]), "a binary label must be 0, 1 or null (missing)"
        fix = "map the column to 0 and 1, leave unknown labels null, or say `kind: regression`"
    else:
        bad, rule = (
            ~_finite_from_zero(number),
            "a regression label must be finite and at least 0, or null (missing)",
        )
        fix = "fix the column, or leave unknown labels null"
    return number.cast("float32"), [Check(name, bad, column, rule, fix)]


def read_weight(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a sample weight as float32, and the check on it."""
    number = _number(column, name, place, "a weight must be a number")
    bad = number.isnull() | ~_finite_from_zero(number)
    fix = "fix the column; 0 leaves a row out of the loss"
    return number.cast("float32"), [Check(name, bad, column, "a weight must be finite and at least 0", fix)]


def read_position(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a shown position as int64, and the check on it."""
    number = _number(column, name, place, "a position must be a whole number")
    bad = number.isnull() | ~_finite_from_zero(number) | (number % 1 != 0) | (number >= POSITIONS)
    rule = f"a position must be a whole number, at least 0 and below {POSITIONS:,}"
    return number.try_cast("int64"), [
        Check(name, bad, column, rule, "fix the column or drop `data.position`")
    ]


def read_numeric(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a numeric feature as float64, null where it is missing (null or NaN), and the check on it."""
    number = _number(column, name, place, "a numeric feature must be a number")
    rule = "a numeric feature must be finite and within 1e100, or null (missing)"
    bad = ~number.isnan() & (number.abs() > 1e100)
    return ibis.ifelse(number.isnan(), None, number), [Check(name, bad, column, rule, "fix the column")]


def wrong_type(place: str, name: str, kind: object, rule: str) -> DataError:
    """Return the error for a column of an unsuitable type."""
    return DataError(
        f"{place}, column {name!r}", f"{rule}, found the type {kind}; convert it or name another column"
    )


def _number(column: Expr, name: str, place: str, rule: str) -> Expr:
    kind = column.type()
    if kind.is_numeric() or kind.is_boolean() or _is_null(kind):
        return column.cast("float64")
    raise wrong_type(place, name, kind, rule)


def _is_null(kind: Any) -> bool:
    """Return whether a type is that of nulls alone: Parquet has it, and Ibis does not know DuckDB's name for
    it."""
    return kind.is_null() or (kind.is_unknown() and 'kind="NULL"' in str(kind))


def _finite_from_zero(number: Expr) -> Expr:
    return (number >= 0) & ~number.isnan() & ~number.isinf()
