"""Write the progress of a fit to TensorBoard or MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgoe._util.extras import load
from mgoe._util.files import write_text
from mgoe.training.progress import FitProgress

LIBRARIES = {"tensorboard": ("torch.utils.tensorboard", "TensorBoard"), "mlflow": ("mlflow", "MLflow")}
"""Module and name of each library, by its name in the settings."""


def load_tracker(name: str) -> Any:
    """Return the library that `training.track` names.

    Raises:
        MissingExtra: It is not installed.
    """
    module, title = LIBRARIES[name]
    return load(module, "training.track", title, "pip install 'mgoe[track]'")


class TensorBoard:
    """Write event files into a folder, for `tensorboard --logdir`.

    Args:
        folder: Folder of the fit.
        step: Step the fit resumes from; what an earlier process wrote beyond it is hidden.
    """

    def __init__(self, folder: Path, step: int):
        self._writer = load_tracker("tensorboard").SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write values by name, at a step of the fit."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, finished: bool) -> None:
        """Write what is buffered."""
        self._writer.close()


class MLflow:
    """Write a run of MLflow, at MLFLOW_TRACKING_URI and in MLFLOW_EXPERIMENT_NAME.

    Args:
        folder: Folder of the fit. It names the run and holds its id, so that a resumed fit continues the same
            run.
        step: Step the fit resumes from.
    """

    def __init__(self, folder: Path, step: int):
        self._client = load_tracker("mlflow")
        held = folder / "mlflow.run"
        known = held.read_text() if step and held.exists() else None
        name = None if known else "/".join(folder.resolve().parts[-2:])
        write_text(held, self._client.start_run(run_id=known, run_name=name).info.run_id)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write values by name, at a step of the fit."""
        # Some stores write one file per name.
        named = {name.replace("/", ".").replace("@", "_at_"): value for name, value in values.items()}
        self._client.log_metrics(named, step=step)

    def close(self, finished: bool) -> None:
        """End the run, as finished or as failed."""
        self._client.end_run("FINISHED" if finished else "FAILED")


Tracker = TensorBoard | MLflow
TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


@contextmanager
def tracking(name: str, folder: Path, step: int) -> Iterator[Tracker | None]:
    """Open the tracker that `training.track` names, or none, until the block ends."""
    tracker = TRACKERS[name](folder, step) if name in TRACKERS else None
    finished = False
    try:
        yield tracker
        finished = True
    finally:
        if tracker:
            tracker.close(finished)


def of_progress(now: FitProgress) -> dict[str, float]:
    """Return the numbers of a report during an epoch, by name."""
    return {"loss": now.loss, "samples_per_second": now.samples_per_second} | {
        f"loss/{task}": loss for task, loss in now.losses.items()
    }


def of_epoch(entry: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an entry of `curves.json`, by path, without those that are NaN."""
    return {name: value for name, value in _flat("", entry) if value == value}


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}/{key}" if name else str(key), part)
    elif isinstance(value, int | float):
        yield name, float(value)
