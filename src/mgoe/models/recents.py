"""Micro neighbours: the last things a user did and the last users of an item, read with the target as the query."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mgoe.models.inputs import NodeRows
from mgoe.models.layers import uniform
from mgoe.models.spec import Batch, FeatureSpec


class TargetAttention(nn.Module):
    """One softmax over R neighbours, `<Q target, K neighbour>/sqrt(H) + log(1 + s(code))` (spec 4, inferred).

    Padding gets no weight, and a row of padding alone gives zero.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.query = uniform(inputs, width, fan_in=inputs)
        self.key = uniform(inputs, width, fan_in=inputs)
        self.value = uniform(inputs, width, fan_in=inputs)
        self.scale = 1 / math.sqrt(width)

    def forward(self, target: Tensor, neighbours: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        """(B, inputs), (B, R, inputs), (B, R), (B, R) bool -> (B, width)."""
        query = (target @ self.query) @ self.key.T  # Q and K folded: a key a neighbour is never formed
        logits = torch.bmm(neighbours, query[:, :, None]).squeeze(2).float() * self.scale + bonus
        weights = logits.masked_fill(~present, -1e30).softmax(1) * present
        return torch.bmm(weights[:, None], neighbours).squeeze(1) @ self.value


class Recents(nn.Module):
    """Summaries of both lists of recent neighbours, `[micro_u, micro_i]`, (B, 2 * width)."""

    gain: Tensor

    def __init__(self, spec: FeatureSpec, nodes_width: int, width: int):
        super().__init__()
        self.width = 2 * width
        self.items = TargetAttention(nodes_width, width)
        self.users = TargetAttention(nodes_width, width)
        self.register_buffer("gain", torch.tensor(spec.code_scores).log1p(), persistent=False)

    def forward(self, batch: Batch, rows: NodeRows) -> Tensor:
        of_user = self.items(rows.item, rows.recent_items, self._bonus(batch["recent_items_code"]), batch["recent_items"] >= 0)
        of_item = self.users(rows.user, rows.recent_users, self._bonus(batch["recent_users_code"]), batch["recent_users"] >= 0)
        return torch.cat([of_user, of_item], 1)

    def _bonus(self, codes: Tensor) -> Tensor:
        return self.gain[codes.clamp_min(0)]
