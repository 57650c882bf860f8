"""Experts that are linear, seen from the towers: how the paper's form is served (ours).

In that form an expert is what it reads, `z_s`, and tower t begins with `W_t sum_s g_ts z_s + c_t`. Gates add up to 1, so this is
`sum_s g_ts (W_t z_s + c_t)`: what stands in the brackets is a sum of the user's and the item's, and is computed ahead of a request. For
a candidate there remain the gates' softmax, a sum of S rows a tower, and the towers' deeper layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgoe.models.halves import AdditiveHalves
from mgoe.models.spec import Batch

if TYPE_CHECKING:
    from mgoe.models.mgoe import MGOE


class Folded(nn.Module):
    """An `Additive` model that computes what an MGOE in the paper's form does.

    Args:
        model: In form `paper`, whose gates read `experts`, `ids` or `inputs`.
    """

    def __init__(self, model: MGOE):
        super().__init__()
        self.model, self.spec = model, model.spec

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """First layers of the towers from each expert, (B, S * T * W), and scores of the gates, (B, G)."""
        model, layer = self.model, self.model.towers.mlp
        _, experts, *scores = model.first(batch, x)
        if model.gates.score is not None and not scores:
            scores = [model.gates.score(experts.transpose(0, 1).flatten(1))]
        assert layer.own is not None
        width = experts.shape[2]
        begun = torch.einsum("sbi,tio->bsto", experts, layer.own[:, :width]) + layer.bias[:, 0]
        if model.table is not None:
            entries = model.table(batch["table_user"], batch["table_item"])
            begun = begun + torch.einsum("tbi,tio->bto", entries, layer.own[:, width:])[:, None]
        if layer.common is not None:
            begun = begun + (x @ layer.common[: x.shape[1]]).unflatten(1, (layer.copies, -1))[:, None]
        return [begun.flatten(1), *scores]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Logits (B, T) from `first`, and from what the batch holds of recent neighbours."""
        model, layer = self.model, self.model.towers.mlp
        begun = first[0].unflatten(1, (model.gates.experts, layer.copies, -1))
        if model.gates.score is None:
            h = begun[:, 0]
        else:
            gates = model.gates.weights(first[1])  # (B, T or 1, S)
            h = gates[:, :, 0, None] * begun[:, 0]
            for s in range(1, model.gates.experts):
                h = h + gates[:, :, s, None] * begun[:, s]
        if model.recents is not None and model.nodes is not None:
            assert layer.common is not None
            recents = model.recents(batch, model.nodes(batch))
            h = h + (recents @ layer.common[-recents.shape[1] :]).unflatten(1, (layer.copies, -1))
        return model.towers.rest(h.transpose(0, 1))


class FoldedHalves(AdditiveHalves):
    """Those of a `Folded` model. Where the pair has nothing of its own, `join` is `towers` of a sum that can be made as rows are read."""

    model: Folded

    @property
    def mixed(self) -> tuple[int, int, int] | None:
        """Experts S, towers T and gates (T, 1 or 0) of a row, which is `[begun (S, T, W), scores (gates, S)]`; None: `join` reads more."""
        if self.keys:
            return None
        gates, towers = self.model.model.gates, self.model.model.towers.mlp.copies
        return gates.experts, towers, gates.gates

    def towers(self, h: Tensor) -> Tensor:
        """From the mixed first layers before their ReLU, (T, B, W), to logits (B, T)."""
        return self.model.model.towers.rest(h)
