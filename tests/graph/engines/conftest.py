"""Spark on two cores, which the tests of a process share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pytest

from mgoe.config import GraphSettings
from mgoe.graph.engines.spark.session import close_session, open_session
from tests.graph.engines.test_spark import LOCAL


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Spark spills; it ends with the tests of this package."""
    yield tmp_path_factory.mktemp("spark")
    stop()


@pytest.fixture
def spark(place: Path) -> Any:
    """Spark as an Ibis backend, started by the first test that needs it; builds use what runs."""
    return ibis.pyspark.connect(open_session(GraphSettings(**LOCAL), place, 0.5)[0])


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
