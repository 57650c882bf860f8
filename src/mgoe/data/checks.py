"""Checks on the rows of a table: all of them in one scan, and the first row that breaks one is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgoe.data.expr import Expr, Table
from mgoe.errors import DataError


@dataclass(frozen=True)
class Check:
    """One rule that every row keeps.

    Args:
        column: The log's own column, for the message.
        bad: True where a row breaks the rule.
        value: What to show of such a row.
        rule: What must hold.
        mend: What to do about it.
    """

    column: str
    bad: Expr
    value: Expr
    rule: str
    mend: str


def enforce(table: Table, checks: Sequence[Check], place: str, numbered: bool = True) -> int:
    """Refuse a table with a row that breaks a rule; the first rule broken is named, with its first row and the count.

    Args:
        table: Staged, or lazy.
        checks: The rules.
        place: What the table is, for messages.
        numbered: Whether rows have numbers, as those of a staged table do; else any such row is shown.

    Returns:
        The table's rows.

    Raises:
        DataError: A row breaks a rule.
    """
    broken = [
        check.bad.fill_null(False).cast("int64").sum().name(f"check{k}") for k, check in enumerate(checks)
    ]
    rows, *counts = (
        int(column[0].as_py() or 0)
        for column in table.aggregate([table.count().name("rows"), *broken]).to_pyarrow().columns
    )
    for check, count in zip(checks, counts, strict=True):
        if count:
            row = {"row": table.rowid()} if numbered else {}
            marked = table.select(**row, value=check.value.cast("string"), bad=check.bad)
            first = (
                marked.filter(marked.bad)
                .order_by("row" if numbered else "value")
                .limit(1)
                .to_pyarrow()
                .to_pylist()[0]
            )
            found = "null" if first["value"] is None else repr(first["value"])
            where = f" in row {first['row'] + 1}" if numbered else ""
            more = f" and {count - 1} more" if count > 1 else ""
            message = f"{check.rule}, found {found}{where}{more}; {check.mend}"
            raise DataError(f"{place}, column {check.column!r}", message)
    return rows
