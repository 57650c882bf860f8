"""Tells TensorBoard or MLflow how a fit goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from mgoe._util.extras import load
from mgoe._util.files import write_text
from mgoe.training.progress import FitProgress

MEND = "pip install 'mgoe[track]'"


class Tracker(Protocol):
    """Where numbers over steps go."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Values by name, at a step of the fit."""
        ...

    def close(self, whole: bool) -> None:
        """Write what is held back, and whether the fit came to its end."""
        ...


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`.

    Args:
        folder: Of the fit.
        step: Where it goes on; what an earlier process wrote beyond is hidden.
    """

    def __init__(self, folder: Path, step: int):
        self._writer = self.load().SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    @staticmethod
    def load() -> Any:
        """The library, or MissingExtra."""
        return load("torch.utils.tensorboard", "training.track", "TensorBoard", MEND)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, whole: bool) -> None:
        self._writer.close()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say.

    Args:
        folder: Of the fit: names the run, and holds its id, so that a fit that goes on goes on in the same run.
    """

    def __init__(self, folder: Path, step: int):
        self._client = self.load()
        held = folder / "mlflow.run"
        known = held.read_text() if step and held.exists() else None
        run = self._client.start_run(
            run_id=known, run_name=None if known else "/".join(folder.resolve().parts[-2:])
        )
        write_text(held, run.info.run_id)

    @staticmethod
    def load() -> Any:
        """The library, or MissingExtra."""
        return load("mlflow", "training.track", "MLflow", MEND)

    def write(self, step: int, values: dict[str, float]) -> None:
        named = {
            name.replace("/", ".").replace("@", "_at_"): value for name, value in values.items()
        }  # a name is a file in some stores
        self._client.log_metrics(named, step=step)

    def close(self, whole: bool) -> None:
        self._client.end_run("FINISHED" if whole else "FAILED")


TRACKERS: dict[str, type[TensorBoard] | type[MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def of_progress(now: FitProgress) -> dict[str, float]:
    """Numbers of a report during an epoch, by name."""
    return {"loss": now.loss, "samples_per_second": now.samples_per_second} | {
        f"loss/{task}": loss for task, loss in now.losses.items()
    }


def of_epoch(entry: dict[str, Any]) -> dict[str, float]:
    """Numbers of an entry of `curves.json`, by path; those that do not exist are left out."""
    return {name: value for name, value in _flat("", entry) if value == value}


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}/{key}" if name else str(key), part)
    elif isinstance(value, int | float):
        yield name, float(value)
