"""Starting the Spark session that the settings ask for, classic or Connect, or explaining why it does not."""

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
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ibis

from mgoe._util.extras import install, load
from mgoe.config import SparkSettings
from mgoe.errors import SparkError

if TYPE_CHECKING:
    from ibis.backends.pyspark import Backend
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
REMOTE, REMOTE_PORT = "sc://", 15002
"""How the address of a server of Spark Connect begins, and its port unless the address names one."""
ANSWER = 5.0
"""Seconds within which a master must answer."""
WORKERS = 120.0
"""Seconds within which a worker must take a task; workers that start on demand need a while."""
STOP = 20.0
"""Seconds within which Java must end."""
JVM_SHARE = 0.5
"""Share of the memory for Spark's own process on this machine, which needs at least 1 GiB."""
PARTITIONS_PER_CORE = 4


@contextmanager
def running_backend(settings: SparkSettings, folder: Path, memory: float) -> Iterator[Backend]:
    """Yield Spark as an Ibis backend that reads tables on the cluster. A new session stops afterwards.

    Arguments and errors as for `open_session`.
    """
    session, new = open_session(settings, folder, memory)
    try:
        yield ibis.pyspark.connect(session)
    finally:
        if new:
            close_session(session)


def open_session(settings: SparkSettings, folder: Path, memory: float) -> tuple[SparkSession, bool]:
    """Return the session that runs in this process, or a new one, and whether it is new.

    Args:
        settings: The cluster.
        folder: Where Spark spills and keeps its log.
        memory: Limit of anonymous memory of this machine, in GiB.

    Raises:
        MissingExtra: PySpark, or what Spark Connect needs, is not installed.
        SparkError: There is no suitable Java, the master cannot be reached or is of another version, or no
            worker takes a task.
    """
    import_pyspark()
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    running, master = SparkSession.getActiveSession(), settings.master
    remote = master.startswith(REMOTE)
    if running is not None:
        found = _master_of(running)
        if found != (f"{REMOTE}{_addresses(master)[0]}" if remote else master):
            raise SparkError(
                "spark.master",
                f"Spark runs on {found!r} in this process, found {master!r}; set it to that, or stop Spark",
            )
        return running, False
    if remote:
        load("pyspark.sql.connect.session", "spark.master", "what `sc://` needs", install("spark"))
    else:
        check_java()
    check_master(master)
    options = _options(settings, folder, memory)
    session: SparkSession | None = None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spark.log").open("w+b") as log:  # what Spark says would disturb the progress bar
        gateway: Any = getattr(SparkContext, "_gateway", None)  # reuse the Java process of an earlier session
        try:
            if remote:
                session = SparkSession.builder.remote(master).getOrCreate()
            else:
                os.environ.setdefault("PYSPARK_PYTHON", options.get("spark.pyspark.python", sys.executable))
                conf = SparkConf().setAll(list(options.items()))
                gateway = gateway or launch_gateway(conf, {"stdout": log, "stderr": log})
                session = SparkSession(SparkContext(conf=conf, gateway=gateway))
            _await_worker(session, master)
            for key, value in options.items() if remote else ():
                session.conf.set(key, value)
        except (Py4JError, PySparkException, SparkError) as error:
            reason = _reason("\n".join([*_complaints(log), *str(error).splitlines()]))  # Java may say it
            if remote and session is not None:
                session.stop()
            _leave()
            if isinstance(error, SparkError):
                raise
            raise SparkError(
                "spark", f"Spark did not start on {master}: {reason}; see spark.options"
            ) from None
    return session, True


def close_session(session: SparkSession) -> None:
    """Stop Spark and its Java process, which would otherwise keep its memory and its first folders."""
    session.stop()
    _leave()


def import_pyspark() -> None:
    """Check that PySpark and its Ibis backend are installed.

    Raises:
        MissingExtra: They are not.
    """
    load(
        "ibis.backends.pyspark",
        "spark",
        "an engine on Spark needs PySpark, which",
        install("spark"),
    )


def check_java() -> None:
    """Check that the Java that Spark will start exists and is new enough.

    Raises:
        SparkError: There is none, or it is too old.
    """
    fix = f"install Java {OLDEST_JAVA} or newer (Debian: openjdk-17-jre-headless), or set JAVA_HOME to it"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if java is None:
        place = f"none in JAVA_HOME, {home}" if home else "none on PATH, and JAVA_HOME is not set"
        raise SparkError("spark", f"Spark runs on Java, found {place}; {fix}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SparkError(
            "spark", f"Spark runs on Java, and {java} cannot be started ({error}); {fix}"
        ) from None
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if version is None or int(version[1]) < OLDEST_JAVA:
        found = f"Java {version[1]}" if version else "one that reports no version"
        raise SparkError("spark", f"Spark needs Java {OLDEST_JAVA} or newer, found {found} in {java}; {fix}")


