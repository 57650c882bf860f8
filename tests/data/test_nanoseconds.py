"""Times in nanoseconds pass 2^53, from where a double skips whole numbers."""

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from mgoe.data.log import open_log
from mgoe.data.times import read_time


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.timestamp("ns"), pa.timestamp("ns", "Asia/Shanghai")], ids=str
)
@pytest.mark.parametrize("beyond", [0, 1, 500, 999])
def test_nanoseconds_are_truncated_to_microseconds_exactly(beyond, kind, tmp_path):
    micros = np.random.default_rng(0).integers(1_400_000_000_000_000, 1_900_000_000_000_000, 10_000)
    pq.write_table(pa.table({"at": pa.array(micros * 1000 + beyond).cast(kind)}), tmp_path / "times.parquet")
    table = open_log(ibis.duckdb.connect(), [tmp_path / "times.parquet"])
    assert_array_equal(
        table.select(at=read_time(table["at"], "at", "auto", "log")).to_pyarrow()["at"].to_numpy(), micros
    )
