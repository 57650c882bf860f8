"""Looking at a model without training it: predictions for every example of a feed, and what it shows of its inside."""

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
    """Probabilities, or values in the units of the label, in the order of the examples. Always in float32, whatever it was trained in.

    Where processes have joined, each predicts some batches, and all of them get the whole. Batches are those of one process, since products
    of other shapes round otherwise, and metrics tell rows apart that are equal but for that.

    Returns:
        Predictions. Shape (N, T).
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
        for _ in range(idle):  # others have a batch more, and sharded tables answer only to all
            model.predict(to_device(feed.block(np.zeros(1, np.int64)), device))
    return processes.join(predictions)


def look_inside(model: RankingModel, feed: Feed) -> dict[str, Any]:
    """What a model shows of itself on a seeded sample of a feed, as lists.

    Returns:
        `watch`: of the model itself, such as gate use a task. `conflict`: cosines of the tasks' gradients (T, T).
    """
    rows = some_rows(len(feed), WATCH_ROWS, 0)
    batch = to_device(feed.block(rows), device_of(model))
    with evaluating(model):
        shown = {name: tensor.float().tolist() for name, tensor in model.watch(batch).items()}
        with torch.inference_mode(False):
            return {"watch": shown, "conflict": conflict(model, batch)}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; the model's mode comes back after."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are; tables may be beside it, in a file."""
    places = [parameter.device for parameter in model.parameters()] or [
        buffer.device for buffer in model.buffers()
    ]
    return next((place for place in places if place.type != "cpu"), places[0])