def check_master(master: str) -> None:
    """Check that something listens at the address of a standalone or Kubernetes master, or of Spark Connect.

    Raises:
        SparkError: Nothing answers.
    """
    reasons = []
    for address in _addresses(master):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), ANSWER):
                return
        except (OSError, ValueError) as error:
            reasons.append(str(getattr(error, "strerror", None) or error))
    if reasons:
        what = "server of Spark Connect" if master.startswith(REMOTE) else "master"
        raise SparkError(
            "spark.master",
            f"{master} cannot be reached ({reasons[-1]}); start the {what}, or correct host and port",
        )


def _addresses(master: str) -> list[str]:
    """Return host and port of every address of a master that listens at some."""
    found = re.match(r"(?:spark|k8s|sc)://(?:https?://)?([^/;]+)", master)
    port = f":{REMOTE_PORT}" if master.startswith(REMOTE) else ""
    return [one if ":" in one else one + port for one in found[1].split(",")] if found else []


def _master_of(session: SparkSession) -> str:
    """Return where a session runs."""
    from pyspark.sql.utils import is_remote

    return f"{REMOTE}{session.client._builder.endpoint}" if is_remote() else str(session.sparkContext.master)


@contextmanager
def spark_errors(fix: str) -> Iterator[None]:
    """Turn an error of Spark, or of one of its tasks, into one sentence; one of ours keeps its own."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JError, PySparkException) as error:
        reason = _reason(str(error))
        if ours := re.match(r"mgoe\.errors\.\w+: (.+?): (.+)", reason):
            raise SparkError(*ours.groups()) from None
        raise SparkError("spark", f"Spark failed: {reason}; {fix}") from None


def _reason(text: str) -> str:
    """Return the line of a stack trace that names the cause: a worker's own, else the innermost."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    python = [
        line
        for line in lines
        if re.match(r"[A-Za-z_][\w.]*(Error|Exception|NotFound): \S", line) and "org.apache" not in line
    ]
    start = re.compile("(Caused by)?: ")
    causes = [start.sub("", line, 1) for line in lines if start.match(line)]
    return ([*python[-1:], *causes[-1:], *lines[:1]] or ["no reason given"])[0][:400].rstrip(".")


def _await_worker(session: SparkSession, master: str) -> None:
    """Run a first task, and stop if no worker takes it, or if Spark there is of another version."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_first_task, session, master)
        try:
            first.result(WORKERS)
        except TooLate:
            session.stop()
            with suppress(Exception):
                first.result()
            raise SparkError(
                "spark.master",
                f"{master} answers, but no worker took a task within {WORKERS:g} s; start workers that have "
                "the memory and cores of spark.options",
            ) from None


def _first_task(session: SparkSession, master: str) -> None:
    here, there = metadata.version("pyspark"), session.version
    if there.split(".")[:2] != here.split(".")[:2]:
        raise SparkError(
            "spark.master",
            f"Spark there and PySpark here must be of one version, found {there} at {master} and {here}; "
            "install PySpark of that version, or name another server",
        )
    session.range(1).count()


def _options(settings: SparkSettings, folder: Path, memory: float) -> dict[str, str]:
    """Return our options, overridden by those of the settings. A server of Spark Connect takes those of a
    session alone.
    """
    master = settings.master
    of_session = {
        "spark.sql.legacy.parquet.nanosAsLong": "true",  # else Spark refuses the nanoseconds of pandas
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),
        "spark.sql.session.timeZone": "UTC",
    }
    if master.startswith(REMOTE):
        return of_session | settings.options
    own = {
        "spark.app.name": "mgoe",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": f"{max(1024, int(memory * JVM_SHARE * 1024))}m",
        "spark.local.dir": str(folder.resolve()),
        "spark.driver.maxResultSize": "0",  # the engine bounds what comes back at once
        "spark.files.useFetchCache": "false",  # it would keep a second copy of every file that is sent
    }
    if master.startswith("local"):
        cores = re.match(r"local\[(\d+)", master)
        n = int(cores[1]) if cores else os.cpu_count() or 1
        own |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": str(PARTITIONS_PER_CORE * n),
        }
    return own | of_session | settings.options | {"spark.master": master}


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


def _leave() -> None:
    """End the Java process of this one, and let its next session be a classic one, too."""
    from pyspark import SparkContext

    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)  # set by the first session of Spark Connect
    gateway: Any = getattr(SparkContext, "_gateway", None)
    if gateway is not None and gateway.proc is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # ends the process
        with suppress(subprocess.TimeoutExpired):
            gateway.proc.wait(STOP)
        SparkContext._gateway = SparkContext._jvm = None
