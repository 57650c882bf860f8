"""Gates: how much each task takes from each expert."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gates(nn.Module):
    """`g_t = softmax over experts (W_t q)`, `bottom_t = sum_s g_ts expert_s`.

    One expert needs no gate: its weight is 1, and there is no parameter.

    Args:
        tasks: T.
        experts: S.
        query: Width of q.
        one: One gate for all tasks.
    """

    def __init__(self, tasks: int, experts: int, query: int, one: bool = False):
        super().__init__()
        self.tasks, self.experts = tasks, experts
        self.score = nn.Linear(query, experts if one else tasks * experts) if experts > 1 else None

    def forward(self, query: Tensor) -> Tensor:
        """(B, query) -> weights (B, T, S)."""
        if self.score is None:
            return query.new_ones((query.shape[0], self.tasks, 1))
        return self.weights(self.score(query))

    def weights(self, scores: Tensor) -> Tensor:
        """(B, G) as `score` gives them -> weights (B, T, S)."""
        return scores.float().unflatten(1, (-1, self.experts)).softmax(2).expand(-1, self.tasks, -1)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Each task's weighted sum of experts: (B, T, S), (S, B, W) -> (T, B, W)."""
    return torch.bmm(weights.to(experts.dtype), experts.transpose(0, 1)).transpose(0, 1)
