"""How far a fit is, and a bar that shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mgoe._util.progress import ProgressBar, is_terminal


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is after a step."""

    epoch: int
    """Number of the epoch, from 1."""
    epochs: int
    step: int
    """Steps taken, over all epochs."""
    steps: int
    samples_per_second: float
    """Rate of training, without validation."""
    loss: float
    """Mean over the steps since the last report."""
    monitor: float | None
    """Latest value on validation; None before the first."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss over the epoch so far, by task."""
    last: dict[str, Any] = field(default_factory=dict)
    """Entry of `curves.json` of the last validation; empty before the first."""

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
    """Show a bar with rate and time left on standard error; yield None if that is not a terminal."""
    if not is_terminal():
        yield None
        return
    with ProgressBar(title) as bar:

        def show(now: FitProgress) -> None:
            state = str(now) if now.monitor is None else f"{now}  {monitor} {now.monitor:.4f}"
            bar.update(now.step, now.steps, state)

        yield show
