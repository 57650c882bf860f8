"""Predictions of a model for every example of a feed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mgoe.training.feed import Batch, Feed

if TYPE_CHECKING:
    from mgoe.models import RankingModel

PREDICT_ROWS = 8192


def predict(model: RankingModel, feed: Feed, batch_size: int = PREDICT_ROWS) -> np.ndarray:
    """Probabilities, or values in the units of the label, in the order of the examples. Always in float32, whatever it was trained in.

    Returns:
        Predictions. Shape (N, T).
    """
    device = device_of(model)
    predictions = np.empty((len(feed), len(feed.spec.tasks)), np.float32)
    start = 0
    with evaluating(model):
        for batch in feed.batches(batch_size, pin=device.type == "cuda"):
            values = model.predict(to_device(batch, device)).float().cpu().numpy()
            predictions[start : start + len(values)] = values
            start += len(values)
    return predictions


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


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, copied without waiting; the batch itself where it is there already."""
    return batch if device.type == "cpu" else {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device
