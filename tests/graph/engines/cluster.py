"""A standalone Spark cluster of one master and its workers on loopback, for as long as a test needs it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START = 60.0
"""Seconds that master and workers have to start in."""
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"


@dataclass(frozen=True)
class Cluster:
    """Where it answers.

    Attributes:
        master: Its address.
        folder: Of what workers hold: `worker0/<application>/<executor>`.
    """

    master: str
    folder: Path


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """Start a master and workers of one core each; they end with the block, however it ends."""
    processes: list[subprocess.Popen[bytes]] = []
    port, page = free_port(), free_port()
    at = Cluster(f"spark://127.0.0.1:{port}", folder)
    try:
        processes.append(_start(folder, "master", MASTER, "--port", port, "--webui-port", page))
        _await(folder / "master.log", "Bound MasterWebUI")
        for number in range(workers):
            name, folders = f"worker{number}", ["--work-dir", folder / f"worker{number}"]
            options = ["--cores", 1, "--memory", "1g", "--webui-port", free_port(), *folders, at.master]
            processes.append(_start(folder, name, WORKER, *options))
        for number in range(workers):
            _await(folder / f"worker{number}.log", "Successfully registered with master")
        yield at
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def connect_server(folder: Path) -> Iterator[str]:
    """Start a server of Spark Connect on two cores, and yield its address; it ends with the block."""
    import pyspark

    folder.mkdir(parents=True, exist_ok=True)
    port, script = free_port(), Path(pyspark.__file__).parent / "bin" / "spark-submit"
    options = {
        "ui.enabled": "false",
        "driver.host": "127.0.0.1",
        "driver.bindAddress": "127.0.0.1",
        "connect.grpc.binding.address": "127.0.0.1",
        "connect.grpc.binding.port": port,
        "local.dir": folder,
    }
    words = ["bash", script, "--class", SERVER, "--master", "local[2]", "--driver-memory", "1g"]
    for name, value in options.items():
        words += ["--conf", f"spark.{name}={value}"]
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, words), "spark-internal"], stdout=log, stderr=log, env=os.environ | own
        )
    try:
        _await(folder / "server.log", "Spark Connect server started at")
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _start(folder: Path, name: str, kind: str, *options: object) -> subprocess.Popen[bytes]:
    import pyspark

    folder.mkdir(parents=True, exist_ok=True)
    script = Path(pyspark.__file__).parent / "bin" / "spark-class"  # which the process of Java replaces
    command = ["bash", script, kind, "--host", "127.0.0.1", *options]
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=os.environ | own)


def _await(log: Path, line: str) -> None:
    until = time.monotonic() + START
    while line not in log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise TimeoutError(f"{log.name} never said {line!r}: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
