import shutil
from pathlib import Path

import pytest

from mgoe.release import Registry


@pytest.fixture
def registry(finished: Path, tmp_path: Path) -> Registry:
    """A registry whose current version is the bundle of the small run."""
    made = Registry(tmp_path / "bundles")
    made.promote(made.add(finished / "bundle"))
    return made


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of that bundle that a test may change."""
    return Path(shutil.copytree(finished / "bundle", tmp_path / "own"))
