"""The training loop: epochs of steps, validation after each epoch, the best weights kept, checkpoints to
resume from.

Axes: `N` examples, `B` batch, `T` tasks.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgoe._util.files import clear_unfinished, write_json
from mgoe.config import TrainingSettings, seconds
from mgoe.errors import TrainingError
from mgoe.models import RankingModel
from mgoe.training.checkpoint import grown, load_weights, read_meta, save_checkpoint
from mgoe.training.devices import resolve_device, uses_bfloat16
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.distributed.sharded import place_tables, unshard
from mgoe.training.feed import Feed
from mgoe.training.monitor import Monitor, Scores, check_examples, measure
from mgoe.training.predict import look_inside, predict
from mgoe.training.progress import (
    CURVES,
    FitProgress,
    FitResult,
    OnProgress,
    Write,
    of_epoch,
    of_progress,
    tracking,
)
from mgoe.training.resume import Checkpoints, FitState, check_same_fit, deferred, identity_of
from mgoe.training.step import LossCheck, Stepper, first_not_finite, optimizer_tensors

WEIGHTS = "model.safetensors"
"""File of the weights."""
OPTIMIZER = "optimizer.safetensors"
"""File of the state of the optimisers."""
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints while a fit runs."""
REPORT_STEPS = 20


def fit(
    model: RankingModel,
    train: Feed,
    valid: Feed | None,
    settings: TrainingSettings,
    out: Path,
    on_progress: OnProgress | None = None,
    seed: int = 0,
    resume: bool = False,
    start: Mapping[str, Tensor] | None = None,
    epochs: int | None = None,
) -> FitResult:
    """Fit a model, and leave it with the weights of its best epoch.

    Writes into `out`: the best weights, `model.safetensors`, and the state of the optimisers at that moment,
    `optimizer.safetensors`, after every epoch that improves; `curves.json` after every epoch; and
    checkpoints, from which the same call resumes. Each file is complete whenever it
    exists. The best weights are put back however the fit ends: by early stopping, an error or an interrupt.
    On a CPU, the same seed gives the same weights bit for bit, resumed or not. SIGTERM and Ctrl-C take effect
    after a checkpoint is saved. Sets the number of torch's threads for the whole process.

    Where processes have joined (`torchrun`), all of them make this call with the same arguments. Each takes
    its share of every batch, and the first one writes.

    Args:
        model: Freshly made; moved to the device of the settings.
        train: Training examples, reshuffled every epoch by `seed`.
        valid: Validation examples, which pick the epoch. Without any, the last epoch is the best.
        settings: Settings of training.
        out: Folder of the results; made if missing.
        on_progress: Progress callback, called every few steps.
        seed: Seed of the order of examples and of dropout.
        resume: Resume from the latest checkpoint in `out` if there is one. Otherwise an earlier fit in `out`
            is removed.
        start: What to start from in place of fresh weights and optimisers, see `grown`. The schedule of the
            learning rates begins anew.
        epochs: Stop after so many epochs, with the learning rates of a fit that may take all of the settings.

    Raises:
        TrainingError: There are no examples, the monitor is not defined on validation, a loss is not finite,
            or the checkpoint is of another model, graph or settings.
        OutputError: The folder cannot be written.
        KeyboardInterrupt: This process, or one that trains with it, was asked to stop. An interrupted fit has
            no result.

    Example:
        >>> from mgoe.config import TrainingSettings
        >>> from mgoe.models import make_model, resolve
        >>> from mgoe.training import Feed
        >>> model = make_model(resolve("shared-bottom"), spec, seed=0)
        >>> splits = [prepared.examples(split) for split in ("train", "valid")]
        >>> train, valid = (Feed(prepared, graph, examples, model.needs, spec) for examples in splits)
        >>> fit(model, train, valid, TrainingSettings(epochs=1), Path("cell")).epochs
        1
    """
    torch.set_num_threads(settings.threads)
    run = _Fit(model, train, valid, settings, out, on_progress, seed)
    with torch.random.fork_rng([run.device] if run.on_gpu else []):
        try:
            torch.manual_seed(seed)
            run.begin(resume, start or {})
            track = settings.track if run.processes.leads else "none"
            state = run.state
            with deferred() as stop_requested, tracking(track, out, state.steps) as run.track:
                limit = settings.epochs if epochs is None else epochs
                while state.epochs < limit and state.epochs - state.best_epoch < settings.patience:
                    run.train_epoch(stop_requested)
                    run.validate()
                    run.save()
        finally:
            if run.state.best_epoch:
                unshard(run.model)
                load_weights(run.model, out / WEIGHTS)
    return run.result()


