"""Exposures that are told apart by the ids of their requests, against frames of pandas."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from mgoe.config import RunSettings
from mgoe.data import Prepared, newest_window, read_rows
from mgoe.data.history import whole_log
from mgoe.data.requests import merged
from mgoe.errors import DataError
from tests.data import logs
from tests.effort import SOAK, up_to

TASKS = [
    {"name": "click", "label": "clicked"},
    {"name": "buy", "label": "bought", "known_at": "known"},
    {"name": "stay", "label": "seconds", "kind": "regression"},
]
RUN = logs.exposure_settings(tasks=TASKS, data={"request": "rid", "context": [{"name": "hour"}]})
OURS = {
    "rid": "request",
    "hour": "context_hour",
    "clicked": "label_click",
    "bought": "label_buy",
    "seconds": "label_stay",
    "known": "known_buy",
}
FEW = st.integers(0, 2)
LABEL = st.sampled_from([0.0, 1.0, None])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        FEW,
        FEW,
        st.integers(0, logs.DAYS - 1),
        FEW,
        LABEL,
        LABEL,
        st.sampled_from([0.0, 1.5, 4.0, None]),
        FEW,
    ),
    max_size=25,
)
"""Request, user, item, day, hour, two labels, seconds, and days until the second label is known."""


def log_of(rows: list[tuple]) -> pd.DataFrame:
    request, user, item, day, hour, clicked, bought, seconds, wait = (
        zip(*rows, strict=True) if rows else [()] * 9
    )
    time = logs.START + np.array(day, np.int64) * logs.DAY + np.array(hour, np.int64) * 3600
    return pd.DataFrame(
        {
            "rid": pd.Series(request, dtype=object),
            "user_id": np.array(user, np.int64),
            "item_id": np.array(item, np.int64),
            "timestamp": time,
            "hour": np.array(hour, np.int64),
            "clicked": np.array(clicked, float),
            "bought": np.array(bought, float),
            "seconds": np.array(seconds, float),
            "known": time + np.array(wait, np.int64) * logs.DAY,
        }
    )


def quiet() -> pd.DataFrame:
    """A log that fills every window, whose requests are of nobody else."""
    shown = logs.quiet_exposures()
    return shown.assign(
        rid=[f"quiet {n}" for n in range(len(shown))],
        hour=0,
        seconds=shown.clicked * 2,
        known=shown.timestamp,
    )


def naive(log: pd.DataFrame) -> pd.DataFrame:
    """One row per exposure: its earliest one, with the largest labels, and when that of buy was known."""
    moment = log.timestamp.where(log.rid.isna())
    others = sorted(set(log.columns) - {"timestamp", "rid", "user_id", "item_id"}, key=OURS.__getitem__)
    found = []
    for _, part in log.groupby([log.user_id, log.item_id, log.rid, moment], dropna=False):
        row = part.sort_values(["timestamp", *others]).iloc[0].to_dict()
        row |= {label: part[label].max() for label in ("clicked", "bought", "seconds")}
        found.append(row | {"known": part.known[part.bought == part.bought.max()].min()})
    return pd.DataFrame(found, columns=log.columns)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    plain = rows.astype(dict.fromkeys(rows.columns.drop("rid", errors="ignore"), float))
    plain = plain.assign(**({"rid": plain.rid.fillna("none").astype(object)} if "rid" in plain else {}))
    return plain.sort_values([*plain.columns]).reset_index(drop=True)


@up_to(15)
@given(rows=ROWS, seed=st.integers(0, 9))
def test_rows_of_one_exposure_become_one(rows: list[tuple], seed: int):
    log = log_of(rows).sample(frac=1, random_state=seed)
    ours = OURS | {"user_id": "user", "item_id": "item", "timestamp": "time"}
    schema = {"rid": "string"} | dict.fromkeys(("clicked", "bought", "seconds"), "float64")
    table = ibis.memtable(log, schema=ibis.schema({name: schema.get(name, "int64") for name in log}))
    found = merged(table.rename({new: old for old, new in ours.items()}), RUN).to_pandas()
    assert_frame_equal(
        in_order(found.rename(columns={new: old for old, new in ours.items()})), in_order(naive(log))
    )


def examples_of(data: Prepared) -> pd.DataFrame:
    """What was shown after the first cut, as the log says it."""
    parts = [pd.read_parquet(data.path / f"{split}.parquet") for split in ("train", "valid", "test")]
    rows = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(
        {
            "user_id": data.users.ids(rows.user).to_numpy(),
            "item_id": data.items.ids(rows.item).to_numpy(),
            "day": rows.bucket - logs.START // logs.DAY,
            "clicked": rows["label.click"],
            "bought": rows["label.buy"],
            "seconds": rows["label.stay"],
        }
    )


@settings(max_examples=3 if SOAK else 2)
@given(rows=ROWS)
def test_examples_history_and_records_are_of_exposures(tmp_path_factory: Any, rows: list[tuple]):
    log, folder = pd.concat([quiet(), log_of(rows)]), tmp_path_factory.mktemp("requests")
    data, once = logs.prepared(log, RUN, folder / "out"), naive(log)
    shown = once.assign(day=(once.timestamp - logs.START) // logs.DAY)
    shown = shown[shown.day > data.cuts[0] - logs.START // logs.DAY]
    found = examples_of(data)
    assert_frame_equal(in_order(found), in_order(shown[found.columns]))
    assert data.summary["dropped_rows"]["duplicates"] == len(log) - len(once)
    assert data.exposures.shown.sum().to_pyarrow().as_py() == len(once)  # type: ignore[union-attr]
    assert data.summary["events"] == {
        "click": (once.clicked > 0).sum(),
        "buy": (once.bought > 0).sum(),
        "stay": (once.seconds > 0).sum(),
    }
    rows, _ = read_rows(ibis.memtable(log), RUN, "log")
    whole = whole_log(rows, RUN, folder, "log", encoders=data.context_features)
    assert whole.records is not None
    for one, other in ((whole.records, data.exposures), (whole.history, data.history)):
        ours, theirs = one.to_pandas(), other.to_pandas()[[*one.columns]]  # type: ignore[union-attr]
        assert_frame_equal(in_order(ours), in_order(theirs))


@pytest.mark.parametrize("request_column", ["rid", None])
def test_requests_at_one_moment_are_two_exposures_where_their_ids_are_known(
    request_column: str | None, tmp_path: Path
):
    one = (0, 0, 11, 0, 1.0, 0.0, 0.0, 0)
    log = pd.concat([quiet(), log_of([("a", *one), ("b", *one), (None, *one), ("b", *one)])])
    run = logs.exposure_settings(tasks=TASKS, data={"request": request_column})
    data = logs.prepared(log, run, tmp_path / "out")
    rows = data.examples("test")
    shown = (rows.user == data.users.indices([0])[0]) & (rows.bucket == logs.START // logs.DAY + 11)
    assert shown.sum() == (2 if request_column is None else 4)  # and one that is there every day
    after = logs.START + 11 * logs.DAY
    known = SimpleNamespace(users=data.users, items=data.items, context_features=data.context_features)
    new, _ = read_rows(ibis.memtable(log[log.timestamp >= after]), run, "log")
    newest = newest_window(new, run, known, "log", 2**57)  # type: ignore[arg-type]
    assert (newest.user == data.users.indices([0])[0]).sum() == shown.sum()


def test_rows_of_one_exposure_may_be_refused(tmp_path: Path):
    twice = pd.concat([quiet(), quiet()[3:5].assign(clicked=1.0)])
    run = RUN.model_copy(update={"data": RUN.data.model_copy(update={"duplicates": "refuse"})})
    with pytest.raises(
        DataError, match="no exposure may have two rows, found 2 repeats, the first of user 0"
    ):
        logs.prepared(twice, run, tmp_path / "out")


@pytest.mark.parametrize("kind", ["int64", "string", "uuid"])
def test_ids_of_requests_have_any_type_of_ids(kind: str, tmp_path: Path):
    log = quiet()
    numbers = pd.Series(np.arange(len(log)))
    log["rid"] = {
        "int64": numbers,
        "string": numbers.astype(str),
        "uuid": numbers.map(lambda n: f"{n:032x}"),
    }[kind]
    again = pd.concat([log, log.assign(rid=log.rid.where(log.index < 6))])
    assert logs.prepared(again, RUN, tmp_path / "out").summary["dropped_rows"]["duplicates"] == 6


def test_ids_of_requests_are_refused_as_other_ids_are(tmp_path: Path):
    with pytest.raises(DataError, match=r"column 'rid': an id stored as a float must be a whole number"):
        logs.prepared(quiet().assign(rid=0.5), RUN, tmp_path / "out")
    with pytest.raises(DataError, match=r"column 'rid' \(data.request\) is missing"):
        logs.prepared(quiet().drop(columns="rid"), RUN, tmp_path / "out")


def test_an_event_log_has_no_requests(tmp_path: Path):
    run: RunSettings = logs.event_settings(data={"request": "rid"})
    with pytest.raises(Exception, match=r"data.request: belongs to an exposure log, found an event log"):
        logs.prepared(logs.quiet_events(), run, tmp_path / "out")
