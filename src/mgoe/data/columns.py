"""Columns of a table: what each kind may hold, how it is read, and the check of its rules in every row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ibis

from mgoe.errors import DataError

POSITIONS = 100_000
"""Positions are below this: a model has one bias per position, up to the largest."""
_EXACT = 2.0**53
"""Whole numbers above this are no longer exact in a float."""
Table = Any
"""A lazy table (`ibis.expr.types.Table`). Ibis gives every column one static type, which no type checker can
use."""
Expr = Any
"""A lazy column or scalar (`ibis.expr.types.Value`)."""


@dataclass(frozen=True)
class Check:
    """A rule that every row must keep.

    Args:
        column: The log's own column, for the message.
        bad: True where a row breaks the rule.
        value: What to show of such a row.
        rule: What must hold.
        fix: What to do about it.
    """

    column: str
    bad: Expr
    value: Expr
    rule: str
    fix: str


def enforce(table: Table, checks: Sequence[Check], place: str, numbered: bool = True) -> int:
    """Refuse a table with a row that breaks a rule; name the first broken rule, its first row and the count.

    All rules are checked in one scan.

    Args:
        table: Staged, or lazy.
        checks: The rules.
        place: What the table is, for messages.
        numbered: Whether rows have numbers, as those of a staged table do. Without numbers, the row with the
            least value is shown.

    Returns:
        The number of rows.

    Raises:
        DataError: A row breaks a rule.
    """
    broken = {f"check{k}": check.bad.fill_null(False).cast("int64").sum() for k, check in enumerate(checks)}
    rows, *counts = (
        int(count or 0) for count in only_row(table.aggregate(rows=table.count(), **broken)).values()
    )
    for check, count in zip(checks, counts, strict=True):
        if count:
            marked = table.select(
                **({"row": table.rowid()} if numbered else {}),
                value=check.value.cast("string"),
                bad=check.bad,
            )
            first = only_row(marked.filter(marked.bad).order_by("row" if numbered else "value").limit(1))
            found = "null" if first["value"] is None else repr(first["value"])
            where = f" in row {first['row'] + 1}" if numbered else ""
            more = f" and {count - 1:,} more" if count > 1 else ""
            raise DataError(
                f"{place}, column {check.column!r}", f"{check.rule}, found {found}{where}{more}; {check.fix}"
            )
    return rows


def only_row(table: Table) -> dict[str, Any]:
    """Return the one row of a table, by column."""
    return table.to_pyarrow().to_pylist()[0]


def read_id(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return ids as int64, uint64 or strings, and the checks on them; nothing is rounded.

    A decimal becomes int64 where all whole digits of its type fit, otherwise text without the fraction.
    """
    kind = column.type()
    fix = "write ids as integers or strings"
    given = Check(
        name,
        column.isnull(),
        column,
        "an id must not be null",
        "leave such rows out (of a log, data.missing_ids: drop does it), or give them an id of their own",
    )
    if kind.is_floating():
        # compared before the cast, because Ibis casts what it floors, and infinity has no integer
        whole = column.isnull() | ((column % 1 == 0) & (column.abs() < _EXACT))
        rule = "an id stored as a float must be a whole number below 2^53"
        return column.try_cast("int64"), [given, Check(name, ~whole, column, rule, fix)]
    if kind.is_integer():
        return column.cast("uint64" if kind.is_unsigned_integer() and kind.nbytes == 8 else "int64"), [given]
    if kind.is_decimal():
        fits = kind.precision is not None and kind.precision - kind.scale <= 18
        target = "int64" if fits else "string"
        if kind.scale == 0:
            return column.cast(target), [given]
        rule = "an id stored as a decimal must be a whole number"
        # the scale may also be unknown
        whole = column.cast("decimal(38, 0)").cast(target)
        return whole, [given, Check(name, column % 1 != 0, column, rule, fix)]
    if kind.is_string() or kind.is_date() or kind.is_timestamp() or kind.is_uuid():
        return column.cast("string"), [given]
    raise wrong_type(place, name, kind, "an id must be an integer or a string")


