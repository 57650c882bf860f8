"""What kind of log one is, and what a person should know of it before its first run."""

from collections.abc import Sequence

from mgoe.data.columns import Table, only_row
from mgoe.data.measured import COUNT, ENOUGH, MEASURE, RATING, Column
from mgoe.data.nodes import Nodes
from mgoe.data.relations import TIME as MOMENT
from mgoe.data.relations import Relations
from mgoe.data.where import column_in_condition
from mgoe.errors import DataError

TOGETHER = 0.7
"""Different values per row below which a user's rows repeat a moment or an item."""


def check_rows(
    columns: Sequence[Column], user: Column, item: Column, relations: Relations, place: str, asked: bool
) -> None:
    """Refuse ratings that are texts and rows that are sums, in a log that says nothing else of what was
    done."""
    for column in () if asked else columns:
        if column.kind == "string" and column.is_a(RATING):
            raise DataError(
                f"{place}, column {column.name!r}",
                f"a rating must be a number, found texts such as {column.high!r}; convert it, or leave the "
                "column out if it is none",
            )
        pairs = relations.pairs.get(frozenset((user.name, item.name)), 0)
        summed = column.kind == "integer" and column.is_a(COUNT) and column.distinct > 1 and column.high > 1
        if summed and pairs >= item.filled >= ENOUGH:
            raise DataError(
                f"{place}, column {column.name!r}",
                "a row is one event, found one row for each user and item with a column of counts; "
                "give the log of the events, or leave the column out if it counts something else",
            )


def shape_of(
    nodes: Nodes,
    user: Column,
    item: Column,
    rest: Sequence[Column],
    relations: Relations,
    behavior: str | None,
) -> str:
    """Return what kind of event log it is, as far as its relations say."""
    share = {
        other: relations.pairs.get(frozenset((user.name, other)), 0) / user.filled
        for other in (item.name, MOMENT)
    }
    ordered = nodes.order is not None and 2 * nodes.order.filled >= user.filled
    if ordered or (share[MOMENT] < TOGETHER and any(c.is_a("quantity|qty|unit|price") for c in rest)):
        return "orders"
    return "plays" if behavior is None and share[item.name] < TOGETHER else ""


def _negative(columns: Sequence[Column]) -> list[Column]:
    """Return amounts that are below 0 in some rows, quantities first."""
    found = [c for c in columns if c.is_number and c.is_a(MEASURE) and c.distinct > 1 and c.low < 0 < c.high]
    return sorted(found, key=lambda column: not column.is_a("quantity|qty|unit"))


def condition_of(columns: Sequence[Column]) -> str:
    """Return the condition that leaves out rows with a negative amount; empty where there are none."""
    return next((f"{column_in_condition(column.name)} > 0" for column in _negative(columns)), "")


def notes_on(order: Column | None, item: Column, rest: Sequence[Column], source: Table) -> list[str]:
    """Return a sentence for each thing that a person should know before the first run."""
    notes = []
    if order is not None:
        notes.append(f"`{order.name}` is an order or a session, of one user at one time, and not read.")
        if order.kind == "string":
            text = source[order.name]
            marked = text.re_search("^[A-Za-z]+[0-9]")
            seen = only_row(source.aggregate(n=marked.sum(), all=text.count(), one=text.max(where=marked)))
            if 0 < (seen["n"] or 0) < seen["all"] / 2:
                like = f"{seen['n']:,} rows have one like {seen['one']!r}"
                notes.append(f"{like}: a letter often marks a cancellation or a return.")
    back = _negative(rest)[:1]
    for column in back:
        count = only_row(source.aggregate(n=(source[column.name] < 0).sum()))["n"]
        more = "" if order is not None else ", and no column says of which order"
        notes.append(f"{count:,} rows have a negative `{column.name}`: cancellations or returns{more}.")
    measured = [
        f"`{column.name}`"
        for column in rest
        if column.is_number and column.is_a(MEASURE) and column.measure and column not in back
    ]
    if measured:
        notes.append(f"Of a row, and no tasks unless you ask: {', '.join(measured)}.")
    policies = [f"`{column.name}`" for column in rest if column.named("propensity|policy")]
    if policies:
        notes.append(f"How likely each item was to be shown ({', '.join(policies)}) is not read.")
    for column in (c for c in rest if c.is_a("campaign") and c.distinct > 1):
        if not Relations.of(source, [(item.name, column.name)]).decides(item.name, column.name):
            notes.append(f"Items of two campaigns (`{column.name}`) with equal ids count as one.")
    return notes
