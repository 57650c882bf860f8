"""One thread a test process, and logs small enough for a second."""

import gc
import logging
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("COLUMNS", "200")
gc.disable()  # until all is imported, of which nothing is garbage

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from mgoe import experiments  # noqa: E402
from mgoe.config import RunSettings, make_settings  # noqa: E402
from mgoe.simulation import WorldSettings, simulate  # noqa: E402
from tests.effort import FEW, MANY, SOAK  # noqa: E402
from tests.sharing import Shared, shared_by_session  # noqa: E402
from tests.spark import no_spark, spark, spill  # noqa: E402, F401

# Machines differ in speed, so no example has a deadline. The short form draws the same examples each time, so
# that it fails with the change that breaks something; `make soak` draws others, and many more.
_any = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("test", _any, derandomize=True, max_examples=FEW)
settings.register_profile("soak", _any, max_examples=MANY)
settings.load_profile("soak" if SOAK else "test")
if not SOAK:
    os.fsync = lambda file: None  # no test cuts the power, and a flush takes milliseconds

TRAINED = {"finished", "shown", "compared"}
"""Fixtures that train."""
SPARK = {"no_spark", "spark"}
"""Fixtures of Spark."""
COSTLY = (
    "_util/test_kernels",
    "_util/test_processes",
    "batch",
    "benchmarks",
    "cli",
    "data/test_examples",
    "data/test_history",
    "data/test_point_in_time",
    "data/test_requests",
    "data/engines",
    "data/test_spark",
    "datasets",
    "experiments",
    "features/test_groups",
    "features/test_new_group",
    "features/test_parts",
    "features/test_rates",
    "graph/build",
    "graph/engines",
    "graph/test_adjusted",
    "graph/test_macro_graph",
    "graph/test_point_in_time",
    "graph/test_rates",
    "graph/test_update",
    "ranker",
    "lifecycle",
    "retrieval/test_blend",
    "retrieval/test_retrieval",
    "serving/events/test_exposures",
    "serving/events/test_log",
    "serving/http",
    "serving/online",
    "serving/scoring/test_onnx",
    "simulation",
    "test_distribution",
    "test_examples",
    "test_kafka",
    "test_notebooks",
    "test_readme",
    "test_tutorial",
    "training",
)
"""Folders and files whose tests train, prepare logs, build graphs, or start processes or services."""
REST = (
    "batch/test_on_spark",
    "benchmarks",
    "data/engines/test_spark",
    "data/test_spark",
    "graph/engines/test_spark",
    "graph/engines/test_spark_cluster",
    "graph/engines/test_spark_log",
    "serving/http/test_containers",
    "test_distribution",
    "test_notebooks",
    "test_site",
)
"""Folders and files of `make test-rest`: Spark, site, notebooks, packages, containers and benchmarks."""


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of each search for garbage, of which there are many."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make quick` leaves out and those of `make test-rest`, and put those with Spark at
    the front: one process of several takes them all, and starts Spark once."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: [fixture not in fixtures_of(item) for fixture in ("no_spark", "spark")])
    for item in items:
        place = f"{item.path.relative_to(tests).with_suffix('').as_posix()}/"
        if TRAINED & {*fixtures_of(item)} or any(place.startswith(f"{costly}/") for costly in COSTLY):
            item.add_marker("costly")
        if SPARK & {*fixtures_of(item)} or any(place.startswith(f"{rest}/") for rest in REST):
            item.add_marker("rest")


def fixtures_of(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the library logs of its progress."""
    caplog.set_level(logging.INFO, "mgoe")
    return caplog


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Makes folders that all processes of the session read."""
    return shared_by_session(tmp_path_factory)


@pytest.fixture(scope="session")
def world(shared: Shared) -> Path:
    """A simulated log in both forms, with its truth, titles and their vectors, which tell communities: 200
    users, 100 items, 12,000 exposures."""

    def make(path: Path) -> None:
        size = {"users": 200, "items": 100, "exposures": 12_000, "days": 30}
        simulate(WorldSettings(**size, user_communities=4, item_communities=5), path)
        items = pd.read_parquet(path / "truth" / "items.parquet")
        items["title"] = "Thing " + items["item_id"].astype(str)
        turn = 2 * np.pi * items["community"] / 5
        about = np.column_stack([np.cos(turn), np.sin(turn), items["bias_click"]])
        items["about"] = [*about[1:], None]
        items[["item_id", "title", "about"]].to_parquet(path / "items.parquet")

    return shared("world", make)


@pytest.fixture(scope="session")
def small(world: Path) -> RunSettings:
    """Settings of a run on it of a few seconds."""
    return make_settings(
        {
            "data": {"log": str(world / "events")},
            "tasks": ["click", "buy"],
            "split": {"cuts": [0.4, 0.6, 0.8]},
            "models": ["mgoe", "shared-bottom"],
            "training": {"epochs": 1, "batch_size": 1024},
            "evaluation": {"ranking_queries": 10},
            "graph": {"recents": 5, "rank": 8},
        }
    )


@pytest.fixture(scope="session")
def finished(small: RunSettings, shared: Shared) -> Path:
    """The folder of a finished run on the event log, with all snapshots. Read it only."""
    how = {"command": "mgoe run small.yaml", "reuse": True}
    return shared("finished", lambda path: experiments.run(small, path, **how))


@pytest.fixture(scope="session")
def exposures(world: Path) -> RunSettings:
    """Settings of a run on the exposure log: context, position, sample space, regression, side tables."""
    return make_settings(
        {
            "data": {
                "log": str(world / "exposures"),
                "context": [{"name": "device"}],
                "position": "position",
                "users": {
                    "path": str(world / "truth" / "users.parquet"),
                    "id": "user_id",
                    "features": [{"name": "community"}],
                },
                "items": {
                    "path": str(world / "items.parquet"),
                    "id": "item_id",
                    "name": "title",
                    "features": [{"name": "about", "kind": "vector"}],
                },
            },
            "tasks": [
                {"name": "click", "label": "click"},
                {"name": "buy", "label": "buy", "given": "click"},
                {"name": "stay", "label": "stay", "kind": "regression"},
            ],
            "split": {"cuts": [0.4, 0.6, 0.8]},
            "models": ["mgoe"],
            "training": {"epochs": 1, "batch_size": 1024},
            "evaluation": {"ranking_queries": 5},
            "graph": {"recents": 5, "rank": 8},
        }
    )


@pytest.fixture(scope="session")
def shown(exposures: RunSettings, shared: Shared) -> Path:
    """The folder of a finished run on the exposure log, with all snapshots. Read it only."""
    return shared("shown", lambda path: experiments.run(exposures, path, reuse=True))


@pytest.fixture(autouse=True)
def logs_restored() -> Iterator[None]:
    """A service that begins to start in this process makes the root's handler write to what the test
    captures, which ends with it."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [one for one in root.handlers if type(one.formatter).__name__ == "Json"]:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.captureWarnings(False)
