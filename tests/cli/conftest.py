from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mgoe.cli import app
from mgoe.config import RunSettings, dump_settings

Mgoe = Callable[..., Result]


@pytest.fixture
def mgoe() -> Mgoe:
    """Runs the command in this process."""

    def call(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return call


@pytest.fixture(scope="session")
def config(small: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's configuration as a file."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(dump_settings(small))
    return path
