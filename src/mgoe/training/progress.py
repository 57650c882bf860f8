"""How far a fit is, the bar and the run of MLflow that show it, and its result."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgoe._util.extras import install, load
from mgoe._util.files import write_text
from mgoe._util.progress import ProgressBar, shows_bars

CURVES = "curves.json"
MLFLOW_RUN = "mlflow.run"
"""Id of the MLflow run of a fit, in its folder."""


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
    """NaN if nothing was held out."""
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
"""Receives the progress of a fit."""
Write = Callable[[int, dict[str, float]], None]


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


def load_mlflow() -> Any:
    """Return the library MLflow.

    Raises:
        MissingExtra: It is not installed.
    """
    return load("mlflow", "training.track", "MLflow", install("track"))


@contextmanager
def tracking(name: str, folder: Path, step: int) -> Iterator[Write | None]:
    """Open a run of MLflow until the block ends, if `training.track` names it; yield None otherwise.

    The run is at MLFLOW_TRACKING_URI and in MLFLOW_EXPERIMENT_NAME. It ends as finished or, if the block
    raises, as failed.

    Args:
        name: What `training.track` names.
        folder: Folder of the fit. It names the run and holds its id, so that a resumed fit continues the
            same run.
        step: Step the fit resumes from.

    Yields:
        Function that writes values by name, at a step of the fit.
    """
    if name == "mlflow":
        client, held = load_mlflow(), folder / MLFLOW_RUN
        known = held.read_text() if step and held.exists() else None
        run_name = None if known else "/".join(folder.resolve().parts[-2:])
        with client.start_run(run_id=known, run_name=run_name) as run:
            write_text(held, run.info.run_id)

            def log_metrics(step: int, values: dict[str, float]) -> None:
                client.log_metrics(_as_files(values), step=step)

            yield log_metrics
    else:
        yield None


def track_result(name: str, folder: Path, settings: Mapping[str, Any], measured: Mapping[str, float]) -> None:
    """Add all settings of a fit, and what was measured on test, to its run of MLflow.

    Nothing happens if `training.track` is none.

    Args:
        name: What `training.track` names.
        folder: Folder of the fit.
        settings: As plain values, nested.
        measured: Numbers by name; those that are NaN are left out.

    Example:
        >>> track_result("none", Path("cell"), {"seed": 0}, {"test/click/auc": 0.7})
    """
    if name == "mlflow" and (held := folder / MLFLOW_RUN).exists():
        client, run = load_mlflow(), held.read_text()
        short = ((key, str(value)[:500]) for key, value in _flat("", settings))  # every store takes so many
        client.log_params(_as_files(dict(short)), run_id=run)
        client.log_metrics(_as_files(of_epoch(measured)), run_id=run)


def track_bundle(name: str, folder: Path, bundle: Path) -> None:
    """Add a bundle to the MLflow run of its fit as the artifact `bundle`, as `track_result` adds numbers.

    Example:
        >>> track_bundle("none", Path("cell"), Path("bundle"))
    """
    if name == "mlflow" and (held := folder / MLFLOW_RUN).exists():
        load_mlflow().log_artifacts(str(bundle), "bundle", run_id=held.read_text())


def _as_files(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename values for stores of MLflow that write one file per name."""
    return {name.replace("/", ".").replace("@", "_at_"): value for name, value in values.items()}


def of_progress(now: FitProgress) -> dict[str, float]:
    """Return the numbers of a report during an epoch, by name."""
    return {"loss": now.loss, "samples_per_second": now.samples_per_second} | {
        f"loss/{task}": loss for task, loss in now.losses.items()
    }


def of_epoch(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an entry of `curves.json`, by path, without those that are NaN."""
    return {name: float(one) for name, one in _flat("", entry) if isinstance(one, int | float) and one == one}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(f"{name}/{key}" if name else str(key), part)
    else:
        yield name, value
