"""Recommend to the users of a file, block by block, in one process or several."""

import itertools
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgoe.bundle import Bundle
from mgoe.experiments.processes import in_order
from mgoe.experiments.score import check_jobs, read_blocks
from mgoe.serving import Scorer
from mgoe.serving.scoring.runtime import Runtime

USERS = 1_000
"""Users whose recommendations are written at once."""
ITEMS_PER_USER = 100
"""The rows of all items are computed ahead for at least one user per so many items."""


def recommend_users(
    bundle: Bundle,
    users: Path | str,
    jobs: int = 1,
    on_progress: Callable[[int, int], object] = lambda done, users: None,
    **wish: Any,
) -> Iterator[pa.Table]:
    """Recommend to each user of a file (or folder, or glob) with the log's user column.

    What an item adds to the model's first layers is computed once for all users, as a service does, unless
    they are few.

    Args:
        bundle: What recommends.
        users: The file; a user that was never seen is one without history.
        jobs: Processes side by side.
        on_progress: Progress callback; receives the number of users completed, and of all users.
        wish: As for `Bundle.recommend`.

    Yields:
        The columns of user and item, the rank from 1, the score that orders them, and one per task with its
        probability or value. Users come in the file's order; the first table is empty.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read or lacks the column.
        MgoeError: What is asked for breaks a rule.
    """
    check_jobs(bundle, jobs)
    bundle.recommend([], **wish)  # a mistake in what is asked for is found before any work
    name = bundle.settings.data.user
    rows, blocks = read_blocks(bundle, users, ("user",))
    kind = next(blocks)[name].type
    yield _schema(bundle, kind).empty_table()
    parts = (block[name][at : at + USERS] for block in blocks for at in range(0, len(block), USERS))
    first = list(itertools.islice(parts, 1 + bundle.n_items // (ITEMS_PER_USER * USERS)))
    every, least = itertools.chain(first, parts), sum(map(len, first))
    if jobs > 1:
        found = in_order(_recommend_here, (bundle.path, least, wish), every, jobs)
    else:
        found = map(partial(_recommend, by_rows(bundle, least), wish), every)
    done = 0
    for number, lists in found:
        yield lists
        done += number
        on_progress(done, rows)


def by_rows(bundle: Bundle, users: int) -> Bundle:
    """Return a bundle whose lists are scored from rows that are computed once per item, if so many users are
    enough for it to pay, and the same bundle otherwise."""
    if type(bundle) is not Bundle or users * ITEMS_PER_USER < bundle.n_items:
        return bundle
    return bundle.scored_by(Scorer(bundle, runtime=Runtime(engine="torch")))


def _schema(bundle: Bundle, kind: pa.DataType) -> pa.Schema:
    data = bundle.settings.data
    return pa.schema(
        [
            (data.user, kind),
            ("rank", pa.int32()),
            (data.item, bundle.encoders.items.type),
            (bundle.score_column, pa.float64()),
            *((task, pa.float32()) for task in bundle.tasks),
        ]
    )


def _recommend(bundle: Bundle, wish: dict[str, Any], users: pa.ChunkedArray) -> tuple[int, pa.Table]:
    """Return the number of users and their lists."""
    found, schema = bundle.recommend(users, **wish), _schema(bundle, users.type)
    columns = [pa.array(found[name], kind) for name, kind in zip(found, schema.types, strict=True)]
    return len(users), pa.table(columns, schema=schema)


def _recommend_here(
    path: Path, least: int, wish: dict[str, Any], users: pa.ChunkedArray
) -> tuple[int, pa.Table]:
    return _recommend(_opened(path, least), wish, users)


@cache
def _opened(path: Path, users: int) -> Bundle:
    """Return the bundle of a process, which it opens once."""
    return by_rows(Bundle.open(path, verify=False), users)
