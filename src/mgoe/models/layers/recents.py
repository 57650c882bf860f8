"""Recent neighbours: the last items of a user and the last users of an item, read with the target as
query."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers.nodes import NodeRows
from mgoe.models.layers.stacked import masked_softmax, uniform
from mgoe.models.spec import Batch, FeatureSpec


class TargetAttention(nn.Module):
    """One softmax over R neighbours, `<Q target, K neighbour>/sqrt(H) + log(1 + s(task mask))`.

    The paper gives no formula; this one is inferred. Padding gets no weight, and a row of padding alone gives
    zero.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.query = uniform(inputs, width, fan_in=inputs)
        self.key = uniform(inputs, width, fan_in=inputs)
        self.value = uniform(inputs, width, fan_in=inputs)
        self.scale = 1 / math.sqrt(width)

    def forward(self, target: Tensor, neighbours: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        """(B, inputs), (B, R, inputs), (B, R), (B, R) bool -> (B, width)."""
        weights = self.weights(target, neighbours, bonus, present)
        return torch.bmm(weights[:, None], neighbours).squeeze(1) @ self.value

    def weights(self, target: Tensor, neighbours: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        """Return the weight of each neighbour, (B, R)."""
        query = (target @ self.query) @ self.key.T  # Q and K folded: no key per neighbour is formed
        logits = torch.bmm(neighbours, query[:, :, None]).squeeze(2).float() * self.scale + bonus
        return masked_softmax(logits, present)


class Recents(nn.Module):
    """Summaries of both lists of recent neighbours, `[micro_u, micro_i]`, (B, 2 * width)."""

    gain: Tensor

    def __init__(self, spec: FeatureSpec, nodes_width: int, width: int):
        super().__init__()
        self.width = 2 * width
        self.items = TargetAttention(nodes_width, width)
        self.users = TargetAttention(nodes_width, width)
        self.register_buffer("gain", torch.tensor(spec.task_mask_scores).log1p(), persistent=False)

    def forward(self, batch: Batch, rows: NodeRows) -> Tensor:
        return torch.cat(
            [self.items(*self._reads(batch, rows, "items")), self.users(*self._reads(batch, rows, "users"))],
            1,
        )

    def weights(self, batch: Batch, rows: NodeRows) -> dict[str, Tensor]:
        """Return the weight of each recent neighbour, (B, R), by batch key."""
        items, users = self._reads(batch, rows, "items"), self._reads(batch, rows, "users")
        return {"recent_items": self.items.weights(*items), "recent_users": self.users.weights(*users)}

    def _reads(
        self, batch: Batch, rows: NodeRows, nodes: Literal["items", "users"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the target, its neighbours, the bonus of their tasks, and a mask of those that exist."""
        target, neighbours = (
            (rows.item, rows.recent_items) if nodes == "items" else (rows.user, rows.recent_users)
        )
        return (
            target,
            neighbours,
            self.gain[batch[f"recent_{nodes}_task_mask"].clamp_min(0)],
            batch[f"recent_{nodes}"] >= 0,
        )
