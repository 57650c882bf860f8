"""Small logs to prepare: a quiet one that fills every window, and whatever a property adds to it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mgoe.config import RunSettings, make_settings
from mgoe.data import SPLITS, Prepared, prepare

DAY = 86_400
DAYS = 12
CUTS = ["2020-01-04", "2020-01-07", "2020-01-09", "2020-01-11"]  # two train windows, valid, test
START = int(pd.Timestamp("2020-01-01").timestamp())


def event_settings(**changes: Any) -> RunSettings:
    return _settings({"data": {"log": "unused"}, "tasks": ["click", "buy"], "split": {"cuts": CUTS}}, changes)


def exposure_settings(**changes: Any) -> RunSettings:
    tasks = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", "delay": "36h"}]
    return _settings({"data": {"log": "unused"}, "tasks": tasks, "split": {"cuts": CUTS}}, changes)


def quiet_events() -> pd.DataFrame:
    """Every day one user clicks and the other buys."""
    rows = [
        (user, item, day, behavior)
        for day in range(DAYS)
        for user, item, behavior in ((0, 0, "click"), (1, 1, "buy"))
    ]
    return events(rows)


def events(rows: list[tuple[int, int, int, str]]) -> pd.DataFrame:
    """Return an event log of rows (user, item, day, behaviour); the hour depends on user and item."""
    user, item, day, behavior = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    )
    time = (
        START
        + np.array(day, dtype=np.int64) * DAY
        + np.array(user, dtype=np.int64) * 3600
        + np.array(item, dtype=np.int64)
    )
    columns = {
        "user_id": np.array(user, np.int64),
        "item_id": np.array(item, np.int64),
        "timestamp": time.astype(np.int64),
    }
    return pd.DataFrame({**columns, "behavior": np.array(behavior, dtype=object)})


def event_rows(
    first: int = 0, last: int = DAYS - 1, most: int = 25
) -> st.SearchStrategy[list[tuple[int, int, int, str]]]:
    row = st.tuples(
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(first, last),
        st.sampled_from(["click", "buy", "cart"]),
    )
    return st.lists(row, max_size=most)


def quiet_exposures() -> pd.DataFrame:
    """Every day one user clicks and buys, and the other does not."""
    rows = [
        (user, item, day, float(user == item), float(user == item))
        for day in range(DAYS)
        for user, item in ((0, 0), (1, 0), (1, 1))
    ]
    return exposures(rows)


def exposures(rows: list[tuple[int, int, int, float | None, float | None]]) -> pd.DataFrame:
    """Return an exposure log of rows (user, item, day, two labels)."""
    log = events([(user, item, day, "") for user, item, day, *_ in rows]).drop(columns="behavior")
    log["clicked"] = np.array([row[3] for row in rows], dtype=float)
    log["bought"] = np.array([row[4] for row in rows], dtype=float)
    log["hour"] = log.timestamp // 3600 % 24
    return log


def exposure_rows(first: int = 0, last: int = DAYS - 1, most: int = 25) -> st.SearchStrategy[list[tuple]]:
    label = st.sampled_from([0.0, 1.0, None])
    return st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(first, last), label, label), max_size=most
    )


def prepared(log: pd.DataFrame, settings: RunSettings, out: Path) -> Prepared:
    return prepare(settings, out, ibis.memtable(log))


def prepared_twice(
    one: pd.DataFrame, other: pd.DataFrame, settings: RunSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    with TemporaryDirectory() as folder:
        return tuple(
            contents(prepared(log, settings, Path(folder) / name))
            for name, log in (("one", one), ("other", other))
        )  # type: ignore[return-value]


def contents(data: Prepared) -> dict[str, Any]:
    """Return everything in a prepared folder as arrays and lists, to compare two after their folders are
    deleted."""
    examples = [data.examples(split) for split in SPLITS]
    history = data.history.to_pandas()
    return {
        "cuts": data.cuts,
        "users_at": data.users_at,
        "items_at": data.items_at,
        "users": data.users.ids(np.arange(data.users.size)).to_pylist(),
        "items": data.items.ids(np.arange(data.items.size)).to_pylist(),
        "history": history.sort_values(list(history.columns)).reset_index(drop=True),
        "examples": pd.DataFrame(
            {
                **{
                    name: np.concatenate([getattr(e, name) for e in examples])
                    for name in ("user", "item", "bucket", "snapshot", "weight")
                },
                **{
                    f"label {t}": np.concatenate([e.labels[:, t] for e in examples])
                    for t in range(len(data.tasks))
                },
                **{
                    name: np.concatenate([getattr(e, name) for e in examples])
                    for name in ("moment",)
                    if examples[0].moment is not None
                },
                **{
                    f"context {name}": np.concatenate([e.context[name] for e in examples]).ravel()
                    for name in examples[0].context
                },
            }
        ),
    }


def _settings(raw: dict[str, Any], changes: dict[str, Any]) -> RunSettings:
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    return make_settings(raw)
