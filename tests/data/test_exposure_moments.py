"""What exposures read strictly before, and from when their labels count, against the rules by hand."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import RunSettings
from mgoe.data import SPLITS, Prepared, as_table, read_rows
from mgoe.data.window import later_exposures
from tests.data import logs
from tests.effort import up_to

SECOND, DAY = 1_000_000, 86_400_000_000
LAG = 7
ROW = st.tuples(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, logs.DAYS - 1),
    st.sampled_from([0, 1, 2, 43_200, 86_398, 86_399]),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)


def log_of(rows: list[tuple]) -> pd.DataFrame:
    """Return exposures of rows (user, item, day, second, request, click), after those of every log."""
    columns = ["user_id", "item_id", "day", "second", "request", "clicked"]
    log = pd.DataFrame(rows, columns=columns).assign(bought=1.0)
    log["timestamp"] = logs.START + log.day * logs.DAY + log.second
    every = pd.concat([quiet(), log.drop(columns=["day", "second"])], ignore_index=True)
    every["request"] = every.request.astype(object).where(every.request.notna(), None)
    every["clicked"] = every.clicked.astype(float)
    # an exposure counts once: of those of a request the earliest
    every["id"] = every.request.where(every.request.notna(), every.timestamp.astype(str))
    every = every.sort_values("timestamp", kind="stable").drop_duplicates(["user_id", "item_id", "id"])
    return every.assign(seen=every.timestamp + 5).drop(columns="id").reset_index(drop=True)


def quiet() -> pd.DataFrame:
    """Return exposures that every log holds, each of a request of its own."""
    log = logs.quiet_exposures()
    return log.assign(seen=log.timestamp + 5, request=[f"q{row}" for row in range(len(log))])


def settings_of(**data: Any) -> RunSettings:
    tasks = [
        {"name": "click", "label": "clicked"},
        {"name": "buy", "label": "bought", "delay": "36h"},
        {"name": "look", "label": "clicked", "known_at": "seen"},
    ]
    return logs.exposure_settings(data={"request": "request", **data}, tasks=tasks)


def prepared_of(log: pd.DataFrame, folder: Path, **data: str) -> Prepared:
    return logs.prepared(log, settings_of(**data), folder / "data")


def rows_of(prepared: Prepared) -> pd.DataFrame:
    """Return the examples with ids."""
    parts = [prepared.examples(split) for split in SPLITS]
    columns = {
        name: np.concatenate([getattr(one, name) for one in parts])
        for name in ("user", "item", "bucket", "moment")
    }
    names = prepared.users.ids(columns["user"]), prepared.items.ids(columns["item"])
    return pd.DataFrame(columns | {"user": names[0].to_numpy(), "item": names[1].to_numpy()})


@up_to(2)
@given(rows=st.lists(ROW, max_size=25), history=st.sampled_from(["moment", "bucket"]))
def test_a_row_reads_up_to_its_request_and_no_label_of_its_bucket_that_nobody_knew(rows, history):
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(rows)
        prepared = prepared_of(log, Path(folder), history=history, lag=f"{LAG}s")
        found = rows_of(prepared)
        time = log.timestamp * SECOND
        log["bucket"] = time // DAY
        first = time.groupby([log.user_id, log.request.fillna("alone")]).transform("min")
        moment = log.bucket * DAY if history == "bucket" else time.where(log.request.isna(), first)
        log["moment"] = moment - LAG * SECOND
        columns = ["user_id", "item_id", "bucket", "moment"]
        wanted = log.loc[log.bucket > prepared.cuts[0], columns]
        assert sorted(map(tuple, found.to_numpy().tolist())) == sorted(map(tuple, wanted.to_numpy().tolist()))
        for task, name in enumerate(("click", "buy", "look")):
            check_known(prepared, log, found, task, name)


def check_known(prepared: Prepared, log: pd.DataFrame, found: pd.DataFrame, task: int, name: str) -> None:
    history = prepared.history.filter(prepared.history.task == task).to_pandas()
    users, items = (
        nodes.ids(history[side].to_numpy()).to_numpy()
        for nodes, side in ((prepared.users, "user"), (prepared.items, "item"))
    )
    known = sorted(zip(users, items, history.time, strict=True))
    done = log[(log.clicked if name != "buy" else log.bought) > 0]
    time = done.timestamp * SECOND
    last = (done.bucket + 1) * DAY - 1
    squeezed = last - (last - time) // SECOND
    at = {"click": squeezed, "buy": time + 36 * 3600 * SECOND, "look": done.seen * SECOND}[name]
    assert known == sorted(zip(done.user_id, done.item_id, at, strict=True))
    if name == "click":
        assert (found.moment + LAG * SECOND <= last.groupby(done.bucket).max()[found.bucket].to_numpy()).all()
        for bucket, rows in found.groupby("bucket"):
            own = squeezed[done.bucket == bucket]
            assert own.empty or rows.moment.max() <= own.min()


@pytest.mark.parametrize("second", [86_399.95, 86_399.999_999])
def test_no_moment_is_so_late_in_its_bucket_that_labels_of_it_count(tmp_path, second):
    log = quiet()
    late = log.query(f"timestamp >= {logs.START + 5 * logs.DAY}").copy()
    late["timestamp"] = late.timestamp // logs.DAY * logs.DAY + second
    late["seen"], late["request"] = late.timestamp, late.request + " late"
    prepared = prepared_of(pd.concat([log, late]), tmp_path, history="moment")
    found, history = rows_of(prepared), prepared.history.filter(prepared.history.task == 0).to_pandas()
    for bucket, rows in found.groupby("bucket"):
        assert rows.moment.max() <= history.time[history.bucket == bucket].min()


def test_labels_of_a_bucket_keep_their_order_also_where_the_log_ends(tmp_path):
    log = quiet()
    end = pd.Timestamp(logs.START + 11 * logs.DAY + 7200, unit="s").isoformat()
    prepared = prepared_of(log, tmp_path, history="moment", end=end)
    history = prepared.history.filter(prepared.history.task == 0).to_pandas()
    assert (history.groupby("bucket").time.nunique() == 2).all()
    assert history.bucket.max() == log.timestamp.max() // logs.DAY
    assert history.time.max() < pd.Timestamp(end).value // 1000


@up_to(2)
@given(rows=st.lists(ROW, max_size=25))
def test_new_rows_say_of_exposures_what_a_prepared_log_does(rows):
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(rows).assign(hour=lambda every: every.timestamp // 3600 % 3)
        settings = settings_of(history="moment", context=[{"name": "hour"}])
        prepared = logs.prepared(log, settings, Path(folder) / "data")
        read, _ = read_rows(as_table(log), settings, "the log")
        columns = ["item", "shown", "labelled", "done", "context_hour", "time", "known"]
        records: Any = prepared.exposures
        found = later_exposures(read, settings, prepared).select(columns)
        wanted = records.select(columns).to_pyarrow()
        key = [(name, "ascending") for name in columns]
        assert found.sort_by(key).to_pylist() == wanted.sort_by(key).to_pylist()
