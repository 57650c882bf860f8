"""Times in nanoseconds pass 2^53, from where a double skips whole numbers."""

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from mgoe.data.log import open_log
from mgoe.data.times import read_time

ZONED = pa.timestamp("ns", "Asia/Shanghai")


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("ns"), ZONED], ids=str)
@pytest.mark.parametrize("beyond", [0, 1, 499, 500, 999])
def test_nanoseconds_are_truncated_to_microseconds_and_rounded_with_a_zone(beyond, kind, tmp_path):
    micros = np.random.default_rng(0).integers(1_400_000_000_000_000, 1_900_000_000_000_000, 10_000)
    pq.write_table(pa.table({"at": pa.array(micros * 1000 + beyond).cast(kind)}), tmp_path / "times.parquet")
    table = open_log(ibis.duckdb.connect(), [tmp_path / "times.parquet"])
    found = table.select(at=read_time(table["at"], "at", "auto", "log")).to_pyarrow()["at"].to_numpy()
    assert_array_equal(found, micros + (kind == ZONED and beyond >= 500))
