"""Why Spark does not start, in one sentence each."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pyspark
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.proto.base_pb2 import AnalyzePlanResponse
from pyspark.sql.connect.proto.base_pb2_grpc import (
    SparkConnectServiceServicer,
    add_SparkConnectServiceServicer_to_server,
)
from pyspark.sql.utils import is_remote
from typer.testing import CliRunner

from mgoe.cli import app
from mgoe.config import RunSettings, SparkSettings, dump_settings
from mgoe.data import spark as session
from mgoe.data.spark import open_session
from mgoe.errors import MissingExtra, SparkError
from tests.effort import slow
from tests.graph.engines.cluster import cluster, free_port
from tests.spark import SPARK, with_java


def refusal(
    tmp_path: Path, kind: type[Exception] = SparkError, settings: SparkSettings = SPARK, **changed: Any
) -> str:
    """What no session starts for."""
    with pytest.raises(kind) as error:
        open_session(settings.model_copy(update=changed), tmp_path / "spill", 0.5)
    assert "\n" not in str(error.value)
    return str(error.value)


@with_java
def test_another_spark_runs_in_this_process(spark: Any, tmp_path: Path):
    said = refusal(tmp_path, master="local[1]")
    assert "Spark runs on 'local[2]' in this process, found 'local[1]'; set it to that, or stop Spark" in said


@pytest.mark.usefixtures("no_spark")
@pytest.mark.parametrize("home", [False, True], ids=["on PATH", "in JAVA_HOME"])
def test_java_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: bool):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if home:
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    said = refusal(tmp_path)
    place = f"none in JAVA_HOME, {tmp_path / 'none'}" if home else "none on PATH, and JAVA_HOME is not set"
    assert said.startswith(f"spark: Spark runs on Java, found {place}; install Java 17 or newer")


@pytest.mark.usefixtures("no_spark")
@pytest.mark.parametrize(
    ("version", "found"),
    [
        ('openjdk version "11.0.2" 2019', "Java 11"),
        ('java version "1.8.0_202"', "Java 8"),
        ("what?", "one that reports no version"),
    ],
)
def test_java_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: str):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"Spark needs Java 17 or newer, found {found} in {java}; install Java" in refusal(tmp_path)


@pytest.mark.usefixtures("no_spark")
def test_pyspark_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in [name for name in sys.modules if name.startswith("ibis.backends.pyspark")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    said = refusal(tmp_path, MissingExtra)
    assert "spark: an engine on Spark needs PySpark, which cannot be imported" in said
    assert said.endswith("install it with: pip install -e '.[spark]'")


@pytest.mark.usefixtures("no_spark")
@with_java
def test_the_command_ends_with_one_sentence_and_code_2(small: RunSettings, tmp_path: Path):
    """No master answers; the log is not read before that is known."""
    master = f"spark://127.0.0.1:{free_port()}"
    graph = small.graph.model_copy(update={"engine": "spark", "snapshots": "last"})
    (tmp_path / "run.yaml").write_text(dump_settings(small.model_copy(update={"graph": graph})))
    command = [
        "graph",
        "build",
        tmp_path / "run.yaml",
        "--out",
        tmp_path / "run",
        "--set",
        f"spark.master={master}",
    ]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 2
    assert f"{master} cannot be reached" in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("no_spark")
@with_java
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "127.0.0.1:none", "nowhere.invalid:7077"])
def test_the_master_cannot_be_reached(tmp_path: Path, address: str):
    master = f"spark://{address.format(port=free_port())}"
    said = refusal(tmp_path, master=master)
    assert said.startswith(f"spark.master: {master} cannot be reached (")
    assert said.endswith("start the master, or correct host and port")


@pytest.mark.usefixtures("no_spark")
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "127.0.0.1:{port}/;user_id=7", "nowhere.invalid"])
def test_nothing_listens_where_spark_connect_should(tmp_path: Path, address: str):
    """No Java is needed here."""
    master = f"sc://{address.format(port=free_port())}"
    said = refusal(tmp_path, master=master)
    assert said.startswith(f"spark.master: {master} cannot be reached (")
    assert said.endswith("start the server of Spark Connect, or correct host and port")


class OldServer(SparkConnectServiceServicer):
    """Says its version, and nothing else."""

    def AnalyzePlan(self, request: Any, context: Any) -> Any:
        version = AnalyzePlanResponse.SparkVersion(version="3.5.1")
        return AnalyzePlanResponse(session_id=request.session_id, spark_version=version)


@pytest.mark.usefixtures("no_spark")
def test_a_server_of_another_version(tmp_path: Path):
    port, server = free_port(), grpc.server(ThreadPoolExecutor(2))
    add_SparkConnectServiceServicer_to_server(OldServer(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        said = refusal(tmp_path, master=f"sc://127.0.0.1:{port}")
    finally:
        server.stop(0)
    assert (
        f"must be of one version, found 3.5.1 at sc://127.0.0.1:{port} and {pyspark.__version__}; in" in said
    )
    assert SparkSession.getActiveSession() is None
    assert not is_remote()


@pytest.mark.usefixtures("no_spark")
@slow
@with_java
def test_no_worker_takes_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session, "WORKERS", 5.0)
    with cluster(tmp_path / "cluster", workers=0) as found:
        said = refusal(tmp_path, master=found.master, options={"spark.driver.host": "127.0.0.1"})
    assert (
        f"spark.master: {found.master} answers, but no worker took a task within 5 s; start workers" in said
    )


@pytest.mark.usefixtures("no_spark")
@with_java
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"spark.driver.memory": "plenty"}, id="of Java"),
        pytest.param({"spark.memory.fraction": "7"}, id="of Spark", marks=slow),  # once Java runs
    ],
)
def test_an_option_that_spark_refuses(tmp_path: Path, options: dict[str, str]):
    said = refusal(tmp_path, options=options)
    assert "spark: Spark did not start on local[2]: " in said
    assert said.endswith("see spark.options")
    assert "plenty" in said or "fraction" in said
