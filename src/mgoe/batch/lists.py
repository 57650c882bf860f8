"""Recommend to the users of a file, part by part, in one process or several."""

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgoe.batch.parts import Progress, Work, run
from mgoe.bundle import Bundle, UnseenUsers
from mgoe.serving import Scorer
from mgoe.serving.scoring.runtime import Runtime

USERS_PER_PART = 1_000
"""Users whose recommendations are written at once."""
ITEMS_PER_USER = 100
"""The rows of all items are computed ahead for at least one user per so many items."""


def recommend_users(
    bundle: Bundle,
    users: Path | str,
    jobs: int = 1,
    on_progress: Progress = lambda done, users: None,
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
    return run(bundle, users, lists(bundle, wish), jobs, on_progress)


def lists(bundle: Bundle, wish: Mapping[str, Any]) -> Work:
    """Return how lists of users are made; a mistake in what is asked for is found here, before any work."""
    bundle.recommend([], **wish)
    return Work(("user",), USERS_PER_PART, partial(_recommend, wish), _schema, by_rows)


def by_rows(bundle: Bundle, users: int) -> Bundle:
    """Return a bundle whose lists are scored from rows that are computed once per item, if so many users are
    enough for it to pay, and the same bundle otherwise."""
    if type(bundle) is not Bundle or users * ITEMS_PER_USER < bundle.n_items:
        return bundle
    return bundle.scored_by(Scorer(bundle, runtime=Runtime(engine="torch")))


def _recommend(wish: Mapping[str, Any], bundle: Bundle, part: pa.Table) -> tuple[pa.Table, int]:
    """Return the lists of a part's users, and how many of these were never seen."""
    users = part.column(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenUsers)  # they are counted over all parts
        found, schema = bundle.recommend(users, **wish), _schema(bundle, part)
    columns = [pa.array(found[name], kind) for name, kind in zip(found, schema.types, strict=True)]
    return pa.table(columns, schema=schema), int((bundle.indices("user", users) < 0).sum())


def _schema(bundle: Bundle, some: pa.Table) -> pa.Schema:
    data = bundle.settings.data
    return pa.schema(
        [
            (data.user, some.schema.field(0).type),
            ("rank", pa.int32()),
            (data.item, bundle.encoders.items.type),
            (bundle.score_column, pa.float64()),
            *((task, pa.float32()) for task in bundle.tasks),
        ]
    )
