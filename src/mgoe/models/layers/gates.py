"""Gates: the weight of each expert per task."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import StackedLinear, StackedMLP


class Gates(nn.Module):
    """`g_t = softmax over experts (W_t q)`, `bottom_t = sum_s g_ts expert_s`.

    A single expert needs no gate: its weight is 1, and there is no parameter.

    Args:
        tasks: T; 1 if one gate serves all tasks.
        experts: S.
        query: Width of q.
        members: M, the number of sets of gates, each with S experts of its own.
        apart: Whether each member has a q of its own.
    """

    def __init__(self, tasks: int, experts: int, query: int, members: int = 1, apart: bool = False):
        super().__init__()
        self.experts, self.members = experts, members
        self.score: nn.Linear | StackedLinear | None = None
        self.gates = 0 if experts == 1 else tasks
        if self.gates:
            scores = self.gates * experts
            self.score = (
                StackedLinear(members, query, scores)
                if apart and members > 1
                else nn.Linear(query, members * scores)
            )

    def forward(self, query: Tensor) -> Tensor:
        """(B, query), or (M, B, query) if each member has its own -> weights (B, M T, S)."""
        if self.score is None:
            return query.new_ones((query.shape[-2], self.members, 1))
        scores = self.score(query if isinstance(self.score, StackedLinear) or query.dim() == 2 else query[0])
        return self.weights(scores if scores.dim() == 2 else scores.transpose(0, 1).flatten(1))

    def weights(self, scores: Tensor) -> Tensor:
        """Return the weights, (B, M T, S), from the scores, (B, M T S)."""
        return scores.float().unflatten(1, (-1, self.experts)).softmax(2)


class PartialGates(nn.Module):
    """Gates that each read some of the experts: the softmax of `W_g q_g` over these, and 0 for all others.

    Args:
        reads: Numbers of the experts that each gate reads, equally many for each. G rows.
        experts: S.
        common: Width of the query that all gates share; 0 for none.
        own: Width of the query of each gate; 0 for none.
        damps: Whether a gate with a single expert weighs it by a sigmoid; otherwise the weight is 1, without
            a parameter.
    """

    reads: Tensor

    def __init__(
        self, reads: Sequence[Sequence[int]], experts: int, common: int, own: int = 0, damps: bool = False
    ):
        super().__init__()
        self.experts = experts
        self.register_buffer("reads", torch.tensor(reads), persistent=False)
        gates, each = self.reads.shape
        self.score = StackedMLP(gates, common, own, (each,)) if each > 1 or damps else None

    def forward(self, common: Tensor | None, own: Tensor | None = None) -> Tensor:
        """(B, common) and (G, B, own) -> weights (B, G, S)."""
        gates, each = self.reads.shape
        query = own if common is None else common
        assert query is not None
        if self.score is None:
            weights = query.new_ones((gates, query.shape[-2], each), dtype=torch.float32)
        else:
            scores = self.score.first(common, own).float()
            weights = scores.softmax(2) if each > 1 else scores.sigmoid()
        places = self.reads.expand(weights.shape[1], -1, -1)
        return weights.new_zeros((*places.shape[:2], self.experts)).scatter(
            2, places, weights.transpose(0, 1)
        )


def mix(weights: Tensor, experts: Tensor, members: int = 1) -> Tensor:
    """Return each task's weighted sum of experts: (B, T, S), (S, B, W) -> (T, B, W); T is 1 if tasks share
    one gate.

    With several members, the weights (B, M T, S) are of each member's own S experts, (M S, B, W), and the
    sums are (M T, B, W).
    """
    by_gate = weights.to(experts.dtype).permute(1, 2, 0).unflatten(0, (members, -1)).contiguous()
    return _Mix.apply(by_gate, experts.unflatten(0, (members, -1))).flatten(0, 1)


class _Mix(torch.autograd.Function):
    """Sums of a few rows each; a batch of such small matrix products takes several times as long."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weights: Tensor, experts: Tensor) -> Tensor:
        """(M, T, S, B), (M, S, B, W) -> (M, T, B, W)."""
        return _summed(weights, experts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        weights, experts = ctx.saved_tensors
        return torch.linalg.vecdot(gradient[:, :, None], experts[:, None]), _summed(
            weights.transpose(1, 2), gradient
        )


def _summed(weights: Tensor, rows: Tensor) -> Tensor:
    """Return `sum_s weights[n, s] * rows[s]` per member: (M, N, S, B), (M, S, B, W) -> (M, N, B, W)."""
    total = weights[:, :, 0, :, None] * rows[:, None, 0]
    for s in range(1, rows.shape[1]):
        total = torch.addcmul(total, weights[:, :, s, :, None], rows[:, None, s])
    return total
