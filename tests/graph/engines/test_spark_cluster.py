"""The engine on a standalone cluster, whose processes share nothing with the driver but a network."""

from pathlib import Path
from typing import Any

import pytest

from mgoe.config import SparkSettings
from tests.effort import slow
from tests.graph.engines.cluster import cluster
from tests.graph.engines.test_spark import a_log, check_identical
from tests.graph.engines.test_spark import pytestmark as pytestmark


@slow
@pytest.mark.usefixtures("no_spark")
def test_two_workers_of_a_cluster(tmp_path: Path):
    """What a snapshot carries is removed from the workers with the next one."""
    log, sizes = a_log(5000, 2000, 60_000, (6,)), [(6, 8), (12, 20)]
    at: dict[str, Any] = {
        "spark.executor.memory": "512m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    expected = log.build(tmp_path / "local", resolutions=sizes)
    with cluster(tmp_path / "cluster") as found:
        spark = SparkSettings(master=found.master, options=at)
        graph = log.build(tmp_path / "spark", engine="spark", spark=spark, resolutions=sizes)
        check_identical(graph, expected)
        for worker in ("worker0", "worker1"):
            carried = sorted(file.name for file in (found.folder / worker).rglob("mgoe-*.npy"))
            assert len(carried) > 3, worker
            assert len({name.rpartition("-")[0] for name in carried}) == 1, carried
