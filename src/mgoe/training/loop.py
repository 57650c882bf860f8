"""The training loop: epochs of steps, validation after each, the best weights kept.

Axes: `N` examples, `B` batch, `T` tasks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.files import write_json
from mgoe.training.checkpoint import load_weights, save_checkpoint
from mgoe.training.devices import resolve_device, uses_bfloat16
from mgoe.training.feed import Feed
from mgoe.training.monitor import Monitor, Task, measure
from mgoe.training.optim import MAX_GRADIENT_NORM, make_optimizers, set_rates
from mgoe.training.predict import predict, watch
from mgoe.training.progress import FitProgress, OnProgress
from mgoe.training.trouble import LossGuard, first_not_finite

if TYPE_CHECKING:
    from mgoe.models import RankingModel

WEIGHTS = "model.safetensors"
CURVES = "curves.json"
REPORT_STEPS = 20


@dataclass(frozen=True)
class FitResult:
    """What a fit came to. The model itself holds the best weights, and so does `model.safetensors`."""

    monitor: str
    best_epoch: int
    """From 1."""
    best_value: float
    epochs: int
    """Done, of those in the settings."""
    seconds: float
    """All of it, validation included."""
    samples_per_second: float
    """Training alone."""
    precision: str
    device: str
    curves: list[dict[str, Any]]
    """One entry an epoch, as in `curves.json`."""


def fit(
    model: RankingModel,
    train: Feed,
    valid: Feed,
    settings: TrainingSettings,
    out: Path,
    on_progress: OnProgress | None = None,
    seed: int = 0,
) -> FitResult:
    """Fit a model, and leave it with the weights of its best epoch.

    Writes `model.safetensors` at every better epoch and `curves.json` at every epoch into `out`; both are complete whenever they
    exist. The best weights are put back however the fit ends: early stopping, an error or an interrupt. Sets the number of torch's
    threads for the whole process. On a CPU, the same seed gives the same weights bit for bit.

    Args:
        model: Freshly made; moved to the device of the settings.
        train: Shuffled anew every epoch by `seed`.
        valid: Picks the epoch.
        settings: How.
        out: Folder of the results; made if missing.
        on_progress: Called every few steps.
        seed: Of the order of examples, and of dropout.

    Raises:
        TrainingError: There is nothing to train on, the monitor is not defined on validation, or a loss is not finite.
        OutputError: The folder cannot be written.
    """
    torch.set_num_threads(settings.threads)
    run = _Run(model, train, valid, settings, out, on_progress, seed)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices), run.best_weights_at_end():
        torch.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            losses, train_seconds = run.train_epoch(epoch)
            run.validate(epoch, losses, train_seconds)
            if epoch - run.best_epoch >= settings.patience:
                break
    return run.result()


class _Run:
    """State of one fit."""

    def __init__(
        self,
        model: RankingModel,
        train: Feed,
        valid: Feed,
        settings: TrainingSettings,
        out: Path,
        on_progress: OnProgress | None,
        seed: int,
    ):
        self.tasks = train.spec.tasks
        self.monitor = Monitor.parse(settings.monitor, self.tasks)
        for place, feed in (("training examples", train), ("validation examples", valid)):
            if len(feed) == 0:
                raise TrainingError(place, "there must be at least one, found none; widen the time range or move split.cuts")
        _check_defined(self.monitor, self.tasks, valid)
        self.started = time.perf_counter()
        self.device = resolve_device(settings.device)
        self.bfloat16 = uses_bfloat16(settings.precision, self.device)
        self.model, self.train, self.valid = model.to(self.device), train, valid
        self.settings, self.out, self.on_progress, self.seed = settings, out, on_progress, seed
        self.dense = model.dense()
        self.optimizers = make_optimizers(model.tables(), self.dense, settings)
        self.steps_an_epoch = -(-len(train) // settings.batch_size)
        self.step = 0
        self.train_seconds = 0.0
        self.best_epoch = 0
        self.best: float | None = None
        self.last: float | None = None
        self.curves: list[dict[str, Any]] = []
        self._write_curves()  # a folder that cannot be written is refused before training

    @property
    def steps(self) -> int:
        return self.settings.epochs * self.steps_an_epoch

    def train_epoch(self, epoch: int) -> tuple[dict[str, float], float]:
        """One pass over the training examples. Returns the mean loss a task, and the seconds."""
        started = time.perf_counter()
        names = [task.name for task in self.tasks]
        guard = LossGuard(self.model, names, epoch, every=1 if self.device.type == "cpu" else REPORT_STEPS)
        total = torch.zeros(len(self.tasks), device=self.device)
        since_report = torch.zeros((), device=self.device)
        self.model.train()
        feeding = self.train.batches(self.settings.batch_size, shuffle_seed=(self.seed, epoch), device=self.device)
        with closing(feeding) as batches:
            for number, batch in enumerate(batches, 1):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    loss, of_tasks = self.model.loss(batch)
                guard.check(batch, loss, of_tasks, last=number == self.steps_an_epoch)
                self._step(loss)
                total += of_tasks.detach().float()
                since_report += loss.detach().float()
                if self.on_progress and (number % REPORT_STEPS == 0 or number == self.steps_an_epoch):
                    self._report(epoch, started, float(since_report) / ((number - 1) % REPORT_STEPS + 1))
                    since_report.zero_()
        means = (total / self.steps_an_epoch).tolist()
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        return dict(zip(names, means, strict=True)), seconds

    def _step(self, loss: torch.Tensor) -> None:
        set_rates(self.optimizers, self.settings, self.step, self.steps)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.dense, MAX_GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1

    def _report(self, epoch: int, started: float, loss: float) -> None:
        assert self.on_progress is not None
        seconds = self.train_seconds + time.perf_counter() - started
        samples = self._samples()
        self.on_progress(FitProgress(epoch, self.settings.epochs, self.step, self.steps, samples / seconds, loss, self.last))

    def _samples(self) -> int:
        whole, rest = divmod(self.step, self.steps_an_epoch)
        return whole * len(self.train) + rest * self.settings.batch_size

    def validate(self, epoch: int, losses: dict[str, float], train_seconds: float) -> None:
        """Measure on validation, note the epoch, and keep the weights if they are the best."""
        started = time.perf_counter()
        predictions = predict(self.model, self.valid)
        if not np.isfinite(predictions).all():
            culprit = first_not_finite(self.model)
            raise TrainingError(
                f"epoch {epoch}", f"predictions on validation are not finite (first parameter: {culprit!r}); lower training.learning_rate"
            )
        scores = measure(self.tasks, self.valid.examples.labels, predictions, self.valid.examples.user)
        self.last = self.monitor.value(scores)
        self.curves.append(
            {
                "epoch": epoch,
                "step": self.step,
                "losses": losses,
                "validation": scores,
                "monitor": self.last,
                "seconds": train_seconds,
                "samples_per_second": len(self.train) / train_seconds,
                "watch": watch(self.model, self.valid),
                "validation_seconds": time.perf_counter() - started,
            }
        )
        if self.monitor.better(self.last, self.best):
            self.best, self.best_epoch = self.last, epoch
            meta = {"epoch": epoch, "monitor": self.monitor.text, "value": self.last, "seed": self.seed}
            save_checkpoint(self.out / WEIGHTS, self.model.state_dict(), meta)
        self._write_curves()

    def _write_curves(self) -> None:
        write_json(self.out / CURVES, {"monitor": self.monitor.text, "best_epoch": self.best_epoch, "epochs": self.curves})

    @contextmanager
    def best_weights_at_end(self) -> Iterator[None]:
        """Put the best epoch's weights into the model, whatever ends the block."""
        try:
            yield
        finally:
            if self.best_epoch:
                load_weights(self.model, self.out / WEIGHTS)

    def result(self) -> FitResult:
        """What to tell of the finished fit."""
        assert self.best is not None
        return FitResult(
            monitor=self.monitor.text,
            best_epoch=self.best_epoch,
            best_value=self.best,
            epochs=len(self.curves),
            seconds=time.perf_counter() - self.started,
            samples_per_second=len(self.curves) * len(self.train) / self.train_seconds,
            precision="bfloat16" if self.bfloat16 else "float32",
            device=str(self.device),
            curves=self.curves,
        )


def _check_defined(monitor: Monitor, tasks: Sequence[Task], valid: Feed) -> None:
    """Refuse before training what could not be measured after it."""
    labels = valid.examples.labels
    if np.isnan(monitor.value(measure(tasks, labels, np.full_like(labels, 0.5), valid.examples.user))):
        raise TrainingError(
            "training.monitor",
            f"{monitor.text!r} is not defined on validation: no monitored task has both labels there; choose another or move split.cuts",
        )
