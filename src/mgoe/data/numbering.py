"""Numbering users and items, and writing their indices in place of ids."""

from collections.abc import Mapping

import ibis.expr.datatypes as dt
import numpy as np
import pyarrow as pa

from mgoe._util.tables import hand_over
from mgoe.data.checks import Expr, Table
from mgoe.data.schema import NODES


def ids_by_first_bucket(rows: Table, node: str, bucket: Expr) -> pa.Table:
    """Return the distinct ids of users or items and the first bucket of each, ordered by bucket, then id.

    Args:
        rows: Rows of a log.
        node: `user` or `item`.
        bucket: The first bucket of a group of rows.

    Returns:
        Columns `id` and `first`.
    """
    found = rows.group_by(node).aggregate(first=bucket)
    return found.order_by(["first", node]).select(id=found[node], first=found["first"]).to_pyarrow()


def with_indices(rows: Table, ids: Mapping[str, pa.Array | pa.ChunkedArray]) -> Table:
    """Return the rows with indices in place of ids, in the engine of the table.

    Args:
        rows: Rows of a log.
        ids: Ids in the order of their indices, by `user` and `item`.
    """
    rest = [name for name in rows.columns if name not in NODES]
    tables = {}
    for node in NODES:
        rows = rows.mutate(**{node: rows[node].cast(dt.DataType.from_pyarrow(ids[node].type))})
        columns = {f"{node}_id": ids[node], f"{node}_index": pa.array(np.arange(len(ids[node])))}
        tables[node] = hand_over(rows.get_backend(), f"{node}_indices", pa.table(columns))
    users, items = tables["user"], tables["item"]
    joined = rows.join(users, rows.user == users.user_id).join(items, rows.item == items.item_id)
    return joined.select(joined.user_index.name("user"), joined.item_index.name("item"), *rest)
