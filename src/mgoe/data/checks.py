"""Checks on the rows of a table: all of them in one scan, and the first row that breaks a rule is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mgoe.errors import DataError

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
    broken = [
        check.bad.fill_null(False).cast("int64").sum().name(f"check{k}") for k, check in enumerate(checks)
    ]
    counted = table.aggregate([table.count().name("rows"), *broken]).to_pyarrow()
    rows, *counts = (int(column[0].as_py() or 0) for column in counted.columns)
    for check, count in zip(checks, counts, strict=True):
        if count:
            row = {"row": table.rowid()} if numbered else {}
            marked = table.select(**row, value=check.value.cast("string"), bad=check.bad)
            ordered = marked.filter(marked.bad).order_by("row" if numbered else "value")
            first = only_row(ordered.limit(1))
            found = "null" if first["value"] is None else repr(first["value"])
            where = f" in row {first['row'] + 1}" if numbered else ""
            more = f" and {count - 1} more" if count > 1 else ""
            message = f"{check.rule}, found {found}{where}{more}; {check.fix}"
            raise DataError(f"{place}, column {check.column!r}", message)
    return rows


def only_row(table: Table) -> dict[str, Any]:
    """Return the one row of a table, by column."""
    return table.to_pyarrow().to_pylist()[0]
