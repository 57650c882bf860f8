"""The benchmark of Spark runs on a log of twenty thousand events and prints what it says."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import spark
from tests.benchmarks.test_graph_benchmark import lines
from tests.effort import slow
from tests.spark import with_java


@with_java
@slow
def test_every_figure_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spark.main(["--events", "2e4", "--work", str(tmp_path)])
    found = lines(capsys.readouterr().out)
    stages = {"ids", "pairs", "nodes", "sketch", "vectors", "clusters", "1st_order", "2nd_order", "checksums"}
    compared = {
        f"graph.spark.{figure}.2e4"
        for figure in ("seconds", "cpu_seconds", "peak_gib", *(f"seconds.{stage}" for stage in stages))
    }
    assert set(found) == compared | {"graph.spark.python_gib.2e4", "graph.spark.jvm_gib.2e4"}
    assert all(figure["value"] > 0 for figure in found.values())
    assert all(found[name]["against"] is not None for name in compared)
    together = found["graph.spark.peak_gib.2e4"]["value"]
    for kind in ("python", "jvm"):
        assert 0.05 < found[f"graph.spark.{kind}_gib.2e4"]["value"] < together * 1.1
    assert list(tmp_path.iterdir()) == []


@with_java
@slow
def test_graphs_of_all_snapshots_have_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spark.main(["--all", "--events", "2e4", "--exposures", "2e4", "--work", str(tmp_path)])
    found = lines(capsys.readouterr().out)
    for form in ("events", "exposures"):
        assert found[f"graph.spark.seconds.all.{form}.2e4"]["ratio"] > 0
    assert "graph.spark.seconds.rates.all.exposures.2e4" in found
    assert list(tmp_path.iterdir()) == []


@with_java
@slow
def test_preparing_has_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spark.main(["--prepare", "--events", "2e4", "--exposures", "2e4", "--work", str(tmp_path)])
    found = lines(capsys.readouterr().out)
    figures = ("seconds", "cpu_seconds", "peak_gib", "python_gib", "jvm_gib")
    forms = ("events", "exposures")
    assert set(found) == {f"prepare.spark.{figure}.{form}.2e4" for figure in figures for form in forms}
    assert all(figure["value"] > 0 for figure in found.values())
    assert list(tmp_path.iterdir()) == []


def test_memory_of_a_child_counts_as_its_kind():
    holds = "import time; a = bytearray(300 << 20); time.sleep(.8)"
    with spark.peaks() as peak:
        subprocess.run([sys.executable, "-c", holds], check=True)
        time.sleep(0.2)
    assert 300 / 1024 <= peak["python"] < 400 / 1024
    assert peak["jvm"] == 0
