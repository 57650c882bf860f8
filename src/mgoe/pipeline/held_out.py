"""A log without the last item of each user: what leave-last-out lists are measured on.

The rest is a log like any other: models are prepared, trained and compared on it as usual. What is held out
is stored beside it and read when lists are measured.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import atomic_folder
from mgoe.config import RunSettings
from mgoe.data import Prepared, Vocabulary, open_log, place_of, read_rows, whole_log
from mgoe.data.log import work_database
from mgoe.errors import ConfigError, DataError

REST, HELD = "rest.parquet", "held.parquet"
"""Files of the folder that `hold_out_last` writes."""


def settings_of_rest(whole: RunSettings, raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings of a run on the rest of a log, which holds one event per row.

    Args:
        whole: Settings of a run on the log.
        raw: The same without defaults.
        folder: Folder that `hold_out_last` writes.

    Raises:
        ConfigError: A task is a regression, whose values no event holds.
    """
    for task in whole.tasks:
        if task.kind == "regression":
            raise ConfigError(
                f"tasks.{task.name}",
                "a log without last items holds events, which have no values, found a regression; leave "
                "this task out, or leave out `hold_out`",
            )
    data = whole.data.model_dump(mode="json", include={"bucket", "timezone", "users", "items"})
    tasks = [
        task.model_dump(mode="json", exclude={"label", "known_at", "delay"}) | {"behaviors": []}
        for task in whole.tasks
    ]
    return {**raw, "data": {"log": str(folder / REST), **data}, "tasks": tasks}


def hold_out_last(whole: RunSettings, folder: Path) -> None:
    """Write the log without the last item of each user, and these items.

    Users with a single item keep it.

    Args:
        whole: Settings of a run on the log.
        folder: Folder to write.

    Raises:
        DataError: No user has two items.
    """
    with atomic_folder(folder) as unfinished:
        columns, users, items = numbered_events(whole, unfinished / "numbered")
        user, item = (columns[name].to_numpy().astype(np.int64) for name in ("user", "item"))
        held = on_last_item(user, item)
        if not held.any():
            raise DataError(
                whole.data.log[0],
                "a user must have two items for the last to be held out, found none; leave out `hold_out`",
            )
        kept, pairs = ~held, np.unique(np.stack([user[held], item[held]]), axis=1)
        names = np.array(whole.task_names)[columns["task"].to_numpy()]
        rest = {
            "user_id": users.ids(user[kept]),
            "item_id": items.ids(item[kept]),
            "timestamp": columns["time"].cast(pa.timestamp("us", "UTC")).filter(pa.array(kept)),
            "behavior": pa.array(names[kept]),
        }
        pq.write_table(pa.table(rest), unfinished / REST)
        pq.write_table(
            pa.table({"user_id": users.ids(pairs[0]), "item_id": items.ids(pairs[1])}), unfinished / HELD
        )


def numbered_events(whole: RunSettings, work: Path) -> tuple[pa.Table, Vocabulary, Vocabulary]:
    """Read a log.

    Args:
        whole: Settings of a run on the log.
        work: Folder for files, removed at the end.

    Returns:
        User, item, time and task of every event, by time; ids of users and of items.

    Raises:
        DataError: The log cannot be read or breaks a rule.
    """
    place = place_of(whole.data.log)
    with work_database(work, place, whole.memory, whole.data.timezone) as con:
        source = open_log(con, whole.data.log, ids=whole.data.ids)
        log = whole_log(read_rows(source, whole, place)[0], whole, work, place)
        columns = log.history.order_by(["time", "user", "item", "task"]).to_pyarrow()
        users, items = (Vocabulary.load(work / f"{node}s.parquet") for node in ("user", "item"))
    return columns, users, items


def on_last_item(user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which events, in the order of time, are on their user's last item, if the user has another.

    Example:
        >>> on_last_item(np.array([0, 0, 0, 1]), np.array([7, 8, 7, 5]))
        array([ True, False,  True, False])
    """
    last = np.full(int(user.max(initial=-1)) + 1, -1)
    last[user] = item  # of equal indices the last value stays
    held = item == last[user]
    has_another = np.bincount(user[~held], minlength=len(last)) > 0
    return held & has_another[user]


def held_pairs(folder: Path, prepared: Prepared) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the held-out users and items by their index in the prepared rest, -1 where it has no events of
    them."""
    table = pq.read_table(folder / HELD)
    return prepared.users.indices(table["user_id"]), prepared.items.indices(table["item_id"])
