"""Interrupting and resuming a fit: what its loop knows besides weights, its checkpoints, which of them belong
to it, and signals deferred until nothing is lost.

A fit resumes from its newest intact checkpoint. The checkpoint must be of the same fit: everything that
decides the result is equal, and only the settings in `MAY_CHANGE` differ.
"""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.models import RankingModel
from mgoe.training.checkpoint import Shard, load_checkpoint, save_checkpoint
from mgoe.training.distributed.process_group import ALONE, ProcessGroup
from mgoe.training.feed import Feed

MAY_CHANGE = {"threads", "device", "checkpoint", "tables", "track", "refit"}
"""Settings of training that may change when a fit resumes."""
KEPT = 2
"""Checkpoints that stay: one may turn out to be damaged."""


@dataclass
class FitState:
    """How far a fit is.

    Attributes:
        losses: Sum of the loss per task over the steps of the unfinished epoch. Shape (T,).
        steps: Steps taken, over all epochs.
        epochs: Epochs finished, validation included.
        best: Best value of the monitor; None before the first validation.
        best_epoch: Its epoch.
        last: Latest value of the monitor.
        train_seconds: Time of finished epochs, without validation.
        epoch_seconds: Time of the unfinished epoch.
        curves: One entry per finished epoch.
    """

    losses: Tensor
    steps: int = 0
    epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    last: float | None = None
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)


def identity_of(
    model: RankingModel, train: Feed, valid: Feed | None, settings: TrainingSettings, seed: int
) -> dict[str, Any]:
    """Return everything that decides the result of a fit, as JSON holds it."""
    return {
        "parameters": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "model": {"class": type(model).__name__, **model.options.model_dump(mode="json")},
        "tasks": [asdict(task) for task in model.spec.tasks],
        "graph": train.graph.checksum,
        "examples": {"training": len(train), "validation": len(valid or ()), **train.order},
        "settings": settings.model_dump(mode="json", exclude=MAY_CHANGE),
        "seed": seed,
    }


def check_same_fit(place: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Compare the identity of this fit with the one in a checkpoint.

    Raises:
        TrainingError: The checkpoint is of another model, graph, number of examples, or of other settings.
    """
    for part, here in ours.items():
        there = theirs.get(part)
        if here == there:
            continue
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            name = next(name for name in sorted({*here, *there}) if here.get(name) != there.get(name))
            found = f"{name!r} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        else:
            found = f"{there} there and {here} here"
        raise TrainingError(
            place,
            f"the checkpoint is of another fit, found other {part}: {found}; use the settings and the data "
            "it was started with, or start again without resuming",
        )


class Checkpoints:
    """The latest checkpoints of a fit, in one folder.

    Args:
        folder: Made with the first checkpoint.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor | Shard],
        meta: Mapping[str, Any],
        processes: ProcessGroup = ALONE,
    ) -> None:
        """Write the state after a step. Remove surplus checkpoints, and later ones, which were unreadable
        when the fit resumed.

        Takes the arguments of `save_checkpoint`.

        Raises:
            TrainingError: It cannot be written; earlier checkpoints stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = self.folder / f"{step:010d}.safetensors"
        save_checkpoint(saved, tensors, meta, processes)
        if processes.leads:
            files = self._files()
            end = files.index(saved) + 1
            for other in (*files[: max(0, end - KEPT)], *files[end:]):
                other.unlink()

    def latest(self, processes: ProcessGroup = ALONE) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest intact checkpoint; all processes read the one that the first process finds.

        Raises:
            TrainingError: Another process cannot read it.
        """
        newest, found = "", None
        for file in reversed(self._files() if processes.leads else []):
            with suppress(TrainingError):
                newest, found = file.name, load_checkpoint(file)
                break
        newest = processes.agree(newest)
        return load_checkpoint(self.folder / newest) if newest and found is None else found

    def clear(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_space(self, tensors: Mapping[str, Tensor | Shard], best: Path) -> None:
        """Check before training that checkpoints of such a state fit on the disk.

        Space taken by the fit's own files counts as free, since new files replace them.

        Args:
            tensors: Tensors of the state.
            best: File of the best weights.

        Raises:
            TrainingError: They do not fit.
        """
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        own = sum(file.stat().st_size for file in (*self._files(), best) if file.exists())
        needed = (KEPT + 2) * sum(tensor.nbytes for tensor in tensors.values())
        free = shutil.disk_usage(existing).free + own
        if needed > free:
            raise TrainingError(
                self.folder,
                f"training needs {needed / 1e9:.2f} GB for {KEPT + 1} checkpoints and the best weights, "
                f"found {free / 1e9:.2f} GB free or its own; free space or choose another disk",
            )

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


REQUESTS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Record a request to stop, and obey it when the block ends. A second request takes effect at once.

    A signal that the process ignores stays ignored, as in a background job or in a child process of a
    comparison, whose parent handles Ctrl-C.

    Yields:
        Function that returns whether there was a request. Only the main thread receives signals; elsewhere it
        returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    before = {
        number: signal.signal(number, note)
        for number in REQUESTS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: bool(received)
    finally:
        restore()
        if received:
            signal.raise_signal(received[0])
