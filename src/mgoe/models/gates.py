"""Gates: how much each task takes from each expert."""

from __future__ import annotations

from typing import Any

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
        """(B, query) -> weights (B, T, S), or (B, 1, S) where one gate serves all tasks."""
        if self.score is None:
            return query.new_ones((query.shape[0], 1, 1))
        return self.weights(self.score(query))

    def weights(self, scores: Tensor) -> Tensor:
        """From what `score` gives, (B, G), what `forward` does."""
        return scores.float().unflatten(1, (-1, self.experts)).softmax(2)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Each task's weighted sum of experts: (B, T, S), (S, B, W) -> (T, B, W); T is 1 where one gate serves all tasks."""
    return _Mix.apply(weights.to(experts.dtype).permute(1, 2, 0).contiguous(), experts)


class _Mix(torch.autograd.Function):
    """Sums of a few rows each: a batch of so small matrix products takes several times as long."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, experts: Tensor) -> Tensor:
        """(T, S, B), (S, B, W) -> (T, B, W)."""
        return _summed(weights, experts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        weights, experts = ctx.saved_tensors
        return torch.linalg.vecdot(gradient[:, None], experts[None]), _summed(weights.transpose(0, 1), gradient)


def _summed(weights: Tensor, rows: Tensor) -> Tensor:
    """`sum_m weights[n, m] * rows[m]`: (N, M, B), (M, B, W) -> (N, B, W)."""
    total = weights[:, 0, :, None] * rows[0]
    for m in range(1, len(rows)):
        total = torch.addcmul(total, weights[:, m, :, None], rows[m])
    return total
