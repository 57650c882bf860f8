"""Prediction towers, one a task from weakest to strongest, each told something by the one before (spec 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mgoe.models.layers import StackedLinear, StackedMLP, for_products, uniform

Transfer = Literal["none", "concat", "add", "aitm"]


class Towers(nn.Module):
    """T MLPs and their logits.

    What tower t hears of tower t-1's last hidden layer h is `p = ReLU(W h)`. `concat` reads p beside the inputs; `add` adds p to the
    tower's own last hidden layer; `aitm` weighs the two by AITM's attention (arXiv 2105.08489): `sum_v softmax_v(<K v, Q v>/sqrt(d)) V v`
    for v in (p, own).

    Args:
        tasks: T.
        common: Width of the inputs that all towers read; 0 for none.
        own: Width of the inputs that each has for itself; 0 for none.
        hidden: Widths of the hidden layers.
        transfer: What a tower hears of the one before.
    """

    def __init__(self, tasks: int, common: int, own: int, hidden: Sequence[int], transfer: Transfer):
        super().__init__()
        last = hidden[-1]
        self.transfer: Transfer = transfer if tasks > 1 else "none"
        self.mlp = StackedMLP(tasks, common, own, hidden)
        self.out = StackedLinear(tasks, last, 1)
        self.told = StackedLinear(tasks - 1, last, last) if self.transfer != "none" else None
        self.heard = uniform(tasks - 1, last, hidden[0], fan_in=common + own + last) if self.transfer == "concat" else None
        self.value = StackedLinear(tasks - 1, last, 3 * last) if self.transfer == "aitm" else None

    def forward(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """(B, common) and (T, B, own) -> logits (B, T)."""
        return self.rest(self.mlp.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """From the first layers before their ReLU, (T, B, hidden[0]), which may be overwritten. Logits (B, T)."""
        if self.transfer == "concat":
            h = self._concat(first)
        else:
            h = self.mlp.rest(first)
            h = h if self.transfer == "none" else self._merge(h)
        return self.out(h).squeeze(2).T

    def _tell(self, t: int, h: Tensor) -> Tensor:
        assert self.told is not None
        return self.told.one(t - 1, h).relu()

    def _concat(self, first: Tensor) -> Tensor:
        assert self.heard is not None
        hidden: list[Tensor] = []
        for t, h in enumerate(first.unbind()):
            if t:
                h = torch.addmm(h, self._tell(t, hidden[-1]), self.heard[t - 1])
            h = h.relu()
            for layer in self.mlp.deeper:
                assert isinstance(layer, StackedLinear)
                h = layer.one(t, h).relu()
            hidden.append(h)
        return torch.stack(hidden)

    def _merge(self, own: Tensor) -> Tensor:
        hidden = [own[0]]
        for t in range(1, len(own)):
            told = self._tell(t, hidden[-1])
            hidden.append(own[t] + told if self.value is None else self._attend(t, torch.stack([told, own[t]])))
        return torch.stack(hidden)

    def _attend(self, t: int, both: Tensor) -> Tensor:
        """(2, B, d) -> (B, d)."""
        assert self.value is not None
        query, key, value = self.value.one(t - 1, both).chunk(3, 2)
        weights = ((query * key).sum(2).float() / math.sqrt(both.shape[2])).softmax(0)
        return (weights[:, :, None].to(value.dtype) * value).sum(0)


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
            nn.init.normal_(embedding.weight, 0, 0.05)
        self.register_buffer("first_item", torch.arange(tasks) * (macro_items + 1), persistent=False)
        self.register_buffer("first_user", torch.arange(tasks) * (macro_users + 1), persistent=False)

    def forward(self, of_user: Tensor, of_item: Tensor) -> Tensor:
        """(B, T) item macro nodes and (B, T) user macro nodes -> (T, B, 2 * width)."""
        both = [self.of_user((of_user + self.first_item).T), self.of_item((of_item + self.first_user).T)]
        return for_products(torch.cat(both, 2))
