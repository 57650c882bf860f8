"""Progress: lines that the library logs, and one bar for all long work, on a terminal and in a notebook."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from rich.console import Console
from tqdm import tqdm

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
        stream: Stream of `sys`, looked up for every message.
    """

    def __init__(self, stream: str):
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message above a bar that is shown, unless progress is hidden."""
        if not _hidden:
            stream = getattr(sys, self._stream)
            tqdm.write(record.getMessage(), stream)
            stream.flush()


def shows_bars() -> bool:
    """Tell whether progress bars are shown: somebody can see them, and they are not hidden."""
    return not _hidden and (sys.stderr.isatty() or is_notebook())


def is_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    return Console().is_jupyter


class _Bar(tqdm):
    monitor_interval = 0  # no thread: a bar is drawn where work is counted


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on standard error, if that is a terminal or in a notebook, that vanishes when it is closed.

    Args:
        title: What is in progress.
        total: Units of work, if they are known.
        unit: Their name, such as `events`.
    """

    def __init__(self, title: str, total: float | None = None, unit: str = ""):
        self._bar = _Bar(
            desc=f"  {title}",
            total=total or None,
            unit=f" {unit}",
            unit_scale=True,
            miniters=1,
            leave=False,
            dynamic_ncols=True,
            disable=not shows_bars(),
        )

    def advance(self, units: float) -> None:
        """Count units of work that were just completed."""
        self._bar.update(units)

    def update(
        self, done: float, total: float | None = None, state: str = "", title: str | None = None
    ) -> None:
        """Show how many units are completed, of how many, and a text beside the bar."""
        self._bar.total = total or self._bar.total
        self._bar.set_postfix_str(state, refresh=False)
        if title is not None:
            self._bar.set_description(f"  {title}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()
