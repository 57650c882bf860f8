"""How far a fit is, and a bar that shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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
    losses: dict[str, float] = field(default_factory=dict)
    """Mean over the epoch so far, by task."""
    last: dict[str, Any] = field(default_factory=dict)
    """What the last validation found: its entry of `curves.json`; empty before the first."""

    def __str__(self) -> str:
        parts = [
            f"epoch {self.epoch}/{self.epochs}",
            f"{self.samples_per_second / 1000:,.1f} k samples/s",
            f"loss {self.loss:.4f}",
        ]
        if len(self.losses) > 1:
            parts.append(" ".join(f"{task} {loss:.4f}" for task, loss in self.losses.items()))
        conflict = [cosine for t, row in enumerate(self.last.get("conflict", ())) for cosine in row[:t]]
        if conflict:
            parts.append(f"conflict {min(conflict):+.2f}")
        gates = self.last.get("watch", {}).get("gates")
        if gates:
            parts.append("gates " + " ".join(f"{max(of_task):.0%}" for of_task in gates))
        return "  ".join(parts)


OnProgress = Callable[[FitProgress], None]


@contextmanager
def progress_bar(title: str, monitor: str = "validation") -> Iterator[OnProgress | None]:
    """A bar with rate and time left on standard error; None, and nothing printed, where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, state="")

        def show(now: FitProgress) -> None:
            state = str(now) if now.monitor is None else f"{now}  {monitor} {now.monitor:.4f}"
            bar.update(task, total=now.steps, completed=now.step, state=state)

        yield show
