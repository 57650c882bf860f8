"""Use a model without training it: predict the examples of a feed or pairs that share one snapshot, and look
at its gates and gradients."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgoe.features import Reader, Source
from mgoe.models import Batch, RankingModel
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.feed import Feed, some_rows, to_device

PREDICT_ROWS = 8192
WATCH_ROWS = 8192


def predict(model: RankingModel, feed: Feed, batch_size: int = PREDICT_ROWS) -> np.ndarray:
    """Predict every example of a feed, in float32 whatever the precision of training.

    If several processes train together, each predicts some batches and all receive all predictions. Batches
    are those of a single process, since matrix products of other shapes round differently.

    Returns:
        Probabilities, or values in the unit of the label, in the order of the examples. Shape (N, T).

    Example:
        >>> from mgoe.training import Feed
        >>> valid = Feed(prepared, graph, prepared.examples("valid"), bundle.model.needs, bundle.model.spec)
        >>> predict(bundle.model, valid).shape == (len(valid), 2)
        True
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
    """Return what a model shows of its inside on a seeded sample of a feed, such as gate use per task."""
    batch = to_device(feed.block(some_rows(len(feed), WATCH_ROWS, 0)), device_of(model))
    with evaluating(model):
        return {name: tensor.float().tolist() for name, tensor in model.watch(batch).items()}


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


PAIR_ROWS = 16_384
CPU_PAIR_ROWS = 2_048
"""So many that what the layers put out stays near the core; a larger block is allocated again, page by
page."""


class PairScorer:
    """Probabilities (or values) of pairs under a model, as of one snapshot.

    Args:
        model: With its weights.
        source: What every pair is read from: the view of a snapshot, or of a live state.
        predict: Computes predictions in place of the model's own method.

    Example:
        >>> PairScorer(bundle.model, bundle.view)(np.array([0, 0]), np.array([3, 4]), {}).shape
        (2, 2)
    """

    def __init__(
        self,
        model: RankingModel,
        source: Source,
        predict: Callable[[Batch], Tensor] | None = None,
    ):
        self._model, self._source = model, source
        self._predict = predict or model.predict
        self._read = Reader(model.needs, model.spec)

    def __call__(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray] | None = None,
        moments: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """Score pairs of indices; -1 is unseen. Encoded context has one row per pair. Moments (B,) are what
        pairs are read strictly before, if the source has any. Shape (B, T)."""
        out = np.empty((len(users), len(self._model.spec.tasks)), np.float32)
        device = device_of(self._model)
        rows = CPU_PAIR_ROWS if device.type == "cpu" else PAIR_ROWS
        with evaluating(self._model):
            for start in range(0, len(users), rows):
                part = slice(start, start + rows)
                own = {name: values[part] for name, values in (context or {}).items()}
                batch = self._batch(users[part], items[part], own, None if moments is None else moments[part])
                out[part] = self._predict(to_device(batch, device)).float().cpu().numpy()
        return out

    def weights(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Mapping[str, NDArray]
    ) -> dict[str, NDArray]:
        """Return what carried each score, one row per pair, see `RankingModel.explain`."""
        batch = to_device(self._batch(users, items, context), device_of(self._model))
        with evaluating(self._model):
            found = self._model.explain(batch)
        return {name: values.float().cpu().numpy() for name, values in found.items()}

    def _batch(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray],
        moments: NDArray[np.int64] | None = None,
    ) -> Batch:
        with self._source.reading() as view:
            inputs = self._read(view, users, items, context, moments)
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}
