"""Checksums of rows, which every engine has to agree on."""

from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.tables import checksum


@pytest.fixture(scope="module")
def engine() -> Any:
    return ibis.duckdb.connect()


@given(numbers=st.lists(st.integers(0, (1 << 63) - 1), min_size=1))
def test_a_checksum_is_the_sum_as_far_as_63_bits_hold_it(engine: Any, numbers: list[int]):
    """A few large numbers for the billions of small ones of a long log."""
    engine.con.register("rows", pa.table({"number": pa.array(numbers, pa.int64())}))
    rows = engine.table("rows")
    found = rows.aggregate(found=checksum(rows.number)).to_pyarrow()["found"][0].as_py()
    assert found == sum(numbers) % (1 << 63)
