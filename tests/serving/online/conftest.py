import pytest

from tests.graph.histories import planted
from tests.serving.online.worlds import World


@pytest.fixture(scope="package")
def large(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("live"), planted(), recents=10, rank=16)
