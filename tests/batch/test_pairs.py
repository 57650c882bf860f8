"""Pairs of a file, scored and measured by any number of processes."""

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import mgoe as library
from mgoe._util.processes import in_order
from mgoe.batch import measure_pairs, parts, score_pairs
from mgoe.batch import pairs as pairs_module
from mgoe.bundle import Bundle
from mgoe.bundle.known_outcomes import KnownOutcomes
from mgoe.cli import app
from mgoe.errors import ConfigError
from tests._util import jobs
from tests.effort import SOAK, slow


@pytest.fixture(scope="module")
def pairs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 9,000 pairs, most of which the graph holds, with labels; some users are unknown."""
    log = pd.read_parquet(world / "exposures").query("click == 1")[["user_id", "item_id", "click", "buy"]]
    found = log.sample(9_000, replace=True, random_state=0).reset_index(drop=True)
    found.loc[::50, "user_id"] = 10**9
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    found.to_parquet(path)
    return path


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(1, 9))
def test_parts_have_equal_sizes_and_all_rows_in_order(sizes: list[int], rows: int):
    whole, ends = pa.table({"row": np.arange(sum(sizes))}), np.cumsum([0, *sizes])
    blocks = [whole[:0], *(whole[at : at + size] for at, size in zip(ends, sizes, strict=False))]
    first, *rest = parts.cut(iter(blocks), rows)
    assert len(first) == 0
    assert all(len(part) == rows for part in rest[:-1])
    assert all(0 < len(part) <= rows for part in rest)
    assert all(part["row"].num_chunks == 1 for part in rest)
    assert pa.concat_tables([first, *rest]).equals(whole)


def test_any_number_of_processes_gives_the_same_scores(
    finished: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
):
    progress, found = [], {}
    for processes, rows in (
        (1, 65_536),
        (1, 2048),
        (2, 2048),
        *[(3, 4096)][: int(SOAK)],
    ):
        monkeypatch.setattr(pairs_module, "PAIRS_PER_PART", rows)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tables = list(
                score_pairs(
                    library.load(finished / "bundle"), pairs, processes, lambda *one: progress.append(one)
                )
            )
        assert [one.category for one in said].count(KnownOutcomes) == 1, processes
        assert len(tables[0]) == 0
        assert progress[-1] == (9_000, 9_000)
        found[processes, rows] = pa.concat_tables(tables)
    expected = found[1, 65_536]
    for how, table in found.items():
        assert table.equals(expected), how
    asked = pd.read_parquet(pairs)
    assert expected["user_id"].to_pylist() == asked["user_id"].tolist()
    assert expected["item_id"].to_pylist() == asked["item_id"].tolist()


def test_measures_are_those_of_one_process(finished: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pairs_module, "PAIRS_PER_PART", 2048)
    monkeypatch.setattr(
        parts, "in_order", lambda work, args, each, jobs: (work(*args, part) for part in each)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KnownOutcomes)
        one, two = (measure_pairs(Bundle.open(finished / "bundle"), pairs, number) for number in (1, 2))
    pd.testing.assert_frame_equal(pd.DataFrame(two), pd.DataFrame(one), check_exact=True)


@pytest.fixture
def broken_at_the_second_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a pool dies while its second one is started: Python 3.11 then starts that one with
    a pipe that the pool has closed."""
    spawn = ProcessPoolExecutor._spawn_process

    def spawn_after(pool: ProcessPoolExecutor) -> None:
        for first in [*pool._processes.values()]:
            first.kill()
            end = time.monotonic() + 60
            while not pool._call_queue._reader.closed:
                assert time.monotonic() < end
                time.sleep(0.001)
        spawn(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", spawn_after)


@pytest.mark.parametrize(
    ("work", "said"), [(jobs.die_on, "a process of 2 was killed"), (jobs.refuse_part, "is no log of pairs")]
)
def test_a_process_that_fails_leaves_no_file(
    finished: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: object, said: str
):
    monkeypatch.setattr(parts, "make_here", work)
    words = ["predict", finished / "bundle", pairs, "--out", tmp_path / "scores.csv", "--jobs", 2]
    ended = CliRunner().invoke(app, list(map(str, words)))
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert said in ended.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("broken_at_the_second_start")
def test_a_process_that_dies_while_the_next_one_starts_is_named(
    finished: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "make_here", jobs.die_on)
    words = ["predict", finished / "bundle", pairs, "--out", tmp_path / "scores.csv", "--jobs", 2]
    ended = CliRunner().invoke(app, list(map(str, words)))
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
    assert "a process of 2 was killed or cannot start" in ended.stderr
    assert not any(tmp_path.iterdir())


def test_a_disk_error_of_a_part_is_not_taken_for_a_process():
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("the disk cannot be read")

    with pytest.raises(OSError, match="the disk cannot be read"):
        list(in_order(jobs.square_late, (0,), numbers(), 2))


def test_a_bad_row_is_named_by_its_line_in_the_whole_file(
    finished: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pairs_module, "PAIRS_PER_PART", 2048)
    lines = ["user_id,item_id", *["7,8"] * 30_000]
    lines[29_000] = "7,8,9"
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    for number in (1, 2):
        words = ["predict", finished / "bundle", tmp_path / "pairs.csv", "--out", tmp_path / "scores.csv"]
        ended = CliRunner().invoke(app, [*map(str, words), "--jobs", str(number)])
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
        assert "in line 29001" in ended.stderr
    assert not (tmp_path / "scores.csv").exists()


def test_live_events_are_in_one_process(finished: Path, pairs: Path):
    class Live(Bundle):
        pass

    with pytest.raises(ConfigError, match="without live events, found 2"):
        next(score_pairs(Live.open(finished / "bundle"), pairs, jobs=2))


@slow
@pytest.mark.parametrize("delay", np.random.default_rng(0).uniform(1, 9, 20))
def test_scoring_killed_at_any_moment_leaves_what_was_there(
    finished: Path, pairs: Path, tmp_path: Path, delay: float
):
    out = tmp_path / "scores.parquet"
    one = [sys.executable, "-m", "mgoe", "predict", str(finished / "bundle"), str(pairs), "--out", str(out)]
    many, silent = [*one, "--jobs", "2"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(one, check=True, **silent)
    before = out.read_bytes()
    with subprocess.Popen(many, **silent) as process:
        time.sleep(delay)
        process.kill()
    assert out.read_bytes() == before
    subprocess.run(many, check=True, **silent)
    assert out.read_bytes() == before
    assert [*tmp_path.iterdir()] == [out]
