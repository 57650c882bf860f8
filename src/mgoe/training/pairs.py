"""Scoring pairs that share one snapshot, in blocks: what a bundle and a ranking of the whole catalogue do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.training.assemble import Graph, assemble
from mgoe.training.predict import device_of, evaluating, to_device

if TYPE_CHECKING:
    from mgoe.data import SideFeatures
    from mgoe.models import Batch, RankingModel

BLOCK_ROWS = 16_384
CPU_BLOCK_ROWS = 2_048
"""So many that what the layers put out stays near the core; a larger block comes from the system anew, page by page."""


class PairScorer:
    """Probabilities (or values) of pairs under a model, as of one snapshot.

    Args:
        model: With its weights.
        snapshot: The history that every pair reads, or what has become of it since.
        user_side, item_side: Encoded features by code.
        predict: What computes predictions in place of the model's own method.
    """

    def __init__(
        self,
        model: RankingModel,
        snapshot: Graph,
        user_side: SideFeatures,
        item_side: SideFeatures,
        predict: Callable[[Batch], torch.Tensor] | None = None,
    ):
        self._model = model
        self._predict = predict or model.predict
        self._snapshot = snapshot
        self._sides = {"user_side": user_side, "item_side": item_side}

    def __call__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Mapping[str, NDArray] | None = None
    ) -> NDArray[np.float32]:
        """Score pairs of codes; -1 is unseen. Encoded context has one row a pair. Shape (B, T)."""
        spec = self._model.spec
        out = np.empty((len(users), len(spec.tasks)), np.float32)
        device = device_of(self._model)
        rows = CPU_BLOCK_ROWS if device.type == "cpu" else BLOCK_ROWS
        with evaluating(self._model):
            for start in range(0, len(users), rows):
                part = slice(start, start + rows)
                inputs = assemble(
                    self._snapshot,
                    users[part],
                    items[part],
                    {name: values[part] for name, values in (context or {}).items()},
                    needs=self._model.needs,
                    spec=spec,
                    **self._sides,
                )
                batch = {
                    name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()
                }
                out[part] = self._predict(to_device(batch, device)).float().cpu().numpy()
        return out
