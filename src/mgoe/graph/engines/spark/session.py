"""Starting the Spark session that the settings ask for, or explaining why it does not start."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ibis

from mgoe._util.extras import load
from mgoe.config import GraphSettings
from mgoe.errors import GraphError

if TYPE_CHECKING:
    from ibis.backends.pyspark import Backend
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
CONNECT = 5.0
"""Seconds within which a master must answer."""
WORKERS = 120.0
"""Seconds within which a worker must take a task; workers that start on demand need a while."""
STOP = 20.0
"""Seconds within which Java must end."""
JVM_SHARE = 0.5
"""Share of the memory for Spark's own process on this machine, which needs at least 1 GiB."""
PARTITIONS_PER_CORE = 4


@contextmanager
def running_backend(settings: GraphSettings, folder: Path, memory: float) -> Iterator[Backend]:
    """Yield Spark as an Ibis backend that reads tables on the cluster. A new session stops afterwards.

    Arguments and errors as for `open_session`.
    """
    session, new = open_session(settings, folder, memory)
    try:
        yield ibis.pyspark.connect(session)
    finally:
        if new:
            close_session(session)


def open_session(settings: GraphSettings, folder: Path, memory: float) -> tuple[SparkSession, bool]:
    """Return the session that runs in this process, or a new one, and whether it is new.

    Args:
        settings: Of the graph.
        folder: Where Spark spills and keeps its log.
        memory: Limit of anonymous memory of this machine, in GiB.

    Raises:
        MissingExtra: PySpark is not installed.
        GraphError: There is no suitable Java, the master cannot be reached, or no worker takes a task.
    """
    import_pyspark()
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    running, master = SparkSession.getActiveSession(), settings.spark.master
    if running is not None:
        if running.sparkContext.master != master:
            raise GraphError(
                "graph.spark.master",
                f"Spark runs on {running.sparkContext.master!r} in this process, found {master!r}; set it to "
                "that, or stop Spark",
            )
        return running, False
    check_java()
    check_master(master)
    options = _options(settings, folder, memory)
    os.environ.setdefault("PYSPARK_PYTHON", options.get("spark.pyspark.python", sys.executable))
    conf = SparkConf().setAll(list(options.items()))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spark.log").open("w+b") as log:  # what Spark says would disturb the progress bar
        gateway: Any = getattr(SparkContext, "_gateway", None)  # reuse the Java process of an earlier session
        try:
            gateway = gateway or launch_gateway(conf, {"stdout": log, "stderr": log})
            session = SparkSession(SparkContext(conf=conf, gateway=gateway))
            _await_worker(session, master)
        except (Py4JError, PySparkException) as error:
            reason = _reason("\n".join([*_complaints(log), *str(error).splitlines()]))
            _stop_java()
            raise GraphError(
                "graph.spark", f"Spark did not start on {master}: {reason}; see graph.spark.options"
            ) from None
    return session, True


def close_session(session: SparkSession) -> None:
    """Stop Spark and its Java process, which would otherwise keep its memory and its first folders."""
    session.stop()
    _stop_java()


def import_pyspark() -> None:
    """Check that PySpark and its Ibis backend are installed.

    Raises:
        MissingExtra: They are not.
    """
    load("ibis.backends.pyspark", "graph.engine", "`spark` needs PySpark, which", "pip install 'mgoe[spark]'")


def check_java() -> None:
    """Check that the Java that Spark will start exists and is new enough.

    Raises:
        GraphError: There is none, or it is too old.
    """
    fix = f"install Java {OLDEST_JAVA} or newer (Debian: openjdk-17-jre-headless), or set JAVA_HOME to it"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if java is None:
        place = f"none in JAVA_HOME, {home}" if home else "none on PATH, and JAVA_HOME is not set"
        raise GraphError("graph.engine", f"Spark runs on Java, found {place}; {fix}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GraphError(
            "graph.engine", f"Spark runs on Java, and {java} cannot be started ({error}); {fix}"
        ) from None
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if version is None or int(version[1]) < OLDEST_JAVA:
        found = f"Java {version[1]}" if version else "one that reports no version"
        raise GraphError(
            "graph.engine", f"Spark needs Java {OLDEST_JAVA} or newer, found {found} in {java}; {fix}"
        )


def check_master(master: str) -> None:
    """Check that something listens at the address of a standalone or Kubernetes master.

    Raises:
        GraphError: Nothing answers.
    """
    found = re.match(r"(?:spark|k8s)://(?:https?://)?(.+)", master)
    if not found:
        return
    reasons = []
    for address in found[1].rstrip("/").split(","):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT):
                return
        except (OSError, ValueError) as error:
            reasons.append(str(getattr(error, "strerror", None) or error))
    raise GraphError(
        "graph.spark.master",
        f"{master} cannot be reached ({reasons[-1]}); start the master, or correct host and port",
    )


@contextmanager
def spark_errors(fix: str) -> Iterator[None]:
    """Turn an error of Spark, or of one of its tasks, into one sentence."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException) as error:
        raise GraphError("graph.engine", f"Spark failed: {_reason(str(error))}; {fix}") from None


def _reason(text: str) -> str:
    """Return the line of a stack trace that names the cause: a worker's own, else the innermost."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    python = [
        line
        for line in lines
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception|NotFound): \S", line) and "org.apache" not in line
    ]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return ([*python[-1:], *causes[-1:], *lines[:1]] or ["no reason given"])[0][:400].rstrip(".")


def _await_worker(session: SparkSession, master: str) -> None:
    """Run a first task, and stop if no worker takes it."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(session.range(1).count)
        try:
            first.result(WORKERS)
        except TooLate:
            close_session(session)
            with suppress(Exception):
                first.result()
            raise GraphError(
                "graph.spark.master",
                f"{master} answers, but no worker took a task within {WORKERS:g} s; start workers that have "
                "the memory and cores of graph.spark.options",
            ) from None


def _options(settings: GraphSettings, folder: Path, memory: float) -> dict[str, str]:
    """Return the options of a build, overridden by those of the settings."""
    master = settings.spark.master
    own = {
        "spark.app.name": "mgoe",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": f"{max(1024, int(memory * JVM_SHARE * 1024))}m",
        "spark.local.dir": str(folder.resolve()),
        "spark.driver.maxResultSize": "0",  # the engine bounds what comes back at once
        "spark.files.useFetchCache": "false",  # it would keep a second copy of every file that is sent
        "spark.sql.legacy.parquet.nanosAsLong": "true",  # else Spark refuses the nanoseconds of pandas
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),
        "spark.sql.session.timeZone": "UTC",
    }
    if master.startswith("local"):
        cores = re.match(r"local\[(\d+)", master)
        n = int(cores[1]) if cores else os.cpu_count() or 1
        own |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": str(PARTITIONS_PER_CORE * n),
        }
    return own | settings.spark.options | {"spark.master": master}


def _complaints(log: IO[bytes]) -> list[str]:
    """Return the last line of Spark's log that explains why it does not start, if there is one."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    after = ("Error: Could not create the Java", "Error: A fatal exception")  # which follow the reason
    return [
        line
        for line in lines
        if re.search("error|exception|invalid", line, re.IGNORECASE) and not line.startswith(after)
    ][-1:]


def _stop_java() -> None:
    from pyspark import SparkContext

    gateway: Any = getattr(SparkContext, "_gateway", None)
    if gateway is not None and gateway.proc is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # ends the process
        with suppress(subprocess.TimeoutExpired):
            gateway.proc.wait(STOP)
        SparkContext._gateway = SparkContext._jvm = None
