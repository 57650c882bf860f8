from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mgoe.cli import app
from mgoe.config import RunSettings, dump_settings
from tests.cli.answers import check, sections

Mgoe = Callable[..., Result]


@pytest.fixture
def mgoe() -> Mgoe:
    """Runs the command in this process. With --json its answer is checked."""

    def call(*words: object) -> Result:
        texts = [str(word) for word in words]
        result = CliRunner().invoke(app, texts)
        if result.exit_code == 0:
            check_answer(texts, result.stdout)
        return result

    return call


def check_answer(words: Sequence[str], printed: str) -> None:
    """Check that what a command printed with --json is what docs/cli.md says."""
    name = next((name for name in sections() if name.split() == list(words[: len(name.split())])), None)
    if "--json" in words and name is not None:
        check(name, printed)


@pytest.fixture(scope="session")
def config(small: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's configuration as a file."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(dump_settings(small))
    return path
