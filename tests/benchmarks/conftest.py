"""What benchmarks do in other processes, done in this one, which has imported the library already."""

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from benchmarks.measure import Spent
from typer.testing import CliRunner

from benchmarks import prepared, world
from mgoe.cli import app
from tests.effort import SOAK


def here(*command: str | Path) -> Spent:
    """As `benchmarks.measure.child`, in this process, whose memory it does not tell apart."""
    started = time.perf_counter(), time.process_time()
    _, module, *words = map(str, command)
    if module == "mgoe":
        output = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    else:
        with redirect_stdout(StringIO()) as printed, patch.object(sys, "argv", [module, *words]):
            importlib.import_module(module).main()
        output = printed.getvalue()
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return Spent(seconds, 1.0, 1.0, output, cpu)


@pytest.fixture(scope="module")
def children_here() -> Iterator[None]:
    """The long form starts the processes."""
    with pytest.MonkeyPatch.context() as patched:
        for module in () if SOAK else (prepared, world):
            patched.setattr(module, "child", here)
        yield
