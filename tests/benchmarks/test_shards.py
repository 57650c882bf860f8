"""The benchmark of shards keeps all rows, and two processes train from them what one does."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import shards
from tests.benchmarks.test_graph_benchmark import lines
from tests.effort import slow


@pytest.mark.parametrize("rows", [1000, 20_001])
def test_shards_hold_all_rows_in_order(tmp_path: Path, rows: int):
    pq.write_table(pa.table({"user": np.arange(rows)}), tmp_path / "all.parquet")
    shards.write_shards(tmp_path / "all.parquet", tmp_path / "train.parquet")
    files = sorted((tmp_path / "train.parquet").iterdir())
    assert len(files) == shards.SHARDS
    found = np.concatenate([pq.read_table(file)["user"].to_numpy() for file in files])
    np.testing.assert_array_equal(found, np.arange(rows))


@slow
def test_two_processes_train_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = [
        "--users",
        "1000",
        "--examples",
        "50000",
        "--steps",
        "12",
        "--batch-size",
        "512",
        "--rounds",
        "1",
    ]
    shards.main([*options, "--work", str(tmp_path)])
    found = lines(capsys.readouterr().out)
    assert all(figure["value"] >= 0 for figure in found.values())
    assert found["shards.weights"]["ratio"] < 1e-4
    assert found["shards.rows_decoded.two"]["ratio"] < 0.6
