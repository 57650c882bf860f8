"""One progress bar for all long work: rate and time left on a terminal, nothing elsewhere."""

import sys
from contextlib import AbstractContextManager

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

_quiet = False


def be_quiet(quiet: bool) -> None:
    """Show no progress from now on, or show it again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Tell whether progress is not to be shown."""
    return _quiet


def is_terminal() -> bool:
    """Tell whether progress bars are shown: standard error is a terminal, and nobody asked for quiet."""
    return sys.stderr.isatty() and not _quiet


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on standard error that vanishes when it is closed; without a terminal nothing is shown.

    Args:
        title: What is in progress.
        total: Units of work, if they are known.
        unit: Their name, such as `events`.
    """

    def __init__(self, title: str, total: float | None = None, unit: str = ""):
        hidden = not is_terminal()
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            _Rate(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=hidden),
            transient=True,
            disable=hidden,
        )
        self._task = self._bar.add_task(title, total=total or None, unit=unit, state="")
        self._bar.start()

    def advance(self, units: float) -> None:
        """Count units of work that were just completed."""
        self._bar.advance(self._task, units)

    def update(
        self, done: float, total: float | None = None, state: str = "", title: str | None = None
    ) -> None:
        """Show how many units are completed, of how many, and a text beside the bar."""
        self._bar.update(self._task, completed=done, total=total, state=state, description=title)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def __exit__(self, *_: object) -> None:
        self.close()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Write units per second with a thousands prefix."""
        unit, speed = task.fields["unit"], task.speed
        if not unit or not speed:
            return Text("")
        sizes = ((1e9, "G "), (1e6, "M "), (1e3, "k "), (1.0, ""))
        size, prefix = next((size for size in sizes if speed >= size[0]), sizes[-1])
        return Text(f"{speed / size:,.1f} {prefix}{unit}/s")
