from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mgoe

if TYPE_CHECKING:
    from tests.serving.served import Served


@pytest.fixture(scope="session")
def bundle(finished: Path) -> mgoe.Bundle:
    """A bundle of the event log, with tasks click and buy. Tests only read it."""
    return mgoe.load(finished / "bundle")


@pytest.fixture(scope="module")
def service(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of that bundle, as `mgoe serve` starts it. Tests add no events to it."""
    from tests.serving.served import Runtime, served  # skips what needs it where a package is missing

    with served(finished / "bundle", tmp_path_factory.mktemp("state"), runtime=Runtime()) as found:
        yield found


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(finished / "bundle", tmp_path / "own"))
