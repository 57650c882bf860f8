from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mgoe
from tests.sharing import Shared

if TYPE_CHECKING:
    from tests.serving.served import Served


@pytest.fixture(scope="session")
def bundle(finished: Path) -> mgoe.Bundle:
    """A bundle of the event log, with tasks click and buy. Tests only read it."""
    return mgoe.load(finished / "bundle")


@pytest.fixture(scope="session")
def graphs(bundle: mgoe.Bundle, shared: Shared) -> Path:
    """A cache with the bundle's graphs, which a process of their own exported. Tests only read it."""
    from mgoe.serving.scoring.scorer import Scorer

    def make(path: Path) -> None:
        path.mkdir()
        Scorer(bundle, cache=path).await_graphs()

    return shared("serving graphs", make)


@pytest.fixture(scope="module")
def service(finished: Path, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of that bundle, as `mgoe serve` starts it again. Tests add no events to it."""
    from tests.serving.served import Runtime, served  # skips what needs it where a package is missing

    state = shutil.copytree(graphs, tmp_path_factory.mktemp("state"), dirs_exist_ok=True)
    with served(finished / "bundle", Path(state), runtime=Runtime()) as found:
        yield found


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(finished / "bundle", tmp_path / "own"))
