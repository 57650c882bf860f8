"""Use a model without training it: predict every example of a feed, and look at its gates and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mgoe.training.balance import conflict
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.feed import Feed, some_rows, to_device

if TYPE_CHECKING:
    from mgoe.models import RankingModel

PREDICT_ROWS = 8192
WATCH_ROWS = 8192


def predict(model: RankingModel, feed: Feed, batch_size: int = PREDICT_ROWS) -> np.ndarray:
    """Predict every example of a feed, in float32 whatever the precision of training.

    If several processes train together, each predicts some batches and all receive all predictions. Batches
    are those of a single process, since matrix products of other shapes round differently.

    Returns:
        Probabilities, or values in the unit of the label, in the order of the examples. Shape (N, T).
    """
    device, processes = device_of(model), ProcessGroup.current()
    batches = -(-len(feed) // batch_size)
    mine = processes.share(batches)
    rows = slice(min(mine.start * batch_size, len(feed)), min(mine.stop * batch_size, len(feed)))
    idle = -(-batches // processes.size) - (mine.stop - mine.start)
    predictions = np.empty((rows.stop - rows.start, len(feed.spec.tasks)), np.float32)
    start = 0
    with evaluating(model):
        for batch in feed.batches(batch_size, device=device, rows=rows) if len(predictions) else ():
            values = model.predict(batch).float().cpu().numpy()
            predictions[start : start + len(values)] = values
            start += len(values)
        for _ in range(idle):  # others have one more batch, and sharded tables need all processes
            model.predict(to_device(feed.block(np.zeros(1, np.int64)), device))
    return processes.join(predictions)


def look_inside(model: RankingModel, feed: Feed) -> dict[str, Any]:
    """Return what a model shows of its inside on a seeded sample of a feed, as lists.

    Returns:
        `watch`: from the model itself, such as gate use per task. `conflict`: cosines of the tasks'
            gradients, shape (T, T).
    """
    rows = some_rows(len(feed), WATCH_ROWS, 0)
    batch = to_device(feed.block(rows), device_of(model))
    with evaluating(model):
        shown = {name: tensor.float().tolist() for name, tensor in model.watch(batch).items()}
        with torch.inference_mode(False):
            return {"watch": shown, "conflict": conflict(model, batch)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Disable gradients and dropout inside the block; the model's mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's weights; tables may be elsewhere, in a mapped file."""
    places = [parameter.device for parameter in model.parameters()] or [
        buffer.device for buffer in model.buffers()
    ]
    return next((place for place in places if place.type != "cpu"), places[0])
