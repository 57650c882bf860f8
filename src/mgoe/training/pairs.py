"""Scoring pairs that share one snapshot, in blocks: what a bundle and a ranking of the whole catalogue do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.features import Reader, Source
from mgoe.training.predict import device_of, evaluating, to_device

if TYPE_CHECKING:
    from mgoe.models import Batch, RankingModel

BLOCK_ROWS = 16_384
CPU_BLOCK_ROWS = 2_048
"""So many that what the layers put out stays near the core; a larger block is allocated again, page by
page."""


class PairScorer:
    """Probabilities (or values) of pairs under a model, as of one snapshot.

    Args:
        model: With its weights.
        source: What every pair is read from: the view of a snapshot, or of a live state.
        predict: Computes predictions in place of the model's own method.
    """

    def __init__(
        self,
        model: RankingModel,
        source: Source,
        predict: Callable[[Batch], torch.Tensor] | None = None,
    ):
        self._model, self._source = model, source
        self._predict = predict or model.predict
        self._read = Reader(model.needs, model.spec)

    def __call__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Mapping[str, NDArray] | None = None
    ) -> NDArray[np.float32]:
        """Score pairs of indices; -1 is unseen. Encoded context has one row per pair. Shape (B, T)."""
        out = np.empty((len(users), len(self._model.spec.tasks)), np.float32)
        device = device_of(self._model)
        rows = CPU_BLOCK_ROWS if device.type == "cpu" else BLOCK_ROWS
        with evaluating(self._model):
            for start in range(0, len(users), rows):
                part = slice(start, start + rows)
                own = {name: values[part] for name, values in (context or {}).items()}
                with self._source.reading() as view:
                    inputs = self._read(view, users[part], items[part], own)
                batch = {
                    name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()
                }
                out[part] = self._predict(to_device(batch, device)).float().cpu().numpy()
        return out
