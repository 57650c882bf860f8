"""Progress: lines that the library logs, and one bar for all long work, on a terminal and in a notebook."""

import io
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.filesize import pick_unit_and_suffix
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

WIDTH = 150
"""Characters of a bar in a notebook, whose width is unknown."""
PAUSE = 0.2
"""Seconds between changes of a bar in a notebook."""
_hidden = False


@contextmanager
def shown(stream: Literal["stdout", "stderr"]) -> Iterator[None]:
    """Print the lines that the library logs inside the block.

    Args:
        stream: Stream of `sys` that they go to.
    """
    library, handler = logging.getLogger("mgoe"), _Lines(stream)
    level = library.level
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)


@contextmanager
def hidden() -> Iterator[None]:
    """Print no line and show no bar inside the block."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


class _Lines(logging.Handler):
    """Prints messages alone.

    Args:
        stream: Stream of `sys`, looked up for every message: one that is printed while a bar is shown goes
            above it.
    """

    def __init__(self, stream: str):
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, unless progress is hidden."""
        if not _hidden:
            print(record.getMessage(), file=getattr(sys, self._stream), flush=True)


def shows_bars() -> bool:
    """Tell whether progress bars are shown: somebody can see them, and they are not hidden."""
    return not _hidden and (sys.stderr.isatty() or is_notebook())


def is_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    return Console().is_jupyter


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar that vanishes when it is closed: on standard error if that is a terminal, or in a notebook.

    Args:
        title: What is in progress.
        total: Units of work, if they are known.
        unit: Their name, such as `events`.
    """

    def __init__(self, title: str, total: float | None = None, unit: str = ""):
        on_terminal = shows_bars() and not is_notebook()
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            _Rate(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=not on_terminal),
            transient=True,
            disable=not on_terminal,
        )
        self._task = self._bar.add_task(title, total=total or None, unit=unit, state="")
        self._output = _Output() if shows_bars() and is_notebook() else None
        self._bar.start()
        self._show()

    def advance(self, units: float) -> None:
        """Count units of work that were just completed."""
        self._bar.advance(self._task, units)
        self._show()

    def update(
        self, done: float, total: float | None = None, state: str = "", title: str | None = None
    ) -> None:
        """Show how many units are completed, of how many, and a text beside the bar."""
        self._bar.update(self._task, completed=done, total=total, state=state, description=title)
        self._show()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()
        if self._output is not None:
            self._output.clear()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self) -> None:
        if self._output is not None:
            self._output.show(self._bar.get_renderable())


class _Output:
    """What a bar shows in a notebook: one line of the running cell, which is replaced.

    Rich would show the bar in a widget of ipywidgets, which takes what other threads print meanwhile.
    """

    def __init__(self):
        self._next = 0.0

    def show(self, what: RenderableType) -> None:
        """Replace the line, unless that was just done."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + PAUSE
            text = Console(file=io.StringIO(), force_jupyter=False, width=WIDTH, record=True)
            text.print(what)
            _line().update(_plain(text.export_text().rstrip()), raw=True)

    def clear(self) -> None:
        """Empty the line."""
        _line().update(_plain(""), raw=True)


def _line() -> Any:
    """Return the handle of the line that all bars of the running cell share."""
    return _line_of(import_module("IPython").get_ipython().execution_count)


@lru_cache(maxsize=1)
def _line_of(cell: int) -> Any:
    return import_module("IPython.display").display(_plain(""), raw=True, display_id=True)


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Write units per second with a thousands prefix."""
        unit, speed = task.fields["unit"], task.speed
        if not unit or not speed:
            return Text("")
        size, prefix = pick_unit_and_suffix(int(speed), ["", "k ", "M ", "G "], 1000)
        return Text(f"{speed / size:,.1f} {prefix}{unit}/s")
