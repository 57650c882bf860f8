"""What the columns of a side table may be, guessed from their types, values and names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ibis
from ibis.backends.duckdb import Backend

from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.log import open_log
from mgoe.errors import DataError

NAMES = ("name", "title")
"""Columns of a side table, in any case, that hold what people call users or items."""
MATCHED, FEW, PACKED, CORRELATED = 0.5, 50, 0.3, 0.8
"""Share of the log's ids that a side table must hold; values up to which a whole number is a category; share
of texts with a `|`, from which they hold several categories; rank correlation with the rows per id, from
which a number looks like a count over the log."""
LEAK = r"(^|[^a-z])(average|avg|mean|count|num|total|vote|popularity)s?([^a-z]|$)"


def guess_side_table(
    con: Backend, source: Table, column: str, node: str, file: Path | str
) -> tuple[dict[str, Any], float, dict[str, str]]:
    """Look at a side table.

    Args:
        con: The work database, which holds the log.
        source: The log.
        column: Its column of ids.
        node: `user` or `item`.
        file: The table.

    Returns:
        Its settings; the share of the log's ids that it holds; and why a column should not be a feature.

    Raises:
        DataError: The table cannot be read, or no column has each id once and half of those of the log.
    """
    side: Table = open_log(con, [file], f"--{node}s", ids=[column])
    ids = source.filter(source[column].notnull()).group_by(id=source[column].cast("string"))
    log: Table = con.create_table(f"{node}s_of_log", ids.aggregate(n=ibis._.count()))
    kinds = side.schema()
    texts: dict[str, Expr] = {n: side[n].cast("string") for n, kind in kinds.items() if not kind.is_nested()}
    measures = {f"values of {name}": text.nunique() for name, text in texts.items()}
    measures |= {f"packed {name}": text.contains("|").mean() for name, text in texts.items()}
    facts = only_row(side.aggregate(rows=side.count(), **measures))
    single = {name: text for name, text in texts.items() if facts[f"values of {name}"] == facts["rows"]}
    found: dict[str, Any] = {name: log.id.isin(text).cast("int64").mean() for name, text in single.items()}
    shares = only_row(log.aggregate(rows=log.count(), **found))
    key = max(single, key=lambda name: (shares[name], name == column), default="rows")
    share = shares[key] if single else 0
    if share < MATCHED:
        raise DataError(
            file,
            f"a column must hold at least half of the ids of the log's {column!r}, each in one row, found "
            f"{share:.0%} at most; name another file, or leave --{node}s out",
        )
    name = next((n for n in texts if n.lower() in NAMES and n != key and kinds[n].is_string()), None)
    numbers = {f"number {n}": side[n].cast("float64") for n, kind in kinds.items() if kind.is_numeric()}
    counted = side.select(id_of_log=texts[key], **numbers).inner_join(log, [("id_of_log", "id")])
    alike = counted.select("n", *numbers).to_pandas().corr("spearman")["n"].fillna(0)
    features = {n: _feature(n, kinds[n], facts, alike) for n in side.columns if n not in (key, name)}
    named = {} if name is None else {"name": name}
    kept = [{"name": n, "kind": kind} for n, (kind, _) in features.items()]
    doubts = {n: doubt for n, (_, doubt) in features.items() if doubt}
    return {"path": str(file), "id": key, **named, "features": kept}, share, doubts


def _feature(name: str, kind: Any, facts: Mapping[str, float], alike: Any) -> tuple[str, str]:
    """Return the kind of feature that a column would be, and why it should be none."""
    values, words = facts.get(f"values of {name}", 0), re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if kind.is_array():
        return "vector" if kind.value_type.is_floating() else "multi", ""
    if kind.is_numeric() and (values > FEW or not kind.is_integer()) and not words.endswith("id"):
        if re.search(LEAK, words):
            return "numeric", "looks like a leak: named like an average or a count over all events"
        rho = alike[f"number {name}"]
        why = f"looks like a leak: its rank correlation with the number of rows in the log is {rho:.2f}"
        return "numeric", why if abs(rho) > CORRELATED else ""
    if kind.is_string() and (facts[f"packed {name}"] or 0) > PACKED:
        return "multi", ""
    if kind.is_string() and values > FEW and 2 * values > facts["rows"]:
        return "vector", "text is not read: give a column of vectors that an encoder made of it"
    fits = kind.is_string() or kind.is_integer() or kind.is_boolean() or kind.is_date()
    return "categorical", "" if fits else f"a value of the type {kind} is no category"
