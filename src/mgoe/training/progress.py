"""How far a fit is, the bar that shows it, and its result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mgoe._util.progress import ProgressBar, shows_bars

CURVES = "curves.json"


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is after a step.

    Example:
        >>> FitProgress(1, 4, step=3, steps=10, samples_per_second=2e4, loss=0.4, monitor=None).step
        3
    """

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
        gates = self.last.get("watch", {}).get("gates")
        if gates:
            parts.append("gates " + " ".join(f"{max(of_task):.0%}" for of_task in gates))
        return "  ".join(parts)


@dataclass(frozen=True)
class FitResult:
    """Outcome of a fit. The model holds the best weights, and so does `model.safetensors`.

    Example:
        >>> FitResult("all.auc", 1, 0.71, 1, 2.0, 1.9, 20_000.0, "float32", "cpu", []).best_epoch
        1
    """

    monitor: str
    best_epoch: int
    """Epoch of the best value, from 1."""
    best_value: float
    epochs: int
    """Epochs done, at most those of the settings."""
    seconds: float
    """Time of the fit, validation included."""
    cpu_seconds: float
    """Processor time of the same, over all threads of this process."""
    samples_per_second: float
    """Rate of training, without validation."""
    precision: str
    device: str
    curves: list[dict[str, Any]]
    """One entry per epoch, as in `curves.json`."""


OnProgress = Callable[[FitProgress], None]


@contextmanager
def progress_bar(title: str, monitor: str = "validation") -> Iterator[OnProgress | None]:
    """Show a bar with rate and time left; yield None where nobody can see it.

    Example:
        >>> with progress_bar("training") as on_progress:
        ...     on_progress is None
        True
    """
    if not shows_bars():
        yield None
        return
    with ProgressBar(title) as bar:

        def show(now: FitProgress) -> None:
            latest = "" if now.monitor is None else f"  {monitor} {now.monitor:.4f}"
            bar.update(now.step, now.steps, f"{now}{latest}")

        yield show
