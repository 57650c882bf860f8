"""How every command ends: a mistake of the user in one sentence and code 2, an interrupt in a sentence that says how to go on."""

from __future__ import annotations

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
    """SIGTERM, handled like Ctrl-C so that unfinished files are cleared away."""


class Root(TyperGroup):
    """The group of all commands. What is no `MgoeError` is a defect and keeps its traceback."""

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
            if (
                os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"
            ):  # of many processes one says it
                _say(
                    "stopped; what was finished is kept, and the same command (without --overwrite) goes on from there"
                )
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