def read_request(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return ids of requests like those of users and items, null where there is none, and the checks on
    them."""
    ids, (_, *checks) = read_id(column, name, place)
    return ids, checks


def read_behavior(column: Expr, name: str, place: str) -> Expr:
    """Return behaviours as strings."""
    kind = column.type()
    if kind.is_string() or kind.is_integer() or kind.is_boolean():
        return column.cast("string").fill_null("null")
    raise wrong_type(place, name, kind, "a behaviour must be a string or an integer")


def read_label(column: Expr, name: str, binary: bool, place: str) -> tuple[Expr, list[Check]]:
    """Return a label as float32, null where it is missing, and the check on it."""
    number = _number(column, name, place, "a label must be a number or a boolean")
    return number.cast("float32"), [
        Check(
            name,
            ~number.isin([0.0, 1.0]),
            column,
            "a binary label must be 0, 1 or null (missing)",
            "map the column to 0 and 1, leave unknown labels null, or say `kind: regression`",
        )
        if binary
        else Check(
            name,
            ~_finite_from_zero(number),
            column,
            "a regression label must be finite and at least 0, or null (missing)",
            "fix the column, or leave unknown labels null",
        )
    ]


def read_weight(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a sample weight as float32, and the check on it."""
    number = _number(column, name, place, "a weight must be a number")
    bad = number.isnull() | ~_finite_from_zero(number)
    return number.cast("float32"), [
        Check(
            name,
            bad,
            column,
            "a weight must be finite and at least 0",
            "fix the column; 0 leaves a row out of the loss",
        )
    ]


def read_position(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a shown position as int64, -1 where it is missing, and the check on it."""
    number = _number(column, name, place, "a position must be a whole number")
    bad = ~_finite_from_zero(number) | (number % 1 != 0) | (number >= POSITIONS)
    return number.fill_null(-1).try_cast("int64"), [
        Check(
            name,
            bad,
            column,
            f"a position must be a whole number, at least 0 and below {POSITIONS:,}, or null (unknown)",
            "fix the column or drop `data.position`",
        )
    ]


def read_uniform(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return whether an item was shown uniformly at random as int8, 0 where it is missing, and the check on
    it."""
    number = _number(column, name, place, "a mark of random rows must be 0, 1 or a boolean")
    return number.fill_null(0).try_cast("int8"), [
        Check(
            name,
            ~number.isin([0.0, 1.0]),
            column,
            "a mark of random rows must be 0, 1 or null (not random)",
            "fix the column or drop `data.uniform`",
        )
    ]


def read_numeric(column: Expr, name: str, place: str) -> tuple[Expr, list[Check]]:
    """Return a numeric feature as float64, null where it is missing (null or NaN), and the check on it."""
    number = _number(column, name, place, "a numeric feature must be a number")
    bad = ~number.isnan() & (number.abs() > 1e100)
    return ibis.ifelse(number.isnan(), None, number), [
        Check(
            name,
            bad,
            column,
            "a numeric feature must be finite and within 1e100, or null (missing)",
            "fix the column",
        )
    ]


def wrong_type(place: str, name: str, kind: object, rule: str) -> DataError:
    """Return the error for a column of an unsuitable type."""
    return DataError(
        f"{place}, column {name!r}", f"{rule}, found the type {kind}; convert it or name another column"
    )


def _number(column: Expr, name: str, place: str, rule: str) -> Expr:
    kind = column.type()
    # Parquet has a type of nulls alone, and Ibis does not know DuckDB's name for it
    only_nulls = kind.is_null() or (kind.is_unknown() and 'kind="NULL"' in str(kind))
    if kind.is_numeric() or kind.is_boolean() or only_nulls:
        return column.cast("float64")
    raise wrong_type(place, name, kind, rule)


def _finite_from_zero(number: Expr) -> Expr:
    return (number >= 0) & ~number.isnan() & ~number.isinf()
