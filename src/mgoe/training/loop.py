"""The training loop: epochs of steps, validation after each, the best weights kept, checkpoints to go on from.

Axes: `N` examples, `B` batch, `T` tasks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mgoe._util.files import clear_unfinished, write_json
from mgoe.config import TrainingSettings, seconds
from mgoe.errors import TrainingError
from mgoe.training.checkpoint import Checkpoints, load_weights, read_meta, save_checkpoint
from mgoe.training.compiling import compile_dense
from mgoe.training.devices import resolve_device, uses_bfloat16
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.distributed.sharded import place_tables, unshard
from mgoe.training.done import FREE, Done, check_same
from mgoe.training.feed import Feed
from mgoe.training.interrupt import deferred
from mgoe.training.monitor import Monitor, measure
from mgoe.training.predict import look_inside, predict
from mgoe.training.progress import FitProgress, OnProgress
from mgoe.training.result import CURVES, FitResult, check_examples
from mgoe.training.step import Stepper
from mgoe.training.track import TRACKERS, Tracker, of_epoch, of_progress
from mgoe.training.trouble import LossGuard, first_not_finite

if TYPE_CHECKING:
    from mgoe.models import RankingModel

WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"
REPORT_STEPS = 20


def fit(
    model: RankingModel,
    train: Feed,
    valid: Feed,
    settings: TrainingSettings,
    out: Path,
    on_progress: OnProgress | None = None,
    seed: int = 0,
    resume: bool = False,
) -> FitResult:
    """Fit a model, and leave it with the weights of its best epoch.

    Writes into `out` the best weights, `model.safetensors`, at every better epoch, `curves.json` at every epoch, and checkpoints from
    which the same call goes on; each is complete whenever it exists. The best weights are put back however the fit ends: early
    stopping, an error or an interrupt. Sets the number of torch's threads for the whole process. On a CPU, the same seed gives the same
    weights bit for bit, gone on with or not. SIGTERM and Ctrl-C save a checkpoint and are then obeyed.

    Where processes have joined (`torchrun`), all of them call it with the same arguments; each takes its share of every batch, and the
    first one writes.

    Args:
        model: Freshly made; moved to the device of the settings.
        train: Shuffled anew every epoch by `seed`.
        valid: Picks the epoch.
        settings: How.
        out: Folder of the results; made if missing.
        on_progress: Called every few steps.
        seed: Of the order of examples, and of dropout.
        resume: Go on from the latest checkpoint in `out`, where there is one; else what lies there is removed.

    Raises:
        TrainingError: There is nothing to train on, the monitor is not defined on validation, a loss is not finite, or the checkpoint is
            of another model, graph or settings.
        OutputError: The folder cannot be written.
        KeyboardInterrupt: The fit was asked to stop, here or in another process of it. What is cut off has no result.
    """
    torch.set_num_threads(settings.threads)
    run = _Run(model, train, valid, settings, out, on_progress, seed)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices), run.best_weights_at_end():
        torch.manual_seed(seed)
        if not (resume and run.go_on()):
            run.clear()
        with deferred() as asked_to_stop, run.tracked():
            run.run(asked_to_stop)
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
        check_examples(self.monitor, train, valid)
        self.started, self.spent = time.perf_counter(), 0.0
        self.cpu_started, self.cpu_spent = time.process_time(), 0.0
        self.processes = ProcessGroup.current()
        self.processes.check_batch(settings.batch_size)
        self.device = resolve_device(settings.device)
        self.bfloat16 = uses_bfloat16(settings.precision, self.device)
        place_tables(model, settings, self.processes, self.device, seed)
        self.model, self.train, self.valid = model.to(self.device), train, valid
        if settings.compile:
            compile_dense(self.model, self.device)
        self.settings, self.out, self.on_progress, self.seed = settings, out, on_progress, seed
        self.steps_an_epoch = -(-len(train) // settings.batch_size)
        self.step = Stepper(self.model, settings, self.steps, self.bfloat16, self.processes)
        self.checkpoints = Checkpoints(out / CHECKPOINTS, settings.keep)
        self.done = Done(losses=torch.zeros(len(self.tasks), device=self.device))
        self.tracker: Tracker | None = None
        if self.processes.leads:
            clear_unfinished(out)
            self.checkpoints.check_space(self.step.tensors(), out / WEIGHTS)
        self._write_curves()  # a folder that cannot be written is refused before training

    @property
    def steps(self) -> int:
        return self.settings.epochs * self.steps_an_epoch

    @property
    def wall_seconds(self) -> float:
        """Since the fit was begun, of whatever process."""
        return self.spent + time.perf_counter() - self.started

    @property
    def cpu_seconds(self) -> float:
        return self.cpu_spent + time.process_time() - self.cpu_started

    def run(self, asked_to_stop: Callable[[], bool]) -> None:
        """Epochs from where the fit is, until the last or until patience ends.

        Raises:
            KeyboardInterrupt: This process, or one that trains with it, was asked to stop; a checkpoint is saved.
        """
        saved = time.perf_counter()
        while (
            self.done.epochs < self.settings.epochs
            and self.done.epochs - self.done.best_epoch < self.settings.patience
        ):
            if self.done.steps < (self.done.epochs + 1) * self.steps_an_epoch:
                for _ in self._train_epoch():
                    due = time.perf_counter() - saved >= seconds(self.settings.checkpoint)
                    stop, due = self.processes.any(asked_to_stop(), due and self.processes.leads)
                    if stop or due:
                        self._save()
                        saved = time.perf_counter()
                    if stop:
                        raise KeyboardInterrupt
            self._validate()
            self._save()
            saved = time.perf_counter()

    def _train_epoch(self) -> Iterator[None]:
        """The rest of an epoch, step by step."""
        epoch, first = self.done.epochs + 1, self.done.steps % self.steps_an_epoch
        every = 1 if self.device.type == "cpu" else REPORT_STEPS
        guard = LossGuard(
            self.model, [task.name for task in self.tasks], epoch, every, first, self.settings.accumulate
        )
        since_report = torch.zeros((), device=self.device)
        started, earlier = time.perf_counter(), self.done.epoch_seconds
        self.model.train()
        feeding = self.train.batches(
            self.settings.batch_size,
            shuffle_seed=(self.seed, epoch),
            device=self.device,
            start=first,
            processes=self.processes,
        )
        with closing(feeding) as batches:
            for number, batch in enumerate(batches, first + 1):
                last = number == self.steps_an_epoch
                loss, of_tasks = self.step(
                    batch, self.done.steps, lambda *what, last=last: guard.check(*what, last=last)
                )
                self.done.steps += 1
                self.done.losses += of_tasks
                self.done.epoch_seconds = earlier + time.perf_counter() - started
                since_report += loss
                if (self.on_progress or self.tracker) and (number % REPORT_STEPS == 0 or last):
                    steps = min(
                        (number - 1) % REPORT_STEPS + 1, number - first
                    )  # of this process, since it reported
                    self._report(epoch, float(since_report) / steps, number)
                    since_report.zero_()
                yield

    def _report(self, epoch: int, loss: float, steps: int) -> None:
        done = self.done
        rate = self._samples() / (done.train_seconds + done.epoch_seconds)
        last = done.curves[-1] if done.curves else {}
        now = FitProgress(
            epoch,
            self.settings.epochs,
            done.steps,
            self.steps,
            rate,
            loss,
            done.last,
            self._by_task(steps),
            last,
        )
        if self.on_progress:
            self.on_progress(now)
        if self.tracker:
            self.tracker.write(done.steps, of_progress(now))

    def _by_task(self, steps: int) -> dict[str, float]:
        """Mean loss over so many steps of the unfinished epoch."""
        return dict(zip([task.name for task in self.tasks], (self.done.losses / steps).tolist(), strict=True))

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Tell what the settings name how the fit goes, until the block ends."""
        if self.settings.track == "none" or not self.processes.leads:
            yield
            return
        self.tracker = TRACKERS[self.settings.track](self.out, self.done.steps)
        whole = False
        try:
            yield
            whole = True
        finally:
            self.tracker.close(whole)

    def _samples(self) -> int:
        whole, rest = divmod(self.done.steps, self.steps_an_epoch)
        return whole * len(self.train) + rest * self.settings.batch_size

    def _validate(self) -> None:
        """Measure on validation, note the epoch, and keep the weights if they are the best."""
        done, epoch, started = self.done, self.done.epochs + 1, time.perf_counter()
        predictions = predict(self.model, self.valid)
        if not np.isfinite(predictions).all():
            culprit = first_not_finite(self.model)
            raise TrainingError(
                f"epoch {epoch}",
                f"predictions on validation are not finite (first parameter: {culprit!r}); lower training.learning_rate",
            )
        scores = measure(self.tasks, self.valid.examples.labels, predictions, self.valid.examples.user)
        done.last = self.monitor.value(scores)
        done.curves.append(
            {
                "epoch": epoch,
                "step": done.steps,
                "losses": self._by_task(self.steps_an_epoch),
                "validation": scores,
                "monitor": done.last,
                "seconds": done.epoch_seconds,
                "samples_per_second": len(self.train) / done.epoch_seconds,
                **look_inside(self.model, self.valid),
                "validation_seconds": time.perf_counter() - started,
            }
        )
        if self.tracker:
            self.tracker.write(done.steps, of_epoch(done.curves[-1]))
        done.end_epoch()
        if self.monitor.better(done.last, done.best):
            meta = {"epoch": epoch, "monitor": self.monitor.text, "value": done.last, "seed": self.seed}
            save_checkpoint(self.out / WEIGHTS, self.model.state_dict(), meta, self.processes)
            done.best, done.best_epoch = done.last, epoch
            self.processes.agree(None)  # no process may read the file before it is written
        self._write_curves()

    def _write_curves(self) -> None:
        if self.processes.leads:
            written = {
                "monitor": self.monitor.text,
                "best_epoch": self.done.best_epoch,
                "epochs": self.done.curves,
            }
            write_json(self.out / CURVES, written)

    def _save(self) -> None:
        """A checkpoint of this moment."""
        tensors = self.step.tensors() | {"losses": self.done.losses, "random": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        meta = {
            "of": self._of,
            "done": self.done.numbers(),
            "seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        self.checkpoints.save(self.done.steps, tensors, meta, self.processes)

    def clear(self) -> None:
        """Remove what another fit left."""
        self.checkpoints.clear()
        if self.processes.leads:
            (self.out / WEIGHTS).unlink(missing_ok=True)

    def go_on(self) -> bool:
        """Take the state of the latest checkpoint, if there is one."""
        found = self.checkpoints.latest(self.processes)
        if found is None:
            return False
        tensors, meta = found
        check_same(self.checkpoints.folder, self._of, meta["of"])
        self.step.load(tensors)
        self.done = Done(**meta["done"], losses=tensors["losses"].to(self.device))
        self.spent, self.cpu_spent = meta["seconds"], meta.get("cpu_seconds", math.nan)
        self._take_kept()
        torch.set_rng_state(tensors["random"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self._write_curves()
        return True

    def _take_kept(self) -> None:
        """The best weights may be of the epoch after the checkpoint. It is done again, and rounds to another value on another device."""
        kept = read_meta(self.out / WEIGHTS) if self.processes.leads and (self.out / WEIGHTS).exists() else {}
        epoch, value = self.processes.agree((kept.get("epoch", 0), kept.get("value")))
        if epoch > self.done.epochs:
            self.done.best, self.done.best_epoch = value, epoch

    @property
    def _of(self) -> dict[str, Any]:
        """What a checkpoint must be of to be gone on with."""
        kept = self.settings.model_dump(mode="json", exclude=FREE)
        shapes = {name: list(tensor.shape) for name, tensor in self.model.state_dict().items()}
        examples = {"training": len(self.train), "validation": len(self.valid)}
        if self.train.window is not None:
            examples["shuffled together"] = self.train.window
        model = {"class": type(self.model).__name__, **self.model.options.model_dump(mode="json")}
        tasks = [asdict(task) for task in self.model.spec.tasks]
        known = {
            "parameters": shapes,
            "model": model,
            "tasks": tasks,
            "graph": self.train.fingerprint,
            "examples": examples,
        }
        return {**known, "settings": kept, "seed": self.seed}

    @contextmanager
    def best_weights_at_end(self) -> Iterator[None]:
        """Put the best epoch's weights into the model, whatever ends the block."""
        try:
            yield
        finally:
            if self.done.best_epoch:
                unshard(self.model)
                load_weights(self.model, self.out / WEIGHTS)

    def result(self) -> FitResult:
        """What to tell of the finished fit."""
        done = self.done
        assert done.best is not None
        return FitResult(
            monitor=self.monitor.text,
            best_epoch=done.best_epoch,
            best_value=done.best,
            epochs=done.epochs,
            seconds=self.wall_seconds,
            cpu_seconds=self.cpu_seconds,
            samples_per_second=done.epochs * len(self.train) / done.train_seconds,
            precision="bfloat16" if self.bfloat16 else "float32",
            device=str(self.device),
            curves=done.curves,
        )
