"""The engines of the benchmark of preparing prepare the same rows, those that a naive form has."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.measure import Spent

from benchmarks import engines


@pytest.fixture
def log(tmp_path: Path) -> pl.DataFrame:
    """A log of four days in the folder of the test."""
    rng, rows = np.random.default_rng(3), 400
    columns = {
        "user_id": rng.integers(0, 30, rows) * 7,
        "item_id": rng.integers(0, 20, rows) * 11,
        "day": rng.integers(100, 104, rows),
        "mask": (1 << rng.integers(0, 4, rows)).astype(np.int32),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    days = {"day": np.arange(100, 104), "snapshot": np.array([0, 0, 1, 2], np.int32)}
    pq.write_table(pa.table(days), tmp_path / "days.parquet")
    return pl.DataFrame(columns)


def done_by(engine: str, tmp_path: Path) -> pl.DataFrame:
    work = tmp_path / engine
    work.mkdir()
    assert list(engines.ENGINES[engine](work)) == list(engines.STEPS)
    return pl.read_parquet(work / "examples.parquet")


def naive(log: pl.DataFrame) -> set[tuple[int, ...]]:
    index = {}
    for node in ("user", "item"):
        first = sorted({(min(day), one) for one, day in log.group_by(f"{node}_id").agg("day").iter_rows()})
        index[node] = {one: number for number, (_, one) in enumerate(first)}
    done: dict[tuple[int, int, int], int] = {}
    for user, item, day, mask in log.iter_rows():
        key = day, index["user"][user], index["item"][item]
        done[key] = done.get(key, 0) | mask
    rows = {(*key, mask) for key, mask in done.items()}
    for day in range(100, 104):
        of_day = sorted(key for key in done if key[0] == day)
        for place, (_, user, _) in enumerate(of_day):
            for k in range(engines.DRAWS):
                number = (place * engines.DRAWS + k) * 1103515245 + day * 12345
                drawn = day, user, of_day[number % 2147483647 % len(of_day)][2]
                rows |= set() if drawn in done else {(*drawn, 0)}
    return rows


@pytest.mark.parametrize("engine", ["duckdb", "polars"])
def test_an_engine_writes_the_rows_of_the_naive_form_in_order(engine: str, log: pl.DataFrame, tmp_path: Path):
    found = done_by(engine, tmp_path)
    assert set(found.select("day", "user", "item", "mask").iter_rows()) == naive(log)
    assert found["snapshot"].to_list() == [max(0, day - 101) for day in found["day"]]
    keys = found.select("day", "user", "item").rows()
    assert keys == sorted(keys)


def test_a_mark_tells_other_rows(log: pl.DataFrame, tmp_path: Path):
    found = done_by("duckdb", tmp_path)
    mark = engines.mark(tmp_path / "duckdb")
    found.sample(fraction=1, shuffle=True, seed=1).write_parquet(tmp_path / "duckdb" / "examples.parquet")
    assert engines.mark(tmp_path / "duckdb") == mark
    found.with_columns(mask=pl.col("mask") + 1).write_parquet(tmp_path / "duckdb" / "examples.parquet")
    assert engines.mark(tmp_path / "duckdb") != mark


def test_an_engine_that_fails_is_named_and_has_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def child(*command: str | Path) -> Spent:
        if "daft" in command:
            raise RuntimeError("`python engines.py --do daft` ended with code -9: ")
        return Spent(3.0, 1.0, 1.0, '{"windows": 1, "positives": 1, "examples": 1, "cpu": 2}', 2.0)

    monkeypatch.setattr(engines, "child", child)
    monkeypatch.setattr(engines, "mark", lambda place: (1, 1))
    engines.compare(tmp_path, "1e8", ["duckdb", "daft"], rounds=2)
    printed = capsys.readouterr()
    assert printed.err == "daft failed: `python engines.py --do daft` ended with code -9:\n"
    assert "engines.cpu_seconds.duckdb.1e8" in printed.out
    assert "daft" not in printed.out
