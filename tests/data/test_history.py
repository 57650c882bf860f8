"""A whole log as history: numbering its ids, and noticing that it has changed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.hash_table import LeastNumbers
from mgoe.config import RunSettings
from mgoe.data import Vocabulary, arrow, history, read_rows, whole_log
from mgoe.errors import DataError
from tests.data import logs
from tests.effort import up_to


def numbered(known: list, users: list, folder: Path) -> list:
    """Return the users of a graph and of further events, in the order of their indices."""
    Vocabulary(pa.array(known)).save(folder / "known.parquet")
    Vocabulary(pa.array([0])).save(folder / "items.parquet")
    rows = pd.DataFrame({"user_id": users, "item_id": 0, "timestamp": logs.START, "behavior": "click"})
    (folder / "out").mkdir()
    before = {"user": folder / "known.parquet", "item": folder / "items.parquet"}
    settings = logs.event_settings()
    read, _ = read_rows(ibis.memtable(rows), settings, "log")
    whole_log(read, settings, folder / "out", "log", before)
    return pq.read_table(folder / "out" / "users.parquet")["id"].to_pylist()


@up_to(12)
@given(
    known=st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True),
    users=st.lists(st.from_regex(r"[0 +]?[1-3]?[0-9]", fullmatch=True), min_size=1, max_size=5, unique=True),
)
def test_every_id_of_an_update_occurs_once_or_is_refused(known, users):
    """A string matches an integer id of a graph only in the usual notation."""
    with TemporaryDirectory() as folder:
        if all(user == str(int(user)) for user in users):
            found = numbered(known, users, Path(folder))
            assert found[: len(known)] == known
            assert sorted(found) == sorted({*known, *map(int, users)})
        else:
            with pytest.raises(DataError, match=r"ids of users must be as in the graph \(int64\)"):
                numbered(known, users, Path(folder))


def test_much_text_is_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "MOST_TEXT", 8)
    assert numbered(["c", "d"], ["b", "c", "a"], tmp_path) == ["c", "d", "a", "b"]


@pytest.mark.parametrize("padded", ["00007", "00008"])
def test_a_padded_id_is_not_read_as_a_number(tmp_path, padded):
    with pytest.raises(
        DataError,
        match=rf"log: ids of users must be as in the graph \(int64\), found '{padded}', which cannot be "
        r"read as int64; fix",
    ):
        numbered([7], ["7", padded], tmp_path)


CHANGES = {
    "an exposure": ("item_id", 1, 1),
    "a 0 that becomes a missing label": ("clicked", 1, float("nan")),
    "a missing label that becomes 0": ("bought", 4, 0.0),
    "a context": ("hour", 1, 6),
    "a position": ("place", 1, 4),
    "a value": ("seconds", 1, 2.0),
    "when a label of 0 was known": ("known", 1, logs.START + 3 * logs.DAY),
}
"""Columns, rows that were shown and not done, and what is new there."""
SHOWN = logs.exposure_settings(
    tasks=[
        {"name": "click", "label": "clicked"},
        {"name": "buy", "label": "bought", "known_at": "known"},
        {"name": "stay", "label": "seconds", "kind": "regression"},
    ],
    data={"context": [{"name": "hour"}], "position": "place"},
)


def checksum(log: pd.DataFrame, settings: RunSettings) -> int:
    rows, _ = read_rows(ibis.memtable(log), settings, "log")
    with TemporaryDirectory() as folder:
        return whole_log(rows, settings, Path(folder), "log").facts["checksum"]


@pytest.fixture(scope="module")
def before() -> tuple[pd.DataFrame, int]:
    """A log and its checksum."""
    log = logs.quiet_exposures().assign(seconds=1.5, place=3, hour=5)
    log["known"] = log.timestamp
    log.loc[4, "bought"] = float("nan")
    log.loc[2, "hour"] = 6  # so that changed logs have both categories too
    return log, checksum(log, SHOWN)


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_exposure_is_noticed(what: str, before: tuple[pd.DataFrame, int]):
    """An interrupted build does not resume with another log."""
    (log, known), (column, row, new) = before, CHANGES[what]
    again = log.copy()
    again.loc[row, column] = new
    assert checksum(again, SHOWN) != known


def test_the_order_of_exposures_is_not_a_change(before: tuple[pd.DataFrame, int]):
    log, known = before
    assert checksum(log.sample(frac=1, random_state=0), SHOWN) == known


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4).map(lambda x: np.array(x, np.int64)),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4).map(lambda x: np.array(x, np.uint64)),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4).map(lambda x: np.array(x, np.int32)),
    st.lists(st.integers(-9, 9), min_size=1, max_size=4).map(lambda x: np.array(x).astype(str)),
)
"""Of users or items: integers of each width, and texts."""


@up_to(12)
@given(users=ids, items=ids, seed=st.integers(0, 99), share=st.sampled_from([0.25, 0.0]))
def test_ids_are_numbered_by_first_bucket_then_value_here_and_by_the_engine(users, items, seed, share):
    """Of a log in the order of time, backwards, or in none."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"user_id": rng.choice(users, 30), "item_id": rng.choice(items, 30)})
    rows["timestamp"] = logs.START + rng.integers(0, 3, 30) * logs.DAY
    rows = rows.assign(behavior=np.resize(["click", "buy"], 30))
    rows = rows.sort_values("timestamp", ascending=bool(seed % 2)) if seed % 3 else rows
    settings = logs.event_settings()
    read, _ = read_rows(ibis.memtable(rows), settings, "log")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "TABLE_SHARE", share)
        found = whole_log(read, settings, Path(folder), "log")
        for node in ("user", "item"):
            first = rows.groupby(f"{node}_id").timestamp.min() // logs.DAY
            expected = sorted(first.index, key=lambda one, first=first: (first[one], one))
            assert pq.read_table(Path(folder) / f"{node}s.parquet")["id"].to_pylist() == expected
        whole = users.dtype.kind != "U" and items.dtype.kind != "U"
        assert (found.batches is None) == (share == 0 or not whole)
        if found.batches:
            ours, joined = pa.Table.from_batches(found.batches(2)), found.history.to_pyarrow()
            ours = ours.select(joined.column_names)
            assert sorted(map(tuple, ours.to_pandas().to_numpy())) == sorted(
                map(tuple, joined.to_pandas().to_numpy())
            )


def test_a_table_of_ids_grows_and_keeps_the_least_number_of_each():
    rng = np.random.default_rng(0)
    given, numbers = rng.integers(-5000, 5000, 20_000), rng.integers(-(2**62), 2**62, 20_000)
    table = LeastNumbers()
    for part in range(0, 20_000, 300):
        table.add(given[part : part + 300], numbers[part : part + 300])
    least = pd.Series(numbers).groupby(given).min()
    assert dict(table.taken.T.tolist()) == least.to_dict()
