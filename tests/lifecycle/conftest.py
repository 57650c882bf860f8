import shutil
from functools import partial
from pathlib import Path

import pytest

from mgoe.lifecycle import Registry
from mgoe.serving.scoring.runtime import Runtime
from tests.cli.conftest import mgoe  # noqa: F401

by_torch = partial(Runtime, engine="torch")


@pytest.fixture(autouse=True)
def without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare versions and time requests without an export, which takes half a minute."""
    monkeypatch.setattr("mgoe.pipeline.serving_time.Runtime", by_torch)
    monkeypatch.setattr("mgoe.serving.scoring.onnx_process.export_elsewhere", lambda *_: None)


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
