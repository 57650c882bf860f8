"""Shows how far a graph is: a bar with rate and time left where a terminal is, nothing where none is."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Millions of units a second."""
        return Text(f"{task.speed / 1e6:,.1f} M {task.fields['unit']}/s" if task.speed else "")


class Watch:
    """The observer of a build on standard error.

    Args:
        say: Called with what is worth a line even where there is no terminal.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None):
        self._say, self._bar = say, None

    def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        """A bar for a new stage in place of the one before."""
        self.close()
        if not sys.stderr.isatty():
            return lambda done: None
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bar = self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(name, total=total or None, unit=unit)
        bar.start()
        return lambda done: bar.advance(task, done)

    def note(self, line: str) -> None:
        """A line of its own."""
        self._say(f"  {line}")

    def close(self) -> None:
        """Take the last bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
