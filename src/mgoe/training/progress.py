"""How far a fit is, and a bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is after some step."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps done, over all epochs."""
    steps: int
    samples_per_second: float
    """Training alone, without validation."""
    loss: float
    """Mean over the steps since the last report."""
    monitor: float | None
    """Validation's last value; None before the first."""


OnProgress = Callable[[FitProgress], None]


@contextmanager
def progress_bar(title: str, monitor: str = "validation") -> Iterator[OnProgress | None]:
    """A bar with rate and time left on standard error; None, and nothing printed, where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, state="")

        def show(now: FitProgress) -> None:
            state = f"epoch {now.epoch}/{now.epochs}  {now.samples_per_second / 1000:,.1f} k samples/s  loss {now.loss:.4f}"
            if now.monitor is not None:
                state += f"  {monitor} {now.monitor:.4f}"
            bar.update(task, total=now.steps, completed=now.step, state=state)

        yield show
