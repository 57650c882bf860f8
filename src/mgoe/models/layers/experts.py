"""Macro graph experts: each has its own embeddings of the macro nodes; one product per order aggregates
all."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import masked_softmax, uniform
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
        self.user_orders = [order for order in self.orders if order.startswith("u")]
        self.width = len(self.orders) * aggregate
        sizes = {"user": spec.macro_users, "item": spec.macro_items}
        copies = 1 if shared_macro else experts
        self.nodes = nn.ParameterDict(
            {side: torch.randn(copies, size, width) * SPREAD for side, size in sizes.items()}
        )
        self.value = nn.ParameterDict(
            {order: uniform(experts, width, aggregate, fan_in=width) for order in self.orders}
        )
        self.query = nn.ParameterDict()
        self.key = nn.ParameterDict()
        self.scale = 1 / math.sqrt(aggregate)
        if target:
            self.query.update(
                {order: uniform(experts, width, aggregate, fan_in=width) for order in self.orders}
            )
            self.key.update(
                {order: uniform(experts, target, aggregate, fan_in=target) for order in self.orders}
            )

    def forward(
        self, batch: Batch, user: Tensor | None = None, item: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the aggregates of the user and of the item.

        Args:
            batch: Holds `u1`, `u2`, `i1`, `i2`.
            user: Vector of the user, the target of the item's edges. Shape (S, B, target); only attention
                reads it.
            item: Vector of the item, the target of the user's edges.

        Returns:
            (S, B, orders * H) each, 1st order first.
        """
        of_user = [self.of_order(order, batch[order], item) for order in self.user_orders]
        of_item = [
            self.of_order(order, batch[order], user) for order in self.orders if order not in self.user_orders
        ]
        return torch.cat(of_user, 2), torch.cat(of_item, 2)

    def weights(
        self, batch: Batch, user: Tensor | None = None, item: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the weight of each macro node by order, (B, K): with attention the mean over experts."""
        both = {order: item if order in self.user_orders else user for order in self.orders}
        weights = {order: self._weights(order, batch[order], target) for order, target in both.items()}
        return {order: values.mean(0) if values.dim() == 3 else values for order, values in weights.items()}

    def of_order(self, order: str, edges: Tensor, target: Tensor | None = None) -> Tensor:
        """Aggregate one order: edges (B, K) and, for attention, the target (S, B, target) -> (S, B, H)."""
        values = self.nodes[LEADS_TO[order]] @ self.value[order]  # (S, K, H)
        weights = self._weights(order, edges, target)
        return self._folded(weights, values) if weights.dim() == 2 else torch.bmm(weights, values)

    def _weights(self, order: str, edges: Tensor, target: Tensor | None) -> Tensor:
        """(B, K) for all experts, or (S, B, K)."""
        if order not in self.key or target is None:
            return edge_weights(edges, self.tau, self.mask_empty)
        nodes = self.nodes[LEADS_TO[order]]  # (S or 1, K, D)
        affinity = torch.bmm(
            torch.bmm(target, self.key[order]), (nodes @ self.query[order]).transpose(1, 2)
        )  # (S, B, K)
        logits = affinity.float() * self.scale + edges / self.tau
        return masked_softmax(logits, edges > 0) if self.mask_empty else logits.softmax(-1)

    def _folded(self, weights: Tensor, values: Tensor) -> Tensor:
        """Multiply `weights` (B, K) with the values of every expert (S, K, H), in one product.

        Shape (S, B, H).
        """
        return (weights @ values.transpose(0, 1).flatten(1)).unflatten(1, (self.experts, -1)).transpose(0, 1)
