"""Recommend to the users of a file, block by block."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgoe.bundle import Bundle
from mgoe.experiments.score import read_blocks, write_blocks

USERS = 1_000
"""Users whose recommendations are written at once."""


def recommend_users(bundle: Bundle, users: Path | str, **wish: Any) -> Iterator[pa.Table]:
    """Recommend to each user of a file (or folder, or glob) with the log's user column.

    Args:
        bundle: What recommends.
        users: The file; a user that was never seen is one without history.
        wish: As for `Bundle.recommend`.

    Yields:
        The columns of user and item, the rank from 1, and one per task with its probability or value. Users
        come in the file's order; the first table is empty.

    Raises:
        DataError: The file cannot be read or lacks the column.
        MgoeError: What is asked for breaks a rule.
    """
    data = bundle.settings.data
    for block in read_blocks(bundle, users, ("user",)):
        ids = block[data.user]
        schema = pa.schema(
            [
                (data.user, ids.type),
                ("rank", pa.int32()),
                (data.item, bundle.encoders.items.type),
                *((task, pa.float32()) for task in bundle.tasks),
            ]
        )
        if not len(ids):
            yield schema.empty_table()
        for start in range(0, len(ids), USERS):
            found = bundle.recommend(ids[start : start + USERS], **wish)
            columns = [pa.array(found[name], kind) for name, kind in zip(found, schema.types, strict=True)]
            yield pa.table(columns, schema=schema)


def write_recommendations(bundle: Bundle, users: Path | str, out: Path | str, **wish: Any) -> int:
    """Write recommendations for the users of a file into another, Parquet or CSV by its suffix.

    The file appears when it is complete, and replaces what was there.

    Returns:
        Number of rows.

    Raises:
        DataError: The users cannot be read or lack their column.
        OutputError: The file cannot be written.
        MgoeError: What is asked for breaks a rule.
    """
    return write_blocks(recommend_users(bundle, users, **wish), out)
