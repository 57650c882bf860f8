"""What people call users and items: a column of a side table, for those who read. No model reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from numpy.typing import ArrayLike, NDArray

from mgoe.config import SideTableSettings
from mgoe.data.arrow import pc, texts
from mgoe.data.columns import read_id, wrong_type
from mgoe.data.log import drop, open_log, require_columns, stage
from mgoe.data.vocabulary import Vocabulary

FILE = "names.parquet"
"""In the folder of a side table; there is none where the settings name no column."""


class NodeNames:
    """The name of each user, or of each item, by index.

    Args:
        names: Texts, null where a node has none. Shape (n,).

    Example:
        >>> NodeNames(pa.array(["Red shoe", None])).of([0, 1, 7])
        ['Red shoe', None, None]
    """

    def __init__(self, names: pa.Array):
        self._names = names

    def __len__(self) -> int:
        """Return how many nodes have a name; 0 if no column of names was given."""
        return len(self._names) - self._names.null_count

    def of(self, indices: ArrayLike) -> list[str | None]:
        """Return the name of each index, None for a node without a name and for an unknown index."""
        wanted = np.asarray(indices, np.int64)
        unknown = (wanted < 0) | (wanted >= len(self._names))
        return self._names.take(pa.array(wanted, mask=unknown)).to_pylist()

    @classmethod
    def load(cls, folder: Path) -> NodeNames:
        """Read the names in the folder of a side table."""
        file = folder / FILE
        if not file.exists():
            return cls(pa.array([], pa.string()))
        return cls(pq.read_table(file, columns=["name"])["name"].combine_chunks())


def write_names(
    con: Backend, settings: SideTableSettings | None, nodes: Vocabulary, key: str, folder: Path
) -> None:
    """Read the names of a side table, and write them in the order of the nodes; nothing if it has none.

    Args:
        con: The work database.
        settings: Settings of the table, whose ids `read_side` has checked; None if there is no table.
        nodes: Ids of the log.
        key: Name of the setting, for messages.
        folder: Folder of the side table.

    Raises:
        DataError: There is no such column, or it does not hold one value per row.
    """
    if settings is None or settings.name is None:
        return
    source = open_log(con, [settings.path], f"{key}.path", (settings.id,))
    require_columns(source, [(f"{key}.name", settings.name)], settings.path)
    kind = source[settings.name].type()
    if kind.is_nested() or kind.is_binary():
        raise wrong_type(settings.path, settings.name, kind, "a name is one text or number per row")
    rows = stage(con, source, {"id": settings.id, "name": settings.name}, "raw_names", settings.path)
    found = rows.select(id=read_id(rows["id"], settings.id, settings.path)[0], name=rows["name"]).to_pyarrow()
    drop(con, "raw_names")
    names = pc.utf8_trim_whitespace(texts(found["name"].combine_chunks()))
    row = _row_of_each(nodes.indices(found["id"]), nodes.size)
    ordered = names.take(pa.array(row, mask=row < 0))
    ordered = pc.if_else(pc.equal(ordered, ""), pa.scalar(None, ordered.type), ordered)
    pq.write_table(pa.table({"name": ordered}), folder / FILE, compression="zstd")


def _row_of_each(indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the row of each of n nodes, -1 where it has none, from the node of each row (-1 if unknown)."""
    row = np.full(n, -1)
    row[indices[indices >= 0]] = np.flatnonzero(indices >= 0)
    return row
