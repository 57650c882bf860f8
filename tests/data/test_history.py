"""A whole log as history: numbering its ids, and noticing that it has changed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import RunSettings
from mgoe.data import Vocabulary, arrow, read_rows, whole_log
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
