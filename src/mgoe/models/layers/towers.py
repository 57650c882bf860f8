"""Prediction towers, one a task from weakest to strongest, each told something by the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import StackedLinear, StackedMLP, for_products, uniform
from mgoe.models.layers.tables import SPREAD

Transfer = Literal["none", "concat", "add", "aitm"]


class Towers(nn.Module):
    """T MLPs and their logits, or M times T.

    What tower t hears of tower t-1's last hidden layer h is `p = ReLU(W h)`. `concat` reads p beside the inputs; `add` adds p to the
    tower's own last hidden layer; `aitm` weighs the two by AITM's attention (arXiv 2105.08489): `sum_v softmax_v(<K v, Q v>/sqrt(d)) V v`
    for v in (p, own).

    Args:
        tasks: T.
        common: Width of the inputs that all towers read; 0 for none.
        own: Width of the inputs that each has for itself; 0 for none.
        hidden: Widths of the hidden layers.
        transfer: What a tower hears of the one before.
        members: M, sets of towers side by side that know nothing of each other.
    """

    def __init__(
        self, tasks: int, common: int, own: int, hidden: Sequence[int], transfer: Transfer, members: int = 1
    ):
        super().__init__()
        last, heard = hidden[-1], members * (tasks - 1)
        self.tasks = tasks
        self.transfer: Transfer = transfer if tasks > 1 else "none"
        self.mlp = StackedMLP(members * tasks, common, own, hidden)
        self.out = StackedLinear(members * tasks, last, 1)
        self.told = StackedLinear(heard, last, last) if self.transfer != "none" else None
        self.heard = (
            uniform(heard, last, hidden[0], fan_in=common + own + last) if self.transfer == "concat" else None
        )
        self.value = StackedLinear(heard, last, 3 * last) if self.transfer == "aitm" else None

    def forward(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """(B, common) and (M T, B, own), the towers of a member side by side, -> logits (B, M T)."""
        return self.rest(self.mlp.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """From the first layers before their ReLU, (M T, B, hidden[0]), which may be overwritten. Logits (B, M T)."""
        if self.transfer == "concat":
            h = self._concat(first)
        else:
            h = self.mlp.rest(first)
            h = h if self.transfer == "none" else self._merge(h)
        return self.out(h).squeeze(2).T

    def _tell(self, t: int, h: Tensor) -> Tensor:
        assert self.told is not None
        return self.told.some(self._hearing(t), h).relu()

    def _hearing(self, t: int) -> slice:
        """Of what only towers that hear have: that of task t, of every member."""
        return slice(t - 1, None, self.tasks - 1)

    def _concat(self, first: Tensor) -> Tensor:
        assert self.heard is not None
        hidden: list[Tensor] = []
        for t in range(self.tasks):
            h = first[t :: self.tasks]
            if t:
                h = torch.baddbmm(h, self._tell(t, hidden[-1]), self.heard[self._hearing(t)])
            h = h.relu()
            for layer in self.mlp.deeper:
                assert isinstance(layer, StackedLinear)
                h = layer.some(slice(t, None, self.tasks), h).relu()
            hidden.append(h)
        return torch.stack(hidden, 1).flatten(0, 1)

    def _merge(self, own: Tensor) -> Tensor:
        hidden = [own[:: self.tasks]]
        for t in range(1, self.tasks):
            told, h = self._tell(t, hidden[-1]), own[t :: self.tasks]
            hidden.append(h + told if self.value is None else self._attend(t, told, h))
        return torch.stack(hidden, 1).flatten(0, 1)

    def _attend(self, t: int, told: Tensor, own: Tensor) -> Tensor:
        """(M, B, d) each -> (M, B, d)."""
        assert self.value is not None
        both = torch.cat([told, own], 1)
        query, key, value = self.value.some(self._hearing(t), both).unflatten(1, (2, -1)).chunk(3, 3)
        weights = ((query * key).sum(3).float() / math.sqrt(own.shape[2])).softmax(1)
        return (weights[..., None].to(value.dtype) * value).sum(1)


class MacroTaskTable(nn.Module):
    """Embeddings of the two table entries of each task: the macro nodes that the user, and the item, prefer under it."""

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
