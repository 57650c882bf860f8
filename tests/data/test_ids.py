"""What an id may be held as, and that it says the same whichever way."""

from decimal import Decimal

import ibis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data import Vocabulary, prepare, to_arrow
from mgoe.data.columns import read_id
from mgoe.errors import DataError
from tests.data import logs


@given(number=st.integers(-(10**17), 10**17), scale=st.integers(0, 10), precision=st.sampled_from([28, 38]))
def test_a_whole_decimal_is_read_as_its_number(number, scale, precision):
    column = ibis.memtable(
        pa.table({"id": pa.array([Decimal(number), None], pa.decimal128(precision, scale))})
    )["id"]
    found = read_id(column, "id", "log")[0].to_pyarrow()
    assert found.type == (pa.int64() if precision - scale <= 18 else pa.string())
    assert found.cast(pa.string()).to_pylist() == [str(number), None]


@given(ids=st.lists(st.uuids(), min_size=1, unique=True))
def test_a_uuid_is_read_as_text(ids):
    """In a list, in columns of several libraries, and with nulls."""
    names = Vocabulary(pa.array(map(str, ids)))
    held = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.bytes for one in ids], pa.binary(16)))
    for asked in (
        ids,
        np.array(ids, object),
        pd.Series(ids),
        held,
        pa.chunked_array([held, held[:0]]),
        names.ids(np.arange(len(ids))),
    ):
        assert names.indices(asked).tolist() == list(range(len(ids)))
    assert names.indices([None, ids[-1]]).tolist() == [-1, len(ids) - 1]
    assert to_arrow(ids[0]).to_pylist() == [str(ids[0])]


@given(ids=st.lists(st.uuids(), min_size=1, unique=True), first=st.integers(0, 3), gap=st.booleans())
def test_a_uuid_is_read_as_text_from_every_type(ids, first, gap):
    """Polars reads UUIDs of a Parquet file as 16 bytes."""
    names = Vocabulary(pa.array(map(str, ids)))
    asked = [*ids, *([None] if gap else []), *ids][first:]
    raw = [one and one.bytes for one in asked]
    held = pa.array(raw, pa.binary(16))
    arrow = pa.ExtensionArray.from_storage(pa.uuid(), held)
    ways = [
        arrow,
        held.dictionary_encode(),
        pl.Series(raw, dtype=pl.Binary),
        pd.Series(asked).astype("category"),
    ]
    ways += [
        pa.array(raw, kind) for kind in (pa.binary(16), pa.binary(), pa.large_binary(), pa.binary_view())
    ]
    ways += [
        pa.array([None, *raw], pa.binary())[1:],
        pa.chunked_array([held, held[:0]]),
        pd.Series(raw),
        raw,
        [one and str(one) for one in asked],
    ]
    for way in ways:
        assert names.indices(way).tolist() == [-1 if one is None else ids.index(one) for one in asked]


@given(raw=st.lists(st.binary(max_size=20), min_size=1))
def test_bytes_are_read_as_text_or_refused(raw):
    names = Vocabulary(pa.array(["a"]))
    if all(len(one) == 16 for one in raw):
        return
    try:
        expected = [one.decode() for one in raw]
    except UnicodeDecodeError:
        with pytest.raises(
            DataError,
            match=r"users: bytes must be UTF-8, or the 16 bytes of a UUID in every row, found bytes that "
            r"are not UTF-8",
        ):
            to_arrow(raw, "users")
        return
    assert to_arrow(raw).to_pylist() == expected
    assert names.indices(raw).tolist() == [0 if one == "a" else -1 for one in expected]


@pytest.mark.parametrize(
    "kind", [pa.decimal128(38, 10), pa.decimal128(12, 2), pa.decimal128(38, 0), pa.float64(), pa.string()]
)
def test_an_id_is_the_same_in_a_log_its_side_table_and_a_query(kind, tmp_path):
    """Whatever the type in the log; the side table holds integers."""
    log = logs.quiet_events()
    table = pa.Table.from_pandas(log, preserve_index=False)
    ids = pa.array(log["item_id"])
    held = ids.cast(pa.decimal128(20)).cast(kind) if pa.types.is_decimal(kind) else ids.cast(kind)
    table = table.set_column(1, "item_id", held)
    pq.write_table(pa.table({"item": [0, 1], "price": [1.0, 2.0]}), tmp_path / "items.parquet")
    side = {
        "path": str(tmp_path / "items.parquet"),
        "id": "item",
        "features": [{"name": "price", "kind": "numeric"}],
    }
    data = prepare(logs.event_settings(data={"items": side}), tmp_path / "out", ibis.memtable(table))
    assert data.summary["side"]["items"]["in_log"] == 2
    for asked in (
        [0, 1],
        [0.0, 1.0],
        ["0", "1"],
        [Decimal("0.00"), Decimal("1.00")],
        np.array([0, 1], np.uint8),
    ):
        assert sorted(data.items.indices(asked).tolist()) == [0, 1], asked
