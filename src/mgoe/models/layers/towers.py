"""Prediction towers, one per task from weakest to strongest, each receiving information from the one
before."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import StackedLinear, StackedMLP, for_products, uniform
from mgoe.models.layers.tables import SPREAD

Transfer = Literal["none", "concat", "aitm"]


class Towers(nn.Module):
    """T MLPs and their logits, or M times T.

    Tower t receives `p = ReLU(W h)`, with h the last hidden layer of tower t-1. `concat` reads p beside the
    inputs; `aitm` weighs p and the tower's own last hidden layer by AITM's attention (arXiv 2105.08489):
    `sum_v softmax_v(<K v, Q v>/sqrt(d)) V v` for v in (p, own).

    Args:
        tasks: T.
        common: Width of the inputs that all towers read; 0 for none.
        own: Width of the inputs that each tower has for itself; 0 for none.
        hidden: Widths of the hidden layers.
        transfer: How a tower uses the one before.
        members: M, the number of independent sets of towers.
    """

    def __init__(
        self, tasks: int, common: int, own: int, hidden: Sequence[int], transfer: Transfer, members: int = 1
    ):
        super().__init__()
        last, receivers = hidden[-1], members * (tasks - 1)
        self.tasks = tasks
        self.transfer: Transfer = transfer if tasks > 1 else "none"
        self.mlp = StackedMLP(members * tasks, common, own, hidden)
        self.out = StackedLinear(members * tasks, last, 1)
        self.message = self.read_message = self.attention = None
        if self.transfer != "none":
            self.message = StackedLinear(receivers, last, last)
        if self.transfer == "concat":
            self.read_message = uniform(receivers, last, hidden[0], fan_in=common + own + last)
        if self.transfer == "aitm":
            self.attention = StackedLinear(receivers, last, 3 * last)

    def forward(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """(B, common) and (M T, B, own), the towers of a member side by side, -> logits (B, M T)."""
        return self.rest(self.mlp.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """Return logits (B, M T) from the first layers before their ReLU, (M T, B, hidden[0]), which may be
        overwritten."""
        if self.transfer == "concat":
            h = self._concatenate(first)
        elif self.transfer == "aitm":
            h = self._attend(self.mlp.rest(first))
        else:
            h = self.mlp.rest(first)
        return self.out(h).squeeze(2).T

    def _receivers(self, t: int) -> slice:
        """Select task t, of every member, among the layers that only receiving towers have."""
        return slice(t - 1, None, self.tasks - 1)

    def _message(self, t: int, h: Tensor) -> Tensor:
        assert self.message is not None
        return self.message.some(self._receivers(t), h).relu()

    def _concatenate(self, first: Tensor) -> Tensor:
        assert self.read_message is not None
        hidden: list[Tensor] = []
        for t in range(self.tasks):
            h = first[t :: self.tasks]
            if t:
                h = torch.baddbmm(h, self._message(t, hidden[-1]), self.read_message[self._receivers(t)])
            h = h.relu()
            for layer in self.mlp.deeper:
                assert isinstance(layer, StackedLinear)
                h = layer.some(slice(t, None, self.tasks), h).relu()
            hidden.append(h)
        return torch.stack(hidden, 1).flatten(0, 1)

    def _attend(self, own: Tensor) -> Tensor:
        assert self.attention is not None
        hidden = [own[:: self.tasks]]
        for t in range(1, self.tasks):
            both = torch.cat([self._message(t, hidden[-1]), own[t :: self.tasks]], 1)  # (M, 2 B, d)
            projected = self.attention.some(self._receivers(t), both).unflatten(1, (2, -1))
            query, key, value = projected.chunk(3, 3)
            weights = ((query * key).sum(3).float() / math.sqrt(own.shape[2])).softmax(1)
            hidden.append((weights[..., None].to(value.dtype) * value).sum(1))
        return torch.stack(hidden, 1).flatten(0, 1)


class MacroTaskTable(nn.Module):
    """Embed the two table entries of each task: the macro nodes that the user and the item prefer under
    it."""

    first_item: Tensor
    first_user: Tensor

    def __init__(self, tasks: int, macro_users: int, macro_items: int, width: int):
        super().__init__()
        self.width = 2 * width
        self.of_user = nn.Embedding(tasks * (macro_items + 1), width)
        self.of_item = nn.Embedding(tasks * (macro_users + 1), width)
        for embedding in (self.of_user, self.of_item):
            nn.init.normal_(embedding.weight, 0, SPREAD)
        self.register_buffer("first_item", torch.arange(tasks) * (macro_items + 1), persistent=False)
        self.register_buffer("first_user", torch.arange(tasks) * (macro_users + 1), persistent=False)

    def forward(self, of_user: Tensor, of_item: Tensor) -> Tensor:
        """(B, T) item macro nodes and (B, T) user macro nodes -> (T, B, 2 * width)."""
        both = [self.of_user((of_user + self.first_item).T), self.of_item((of_item + self.first_user).T)]
        return for_products(torch.cat(both, 2))
