"""Spark on two cores, which the tests of a process share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pytest

from mgoe.config import SparkSettings
from mgoe.data.spark import close_session, open_session
from tests.effort import SOAK

with_java = pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ,
    reason="Spark runs on Java, and there is none",
)
QUICK = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
}
"""Java compiles once and lightly, and tasks are few, since nothing is large in the short form."""
SPARK = SparkSettings(master="local[2]", options={} if SOAK else QUICK)


@pytest.fixture(scope="session")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Spark spills; it ends with the tests."""
    yield tmp_path_factory.mktemp("spark")
    stop()


@pytest.fixture
def spark(spill: Path) -> Any:
    """Spark as an Ibis backend, started by the first test that needs it; builds use what runs."""
    return ibis.pyspark.connect(open_session(SPARK, spill, 0.5)[0])


@pytest.fixture
def no_spark() -> None:
    """Why Spark does not start is told only where none runs."""
    stop()


def stop() -> None:
    """End Spark if it runs in this process."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        return
    running = SparkSession.getActiveSession()
    if running is not None:
        close_session(running)