class _Fit:
    """One fit: its model, data and settings, and how far it is."""

    def __init__(
        self,
        model: RankingModel,
        train: Feed,
        valid: Feed | None,
        settings: TrainingSettings,
        out: Path,
        on_progress: OnProgress | None,
        seed: int,
    ):
        self.monitor = Monitor.parse(settings.monitor, train.spec.tasks)
        check_examples(self.monitor, train, valid)
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.processes = ProcessGroup.current()
        self.processes.check_batch(settings.batch_size)
        self.device = resolve_device(settings.device)
        self.on_gpu = self.device.type == "cuda"
        self.bfloat16 = uses_bfloat16(settings.precision, self.device)
        place_tables(model, settings, self.processes, self.device, seed)
        self.model, self.train, self.valid = model.to(self.device), train, valid
        self.settings, self.out, self.on_progress, self.seed = settings, out, on_progress, seed
        self.names = [task.name for task in train.spec.tasks]
        self.epoch_steps = -(-len(train) // settings.batch_size)
        self.steps = settings.epochs * self.epoch_steps
        self.step = Stepper(self.model, settings, self.steps, self.bfloat16, self.processes)
        self.checkpoints = Checkpoints(out / CHECKPOINTS)
        self.saved_at = self.started
        self.state = FitState(losses=torch.zeros(len(self.names), device=self.device))
        self.identity = identity_of(model, train, valid, settings, seed)
        self.track: Write | None = None
        if self.processes.leads:
            clear_unfinished(out)
            self.checkpoints.check_space(self.step.tensors(), out / WEIGHTS)
        self._write_curves()  # refuses an unwritable folder before training

    def begin(self, resume: bool, start: Mapping[str, Tensor]) -> None:
        """Resume from the latest checkpoint if there is one; otherwise remove the files of an earlier fit and
        take the start."""
        found = self.checkpoints.latest(self.processes) if resume else None
        if found is None:
            self.checkpoints.clear()
            if self.processes.leads:
                for name in (WEIGHTS, OPTIMIZER):
                    (self.out / name).unlink(missing_ok=True)
            if start:
                self.step.load(grown(start, self.step.tensors()))
            return
        tensors, meta = found
        check_same_fit(self.checkpoints.folder, self.identity, meta.get("fit", {}))
        self.step.load(tensors)
        self.state = FitState(**meta["state"], losses=tensors["losses"].to(self.device))
        self.started -= meta["seconds"]
        self.cpu_started -= meta["cpu_seconds"]
        torch.set_rng_state(tensors["random"])
        if self.on_gpu and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        # The best weights may be of the epoch after the checkpoint. That epoch is repeated, and rounds
        # differently on another device.
        kept = read_meta(self.out / WEIGHTS) if self.processes.leads and (self.out / WEIGHTS).exists() else {}
        epoch, value = self.processes.agree((kept.get("epoch", 0), kept.get("value")))
        if epoch > self.state.epochs:
            self.state.best, self.state.best_epoch = value, epoch
        self._write_curves()

    def train_epoch(self, stop_requested: Callable[[], bool]) -> None:
        """Take the remaining steps of an epoch.

        Raises:
            KeyboardInterrupt: This process, or one that trains with it, was asked to stop; a checkpoint is
                saved.
        """
        state, epoch = self.state, self.state.epochs + 1
        first = state.steps - state.epochs * self.epoch_steps
        if first == self.epoch_steps:
            return  # the checkpoint is of the moment before validation
        check = LossCheck(
            self.model,
            self.names,
            epoch,
            self.epoch_steps,
            every=REPORT_STEPS if self.on_gpu else 1,
            seen=first,
        )
        since_report = torch.zeros((), device=self.device)
        started = time.perf_counter() - state.epoch_seconds
        self.model.train()
        batches = self.train.batches(
            self.settings.batch_size, (self.seed, epoch), self.device, first, self.processes
        )
        with closing(batches):
            for number, batch in enumerate(batches, first + 1):
                loss, losses = self.step(batch, state.steps, check)
                state.steps += 1
                state.losses += losses
                state.epoch_seconds = time.perf_counter() - started
                since_report += loss
                if number % REPORT_STEPS == 0 or number == self.epoch_steps:
                    if self.on_progress or self.track:
                        steps = min((number - 1) % REPORT_STEPS + 1, number - first)  # of this process
                        self._report(float(since_report) / steps, number)
                    since_report.zero_()
                due = time.perf_counter() - self.saved_at >= seconds(self.settings.checkpoint)
                stop, due = self.processes.any(stop_requested(), due and self.processes.leads)
                if stop or due:
                    self.save()
                if stop:
                    raise KeyboardInterrupt

    def validate(self) -> None:
        """Measure on validation, record the epoch, and keep the weights if they are the best so far."""
        state, epoch, started = self.state, self.state.epochs + 1, time.perf_counter()
        scores: Scores = {}
        if self.valid is not None:
            scores = self._measured(self.valid, epoch)
            state.last = self.monitor.value(scores)
        state.curves.append(
            {
                "epoch": epoch,
                "step": state.steps,
                "losses": self._mean_losses(self.epoch_steps),
                "validation": scores,
                "monitor": state.last,
                "seconds": state.epoch_seconds,
                "samples_per_second": len(self.train) / state.epoch_seconds,
                "watch": look_inside(self.model, self.valid or self.train),
                "validation_seconds": time.perf_counter() - started,
            }
        )
        if self.track:
            self.track(state.steps, of_epoch(state.curves[-1]))
        state.epochs += 1
        state.train_seconds += state.epoch_seconds
        state.epoch_seconds = 0.0
        state.losses.zero_()
        if state.last is None or self.monitor.better(state.last, state.best):
            meta = {"epoch": epoch, "monitor": self.monitor.text, "value": state.last, "seed": self.seed}
            optimizers = optimizer_tensors(self.step.optimizers)
            for name, tensors in ((OPTIMIZER, optimizers), (WEIGHTS, self.model.state_dict())):
                save_checkpoint(self.out / name, tensors, meta, self.processes)
            state.best, state.best_epoch = state.last, epoch
            self.processes.agree(None)  # no process may read the file before it is written
        self._write_curves()

    def _measured(self, valid: Feed, epoch: int) -> Scores:
        predictions, examples = predict(self.model, valid), valid.examples
        if not np.isfinite(predictions).all():
            raise TrainingError(
                f"epoch {epoch}",
                "predictions on validation are not finite (first parameter: "
                f"{first_not_finite(self.model)!r}); lower training.learning_rate",
            )
        return measure(valid.spec.tasks, examples.labels, predictions, examples.user)

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        tensors = self.step.tensors() | {"losses": self.state.losses, "random": torch.get_rng_state()}
        if self.on_gpu:
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        meta = {
            "fit": self.identity,
            "state": {name: value for name, value in vars(self.state).items() if name != "losses"},
            **self._times(),
        }
        self.checkpoints.save(self.state.steps, tensors, meta, self.processes)
        self.saved_at = time.perf_counter()

    def result(self) -> FitResult:
        """Return the outcome of the finished fit."""
        state = self.state
        return FitResult(
            monitor=self.monitor.text,
            best_epoch=state.best_epoch,
            best_value=math.nan if state.best is None else state.best,
            epochs=state.epochs,
            **self._times(),
            samples_per_second=state.epochs * len(self.train) / state.train_seconds,
            precision="bfloat16" if self.bfloat16 else "float32",
            device=str(self.device),
            curves=state.curves,
        )

    def _times(self) -> dict[str, float]:
        """Return the time since the fit started, over all its processes in turn, and their processor time."""
        return {
            "seconds": time.perf_counter() - self.started,
            "cpu_seconds": time.process_time() - self.cpu_started,
        }

    def _mean_losses(self, steps: int) -> dict[str, float]:
        """Return the mean loss per task over the first `steps` steps of the unfinished epoch."""
        return dict(zip(self.names, (self.state.losses / steps).tolist(), strict=True))

    def _report(self, loss: float, number: int) -> None:
        """Report the mean loss of the latest steps, after step `number` of the epoch."""
        state = self.state
        samples = state.epochs * len(self.train) + min(number * self.settings.batch_size, len(self.train))
        now = FitProgress(
            epoch=state.epochs + 1,
            epochs=self.settings.epochs,
            step=state.steps,
            steps=self.steps,
            samples_per_second=samples / (state.train_seconds + state.epoch_seconds),
            loss=loss,
            monitor=state.last,
            losses=self._mean_losses(number),
            last=state.curves[-1] if state.curves else {},
        )
        if self.on_progress:
            self.on_progress(now)
        if self.track:
            self.track(state.steps, of_progress(now))

    def _write_curves(self) -> None:
        if self.processes.leads:
            write_json(
                self.out / CURVES,
                {
                    "monitor": self.monitor.text,
                    "best_epoch": self.state.best_epoch,
                    "epochs": self.state.curves,
                },
            )
