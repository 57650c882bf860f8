"""How commands end: a user's mistake in one sentence and code 2, an interrupt with a hint how to resume."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from mgoe.errors import MgoeError, SaidElsewhere

MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit codes; the last two are what shells give to SIGINT and SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C so that unfinished files are removed."""


class Root(TyperGroup):
    """The group of all commands. An error that is no `MgoeError` is a defect and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with _terminable():
                return super().invoke(ctx)
        except SaidElsewhere:
            raise typer.Exit(MISTAKE) from None
        except MgoeError as error:
            _say(" ".join(str(error).split()))
            raise typer.Exit(MISTAKE) from None
        except KeyboardInterrupt as stop:
            if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0":
                fix = "the same command (without --overwrite) resumes from there"
                _say(
                    f"stopped; what was finished is kept, and {fix}"
                )  # once, whatever the number of processes
            raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None


def _say(sentence: str) -> None:
    typer.echo(f"mgoe: {sentence}", err=True)


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
