"""Experts of the macro graph, and the gates that weigh experts per task."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import StackedMLP, masked_softmax, uniform
from mgoe.models.layers.tables import SPREAD
from mgoe.models.spec import Batch, FeatureSpec

LEADS_TO: dict[str, Literal["user", "item"]] = {"u1": "item", "u2": "user", "i1": "user", "i2": "item"}
"""Side of the macro nodes that each order's edges lead to."""


def edge_weights(edges: Tensor, tau: float, mask_empty: bool) -> Tensor:
    """Return weights of macro nodes, `softmax_k(log(n_k + 1)/tau)` (paper; `mask_empty` is our correction).

    Args:
        edges: `log(n + 1)` of the edge to each macro node, 0 for no edge. Shape (B, K).
        tau: Temperature.
        mask_empty: Give no weight to macro nodes without an edge; a node without any edge then aggregates to
            zero.

    Returns:
        Shape (B, K).
    """
    logits = edges.float() / tau
    return masked_softmax(logits, edges > 0) if mask_empty else logits.softmax(-1)


class MacroExperts(nn.Module):
    """`h^s_o = w_o (E^s V^s_o)` for every expert s and order o, with `w_o` shared by all experts.

    `E^s V^s_o` is multiplied first, so that an order costs one (B, K) x (K, S*H) product and no (B, K, D) is
    formed. With attention to a target each expert has weights of its own, `softmax(log(n + 1)/tau + <Q E_k, K
    e_target>/sqrt(H))`.

    Args:
        spec: Describes the batches.
        experts: S.
        width: D, the width of a macro node's embedding.
        aggregate: H, the width of an aggregate.
        tau: Temperature of the edge weights.
        mask_empty: See `edge_weights`.
        second_order: Also read the edges of users to user macro nodes and of items to item macro nodes.
        shared_macro: Whether all experts read the same E.
        target: Width of the targets' vectors; 0 without attention.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        experts: int,
        *,
        width: int,
        aggregate: int,
        tau: float,
        mask_empty: bool,
        second_order: bool = True,
        shared_macro: bool = False,
        target: int = 0,
    ):
        super().__init__()
        self.experts, self.tau, self.mask_empty = experts, tau, mask_empty
        self.orders = [order for order in LEADS_TO if second_order or order.endswith("1")]
        self.width = len(self.orders) * aggregate
        copies = 1 if shared_macro else experts
        self.nodes = nn.ParameterDict(
            {
                "user": torch.randn(copies, spec.macro_users, width) * SPREAD,
                "item": torch.randn(copies, spec.macro_items, width) * SPREAD,
            }
        )
        self.value = nn.ParameterDict(
            {order: uniform(experts, width, aggregate, fan_in=width) for order in self.orders}
        )
        attending = self.orders if target else []
        self.query = nn.ParameterDict(
            {order: uniform(experts, width, aggregate, fan_in=width) for order in attending}
        )
        self.key = nn.ParameterDict(
            {order: uniform(experts, target, aggregate, fan_in=target) for order in attending}
        )
        self.scale = 1 / math.sqrt(aggregate)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the aggregates of the user and of the item, without targets.

        Args:
            batch: Holds `u1`, `u2`, `i1`, `i2`.

        Returns:
            (S, B, orders * H) each, 1st order first.
        """
        return (
            torch.cat([self.of_order(o, batch[o]) for o in self.orders if o.startswith("u")], 2),
            torch.cat([self.of_order(o, batch[o]) for o in self.orders if o.startswith("i")], 2),
        )

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weight of each macro node by order, (B, K)."""
        return {order: edge_weights(batch[order], self.tau, self.mask_empty) for order in self.orders}

    def of_order(self, order: str, edges: Tensor, target: Tensor | None = None) -> Tensor:
        """Aggregate one order: edges (B, K) and, for attention, the target (S, B, target) -> (S, B, H)."""
        nodes = self.nodes[LEADS_TO[order]]  # (S or 1, K, D)
        values = nodes @ self.value[order]  # (S, K, H)
        if target is None:  # one product for the values of every expert
            weights = edge_weights(edges, self.tau, self.mask_empty)
            return (
                (weights @ values.transpose(0, 1).flatten(1)).unflatten(1, (self.experts, -1)).transpose(0, 1)
            )
        affinity = torch.bmm(
            torch.bmm(target, self.key[order]), (nodes @ self.query[order]).transpose(1, 2)
        )  # (S, B, K)
        logits = affinity.float() * self.scale + edges / self.tau
        return torch.bmm(masked_softmax(logits, edges > 0) if self.mask_empty else logits.softmax(-1), values)


class Gates(nn.Module):
    """`g_t = softmax over experts (W_t q)`, `bottom_t = sum_s g_ts expert_s`.

    A single expert needs no gate: its weight is 1, and there is no parameter.

    Args:
        tasks: T; 1 if one gate serves all tasks.
        experts: S.
        query: Width of q.
    """

    def __init__(self, tasks: int, experts: int, query: int):
        super().__init__()
        self.experts = experts
        self.gates = 0 if experts == 1 else tasks
        self.score = nn.Linear(query, tasks * experts) if self.gates else None

    def forward(self, query: Tensor) -> Tensor:
        """(B, query) -> weights (B, T, S)."""
        if self.score is None:
            return query.new_ones((query.shape[-2], 1, 1))
        return self.weights(self.score(query))

    def weights(self, scores: Tensor) -> Tensor:
        """Return the weights, (B, T, S), from the scores, (B, T S)."""
        return scores.float().unflatten(1, (-1, self.experts)).softmax(2)


class PartialGates(nn.Module):
    """Gates that each read some of the experts: the softmax of `W_g q_g` over these, and 0 for all others. A
    single expert is weighed by a sigmoid.

    Args:
        reads: Numbers of the experts that each gate reads, equally many for each. G rows.
        experts: S.
        common: Width of the query that all gates share; 0 for none.
        own: Width of the query of each gate; 0 for none.
    """

    def __init__(self, reads: Sequence[Sequence[int]], experts: int, common: int, own: int = 0):
        super().__init__()
        self.experts = experts
        self.reads = nn.Buffer(torch.tensor(reads), persistent=False)
        gates, each = self.reads.shape
        self.score = StackedMLP(gates, common, own, (each,))

    def forward(self, common: Tensor | None, own: Tensor | None = None) -> Tensor:
        """(B, common) and (G, B, own) -> weights (B, G, S)."""
        scores = self.score.first(common, own).float()
        weights = scores.softmax(2) if scores.shape[2] > 1 else scores.sigmoid()
        places = self.reads.expand(weights.shape[1], -1, -1)
        return weights.new_zeros((*places.shape[:2], self.experts)).scatter(
            2, places, weights.transpose(0, 1)
        )


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Return each task's weighted sum of experts: (B, T, S), (S, B, W) -> (T, B, W); T is 1 if tasks share
    one gate."""
    return _Mix.apply(weights.to(experts.dtype).permute(1, 2, 0).contiguous(), experts)


class _Mix(torch.autograd.Function):
    """Sums of a few rows each; a batch of such small matrix products takes several times as long."""

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
        return torch.linalg.vecdot(gradient[:, None], experts), _summed(weights.transpose(0, 1), gradient)


def _summed(weights: Tensor, rows: Tensor) -> Tensor:
    """Return `sum_s weights[n, s] * rows[s]`: (N, S, B), (S, B, W) -> (N, B, W)."""
    total = weights[:, 0, :, None] * rows[0]
    for s in range(1, len(rows)):
        total = torch.addcmul(total, weights[:, s, :, None], rows[s])
    return total
