"""Recommend to the users of a file, block by block, in one process or several."""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgoe.bundle import Bundle
from mgoe.errors import ConfigError
from mgoe.experiments.score import read_blocks
from mgoe.serving import Scorer
from mgoe.serving.scoring.runtime import Runtime

USERS = 1_000
"""Users whose recommendations are written at once."""
AHEAD = 2
"""Blocks per process that are computed or wait to be written."""
ITEMS_PER_USER = 100
"""The rows of all items are computed ahead for at least one user per so many items."""


def recommend_users(
    bundle: Bundle,
    users: Path | str,
    jobs: int = 1,
    on_progress: Callable[[int], object] = lambda users: None,
    **wish: Any,
) -> Iterator[pa.Table]:
    """Recommend to each user of a file (or folder, or glob) with the log's user column.

    What an item adds to the model's first layers is computed once for all users, as a service does, unless
    they are few.

    Args:
        bundle: What recommends.
        users: The file; a user that was never seen is one without history.
        jobs: Processes side by side.
        on_progress: Progress callback; receives the number of users just completed.
        wish: As for `Bundle.recommend`.

    Yields:
        The columns of user and item, the rank from 1, the score that orders them, and one per task with its
        probability or value. Users come in the file's order; the first table is empty.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events.
        DataError: The file cannot be read or lacks the column.
        MgoeError: What is asked for breaks a rule.
    """
    if jobs > 1 and type(bundle) is not Bundle:
        raise ConfigError("jobs", f"is for a bundle without live events, found {jobs}; leave it out")
    bundle.recommend([], **wish)  # a mistake in what is asked for is found before any work
    name = bundle.settings.data.user
    blocks = read_blocks(bundle, users, ("user",))
    kind = next(blocks)[name].type
    yield _schema(bundle, kind).empty_table()
    parts = (block[name][at : at + USERS] for block in blocks for at in range(0, len(block), USERS))
    first = list(itertools.islice(parts, 1 + bundle.n_items // (ITEMS_PER_USER * USERS)))
    every, least = itertools.chain(first, parts), sum(map(len, first))
    if jobs > 1:
        found = _side_by_side(bundle.path, every, jobs, least, wish)
    else:
        found = map(partial(_recommend, by_rows(bundle, least), wish), every)
    for done, lists in found:
        yield lists
        on_progress(done)


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


def _side_by_side(
    path: Path, parts: Iterator[pa.ChunkedArray], jobs: int, users: int, wish: dict[str, Any]
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the lists of all parts in their order; few of them are in memory at a time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(jobs, context, _open, (path, users)) as pool:
        ahead = deque[Future[tuple[int, pa.Table]]]()
        for part in parts:
            ahead.append(pool.submit(_recommend_here, wish, part))
            if len(ahead) == AHEAD * jobs:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


_opened: Bundle | None = None
"""The bundle of a process of `_side_by_side`."""


def _open(path: Path, users: int) -> None:
    global _opened
    _opened = by_rows(Bundle.open(path, verify=False), users)


def _recommend_here(wish: dict[str, Any], users: pa.ChunkedArray) -> tuple[int, pa.Table]:
    assert _opened is not None
    return _recommend(_opened, wish, users)
