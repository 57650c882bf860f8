"""The training of an update: one process, or several together, train the weights of a bundle on new rows.

Older rows are replayed beside the new ones. A tenth of the users is held out of the training: their rows pick
the epoch.

Axes: `N` examples, `T` tasks.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.files import write_text
from mgoe.bundle import Bundle
from mgoe.bundle.training_state import REPLAY, replay_of, start_of
from mgoe.data import Encoders, Examples
from mgoe.errors import DataError
from mgoe.graph.moments import Moments
from mgoe.models import late_tables, make_model
from mgoe.pipeline.cell import check_finite
from mgoe.pipeline.plan import retraining_of
from mgoe.training import (
    Feed,
    Monitor,
    ProcessGroup,
    Replay,
    ReplayFeed,
    fit,
    load_checkpoint,
    predict,
    progress_bar,
    save_checkpoint,
)

logger = logging.getLogger(__name__)

HELD_OUT = 0.1
"""Share of the users whose new rows are not trained on."""
SPEC = "spec.json"
ROWS = "rows.safetensors"
"""The new rows, for the other processes."""


@dataclass(frozen=True)
class RetrainJob:
    """New rows, and what the weights of a bundle need to learn from them.

    Attributes:
        bundle: The bundle to start from; its graph, which rows are read from, does not hold them.
        known: Ids and side features; gives the number of users and items.
        examples: The new rows.
        folder: Where everything is written; an interrupted training resumes from there.
    """

    bundle: Bundle
    known: Encoders
    examples: Examples
    folder: Path

    def share(self, processes: ProcessGroup) -> None:
        """Give the job to the other processes, which call `receive`."""
        if processes.size > 1:
            self.folder.mkdir(exist_ok=True)
            for moments in self.bundle.moments.values():
                moments.save(self.folder / "moments")
            tensors = {name: torch.tensor(values) for name, values in _columns(self.examples)}
            save_checkpoint(self.folder / ROWS, tensors, {})
        processes.agree([str(path) for path in (self.known.path, self.folder)])

    @classmethod
    def receive(cls, bundle: Bundle, processes: ProcessGroup) -> Self:
        """Return the job that the first process shares."""
        known, folder = map(Path, processes.agree([]))
        tensors, _ = load_checkpoint(folder / ROWS)
        columns = {name: values.numpy() for name, values in tensors.items()}
        if "moment" in columns:
            bundle.moments = {0: Moments.open(folder / "moments")}
        context = {name: columns.pop(f"context.{name}") for name in bundle.encoders.context_features.sizes}
        return cls(bundle, Encoders(known), Examples(**columns, context=context), folder)


def learn(job: RetrainJob) -> NDArray[np.float32]:
    """Train on new rows, and write weights, optimiser state, `spec.json` and the rows to replay next time.

    Where processes have joined (`torchrun`), all of them make this call with the same job, and the first
    one writes.

    Args:
        job: What to learn.

    Returns:
        What the trained model predicts for all new rows. Shape (N, T).

    Raises:
        DataError: The rows are too few.
        TrainingError: The training failed, or a file beside the bundle is damaged.
    """
    bundle, examples = job.bundle, job.examples
    settings, before = bundle.settings, bundle.model.spec
    model = bundle.model_settings
    spec = replace(before, n_users=job.known.users.size, n_items=job.known.items.size)
    seed = abs(int(examples.bucket.max()))
    with late_tables():
        made = make_model(model, spec, seed)
    users, size = examples.user, spec.n_users
    if settings.data.user is None:  # each request has a number of its own
        size, users = len(examples), np.unique(users, return_inverse=True)[1]
    held = np.random.default_rng(seed).random(size)[users] < HELD_OUT
    train, apart = examples.take(~held), examples.take(held)
    training = retraining_of(settings, model)
    monitor = Monitor.parse(training.monitor, spec.tasks)
    if not len(train) or not monitor.is_defined(spec.tasks, apart.labels, apart.user):
        raise DataError(
            "the new rows",
            f"must be enough to learn from and to measure {monitor.text} on a tenth of the users, found "
            f"{len(examples):,}; wait for more, or keep the weights (mgoe update --weights keep)",
        )
    read = job.known, bundle.graph
    memory = replay_of(bundle)
    if memory is None:
        logger.info("no rows are replayed, because none are kept beside the bundle")
        feed = Feed(*read, train, made.needs, spec, bundle.moments)
    else:
        memory = memory.for_spec(before, spec, made.needs)
        number = round(settings.retrain.replay * len(train))
        feed = ReplayFeed(*read, train, made.needs, spec, memory, number, seed, bundle.moments)
    valid, every = (Feed(*read, rows, made.needs, spec, bundle.moments) for rows in (apart, examples))
    processes = ProcessGroup.current()
    together = f" in {processes.size} processes" if processes.size > 1 else ""
    logger.info(f"training on {len(train):,} new rows and {len(feed) - len(train):,} replayed ones{together}")
    with progress_bar(model.name, monitor.text) as on_progress:
        fit(
            made,
            feed,
            valid,
            training,
            job.folder,
            on_progress if processes.leads else None,
            seed,
            resume=True,
            start=start_of(bundle),
        )
    scores = predict(made, every)
    check_finite(model.name, {"the new rows": scores}, bundle.tasks)
    if processes.leads:
        most = settings.retrain.memory
        memory = Replay.of(every, most, seed) if memory is None else memory.joined(every, most, seed)
        memory.save(job.folder / REPLAY)
        write_text(job.folder / SPEC, spec.to_json())
    return scores


def _columns(examples: Examples) -> Iterator[tuple[str, NDArray]]:
    """Yield the columns of examples by name."""
    yield from ((name, values) for name, values in vars(examples).items() if isinstance(values, np.ndarray))
    yield from ((f"context.{name}", values) for name, values in examples.context.items())
