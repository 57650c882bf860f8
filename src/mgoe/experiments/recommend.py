"""Recommend to the users of a file, block by block, in one process or several."""

import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe.bundle import Bundle, UnseenUsers
from mgoe.bundle.unseen_users import warn_of_unseen
from mgoe.experiments.processes import in_order
from mgoe.experiments.score import check_jobs, cut, read_blocks
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
        users: The file; a user that was never seen is one without history, of whom `UnseenUsers` gives the
            number.
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
    rows, blocks = read_blocks(bundle, users, ("user",))
    parts = cut(blocks, USERS)
    yield schema_of(bundle, next(parts).field(0).type).empty_table()
    if jobs > 1:
        found = in_order(recommend_here, (bundle.path, rows, wish), parts, jobs)
    else:
        found = map(partial(_recommend, by_rows(bundle, rows), wish), parts)
    done, unseen = 0, 0
    for lists, who in found:
        yield lists
        done, unseen = done + len(who), unseen + int((who < 0).sum())
        on_progress(done, rows)
    warn_of_unseen(unseen, rows)


def by_rows(bundle: Bundle, users: int) -> Bundle:
    """Return a bundle whose lists are scored from rows that are computed once per item, if so many users are
    enough for it to pay, and the same bundle otherwise."""
    if type(bundle) is not Bundle or users * ITEMS_PER_USER < bundle.n_items:
        return bundle
    return bundle.scored_by(Scorer(bundle, runtime=Runtime(engine="torch")))


def schema_of(bundle: Bundle, kind: pa.DataType) -> pa.Schema:
    """Return the columns of lists, given the type of users."""
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


def _recommend(bundle: Bundle, wish: dict[str, Any], part: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the lists of users, and their indices, -1 for one that was never seen."""
    users = part.column(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenUsers)  # they are counted over all parts
        found, schema = bundle.recommend(users, **wish), schema_of(bundle, users.type)
    columns = [pa.array(found[name], kind) for name, kind in zip(found, schema.types, strict=True)]
    return pa.table(columns, schema=schema), bundle.indices("user", users)


def recommend_here(
    path: Path, rows: int, wish: dict[str, Any], part: pa.Table
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the lists of a part's users and their indices, in a process that opens the bundle once.

    Args:
        path: The bundle.
        rows: Users of all parts.
        wish: As for `Bundle.recommend`.
        part: The users, in its first column.
    """
    return _recommend(_opened(path, rows), wish, part)


@cache
def _opened(path: Path, users: int) -> Bundle:
    """Return the bundle of a process, which it opens once."""
    return by_rows(Bundle.open(path, verify=False), users)
