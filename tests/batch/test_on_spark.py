"""Pairs scored and lists made on Spark are those of one process, to the bit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mgoe.batch import lists, on_spark, pairs
from mgoe.cli import app
from tests.effort import SOAK, slow
from tests.graph.engines.cluster import cluster, connect_server
from tests.spark import SPARK, with_java

pytestmark = with_java
ROWS = 9_000


@pytest.fixture(scope="module")
def tables(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pairs in one file, and in three of unequal sizes with small row groups, whose names sort
    otherwise as text than as paths; some users are unknown."""
    log = pd.read_parquet(world / "exposures")[["user_id", "item_id"]]
    pairs = log.sample(ROWS, replace=True, random_state=0)
    pairs.loc[::50, "user_id"] = 10**9
    rows, folder = pa.Table.from_pandas(pairs, preserve_index=False), tmp_path_factory.mktemp("pairs")
    for name in ("one", "several/a", "several"):
        (folder / name).mkdir(exist_ok=True, parents=True)
    pq.write_table(rows, folder / "one" / "pairs.parquet")
    for name, start, stop in (("a/z", 0, 4_100), ("a b", 4_100, 4_107), ("c", 4_107, ROWS)):
        pq.write_table(rows[start:stop], folder / "several" / f"{name}.parquet", row_group_size=700)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts and tasks of few rows; whole blocks of a model."""
    monkeypatch.setattr(pairs, "PAIRS_PER_PART", 2048)
    monkeypatch.setattr(lists, "USERS_PER_PART", 50)
    monkeypatch.setattr(on_spark, "PARTS_PER_TASK", 2)


def mgoe(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def written(out: Path) -> pa.Table:
    """What is in a folder, in the order of its files."""
    return pa.concat_tables(pq.read_table(file) for file in sorted(out.glob("part-*")))


def check_scores(finished: Path, tables: Path, tmp_path: Path, master: str, kinds: tuple[str, ...]) -> None:
    command = "predict", finished / "bundle"
    assert mgoe(*command, tables / "one", "--out", tmp_path / "one.parquet").exit_code == 0
    expected = pq.read_table(tmp_path / "one.parquet")
    for kind in kinds:
        out = tmp_path / kind
        out.mkdir()
        pq.write_table(expected[:3], out / "part-of-yesterday.parquet")
        there = "--out", out, "--overwrite"
        done = mgoe(*command, tables / kind, *there, "--engine", "spark", "--master", master)
        assert done.exit_code == 0, done.output
        assert f"{ROWS:,} pairs scored" in " ".join(done.output.split())
        assert len(list(out.glob("part-*"))) > 1
        assert written(out).equals(expected), kind
        assert (out / "_SUCCESS").exists()


def check_lists(finished: Path, tables: Path, tmp_path: Path, master: str) -> None:
    users = pq.read_table(tables / "one", columns=["user_id"])
    (tmp_path / "users").mkdir()
    for number in range(3):
        pq.write_table(users[number * 60 : number * 60 + 60], tmp_path / "users" / f"{number}.parquet")
    command = "recommend", finished / "bundle", "--users", tmp_path / "users", "-k", 5, "--exclude-known"
    assert mgoe(*command, "--out", tmp_path / "lists.parquet").exit_code == 0
    done = mgoe(*command, "--out", tmp_path / "lists", "--engine", "spark", "--master", master)
    assert done.exit_code == 0, done.output
    assert written(tmp_path / "lists").equals(pq.read_table(tmp_path / "lists.parquet"))


def test_scores_and_lists_are_those_of_one_process(spark: Any, finished: Path, tables: Path, tmp_path: Path):
    check_scores(finished, tables, tmp_path, SPARK.master, ("several", *["one"] * SOAK))
    check_lists(finished, tables, tmp_path, SPARK.master)


@slow
@pytest.mark.usefixtures("no_spark")
def test_a_server_of_spark_connect(finished: Path, tables: Path, tmp_path: Path):
    with connect_server(tmp_path / "server") as master:
        check_scores(finished, tables, tmp_path, master, ("several", "one"))
        check_lists(finished, tables, tmp_path, master)


@slow
@pytest.mark.usefixtures("no_spark")
def test_two_workers_of_a_cluster_get_the_bundle_once(
    finished: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    with cluster(tmp_path / "cluster") as found:
        check_scores(finished, tables, tmp_path, found.master, ("several",))
        for worker in ("worker0", "worker1"):
            assert len(list((found.folder / worker).rglob("bundle.json"))) == 1, worker


@slow
def test_a_full_disk_is_one_sentence_and_the_next_run_is_whole(finished: Path, tables: Path, tmp_path: Path):
    out = tmp_path / "small" / "scores"
    out.parent.mkdir()
    words = "predict", finished / "bundle", tables / "one", "--out"
    spark = sys.executable, "-m", "mgoe", *words, out, "--engine", "spark", "--master", SPARK.master
    mount = f'mount -t tmpfs -o size=64k none "{out.parent}" && exec "$@"'  # seen by the command alone
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", *map(str, spark)], capture_output=True, text=True
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("a process may not mount a file system here")
    assert done.returncode == 2
    assert "mgoe: spark: Spark failed: " in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert mgoe(*words, tmp_path / "one.parquet").exit_code == 0
    assert mgoe(*spark[3:]).exit_code == 0
    assert written(out).equals(pq.read_table(tmp_path / "one.parquet"))


def test_what_is_wrong_ends_in_one_sentence(
    spark: Any, finished: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(pairs: Path, *more: object) -> str:
        words = "predict", finished / "bundle", pairs, "--out", tmp_path / "out", "--engine", "spark"
        ended = mgoe(*words, "--master", SPARK.master, *more)
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1), ended.output
        return ended.stderr

    pq.write_table(pa.table({"usr_id": [1], "item_id": [1]}), tmp_path / "bad.parquet")
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n1,1\n")
    assert "bad.parquet: needs a column 'user_id'" in refused(tmp_path / "bad.parquet")
    assert "of another format" in refused(tmp_path / "pairs.csv")
    assert "takes --out and no --jobs, found --jobs 2" in refused(tables / "one", "--jobs", 2)
    if SOAK:  # workers start
        with monkeypatch.context() as patch:
            patch.setattr(on_spark, "__version__", "0.0.9")
            said = refused(tables / "one")
        assert "must have mgoe 0.0.9, which sends the bundle, found 0" in said
        assert said.startswith("mgoe: worker ")
    (tmp_path / "out" / "mine.txt").parent.mkdir(exist_ok=True)
    (tmp_path / "out" / "mine.txt").touch()
    for more in ((), ("--overwrite",)):
        assert "out: is there already; name another folder" in refused(tables / "one", *more)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("words", [("--overwrite",), ("--master", "local[2]")])
def test_options_of_spark_need_it(finished: Path, tables: Path, words: tuple[str, ...]):
    ended = mgoe("predict", finished / "bundle", tables / "one", *words)
    assert ended.exit_code == 2
    assert f"{words[0]}: is for --engine spark" in ended.stderr
