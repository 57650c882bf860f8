"""Layers that hold several copies (one per expert, or one per task) and run them as one product, and the
towers made of them."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mgoe.models.layers.tables import SPREAD

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
"""Widths of an MLP's layers, as an option."""
Transfer = Literal["none", "concat", "aitm"]
"""How a tower uses the one before, see `Towers`."""


def masked_softmax(logits: Tensor, keep: Tensor) -> Tensor:
    """Return the softmax over the last axis among `keep`; all zero where nothing is kept."""
    return logits.masked_fill(~keep, -1e30).softmax(-1) * keep


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Return a parameter drawn as in `nn.Linear`: uniform within 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def for_products(x: Tensor) -> Tensor:
    """Return the tensor in the type of matrix products, so that it is converted once for all products that
    read it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class StackedLinear(nn.Module):
    """`copies` linear layers, each on its own slice: (copies, B, inputs) -> (copies, B, outputs)."""

    def __init__(self, copies: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = uniform(copies, inputs, outputs, fan_in=inputs)
        self.bias = uniform(copies, 1, outputs, fan_in=inputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)

    def one(self, copy: int, x: Tensor) -> Tensor:
        """Run one of the copies: (B, inputs) -> (B, outputs). Runtimes fuse the bias into the product."""
        return torch.addmm(self.bias[copy], x, self.weight[copy])


class StackedMLP(nn.Module):
    """`copies` MLPs, each over [common inputs, its own inputs].

    The first layers of all copies are one product on the common inputs, (B, common) x (common, copies *
    hidden[0]).

    Args:
        copies: Number of MLPs.
        common: Width of the inputs that all MLPs read; 0 for none.
        own: Width of the inputs that each MLP has for itself; 0 for none.
        hidden: Widths of the layers.
        activation: Applied after every layer; may work in place.
    """

    def __init__(
        self,
        copies: int,
        common: int,
        own: int,
        hidden: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.relu_,
    ):
        super().__init__()
        self.copies, self.width, self.activation = copies, hidden[-1], activation
        fan_in = common + own
        self.common = uniform(common, copies * hidden[0], fan_in=fan_in) if common else None
        self.own = uniform(copies, own, hidden[0], fan_in=fan_in) if own else None
        self.bias = uniform(copies, 1, hidden[0], fan_in=fan_in)
        deeper = (StackedLinear(copies, a, b) for a, b in itertools.pairwise(hidden))
        self.deeper = nn.ModuleList(deeper)

    def first(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """Return the first layers before their activation: (B, common), (copies, B, own) -> (copies, B,
        hidden[0]).

        If all copies have the same own inputs, these may come once, (1, B, own).
        """
        h: Tensor = self.bias
        if self.own is not None and own is not None:
            if len(own) < self.copies:
                read = torch.addmm(self.bias.flatten(), own[0], self.own.transpose(0, 1).flatten(1))
                h = read.unflatten(1, (self.copies, -1)).transpose(0, 1)
            else:
                h = torch.baddbmm(h, own, self.own)
        if self.common is not None and common is not None:
            h = h + (common @ self.common).unflatten(1, (self.copies, -1)).transpose(0, 1)
        return h

    def forward(self, common: Tensor | None, own: Tensor | None = None) -> Tensor:
        """(B, common) and (copies, B, own), see `first`, -> (copies, B, hidden[-1])."""
        return self.rest(self.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """Run the rest on the first layers, which may be overwritten: (copies, B, hidden[0]) -> (copies, B,
        hidden[-1])."""
        h = self.activation(first)
        for layer in self.deeper:
            h = self.activation(layer(h))
        return h

    def deepened(self, copy: int, h: Tensor) -> Tensor:
        """Run the deeper layers of one copy, (B, hidden[0]) -> (B, hidden[-1]), one product at a time."""
        for layer in self.deeper:
            assert isinstance(layer, StackedLinear)
            h = self.activation(layer.one(copy, h))
        return h


class Towers(nn.Module):
    """Prediction towers, one per task from weakest to strongest, each receiving information from the one
    before: T MLPs and their logits.

    Tower t receives `p = ReLU(W h)`, with h the last hidden layer of tower t-1. `concat` reads p beside the
    inputs; `aitm` weighs p and the tower's own last hidden layer by AITM's attention (arXiv 2105.08489):
    `sum_v softmax_v(<K v, Q v>/sqrt(d)) V v` for v in (p, own).

    Args:
        tasks: T.
        common: Width of the inputs that all towers read; 0 for none.
        own: Width of the inputs that each tower has for itself; 0 for none.
        hidden: Widths of the hidden layers.
        transfer: How a tower uses the one before.
    """

    def __init__(self, tasks: int, common: int, own: int, hidden: Sequence[int], transfer: Transfer):
        super().__init__()
        last, receivers = hidden[-1], tasks - 1
        self.transfer: Transfer = transfer if tasks > 1 else "none"
        self.mlp = StackedMLP(tasks, common, own, hidden)
        self.out = StackedLinear(tasks, last, 1)
        self.message = StackedLinear(receivers, last, last) if self.transfer != "none" else None
        self.read_message = (
            uniform(receivers, last, hidden[0], fan_in=common + own + last)
            if self.transfer == "concat"
            else None
        )
        self.attention = StackedLinear(receivers, last, 3 * last) if self.transfer == "aitm" else None

    def forward(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """(B, common) and (T, B, own) -> logits (B, T)."""
        return self.rest(self.mlp.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """Return logits (B, T) from the first layers before their ReLU, (T, B, hidden[0]), which may be
        overwritten."""
        if self.transfer == "concat":
            h = self._concatenate(first)
        else:
            h = self.mlp.rest(first)
            h = self._attend(h) if self.transfer == "aitm" else h
        return self.out(h).squeeze(2).T

    def _message(self, t: int, h: Tensor) -> Tensor:
        assert self.message is not None
        return self.message.one(t - 1, h).relu()

    def _concatenate(self, first: Tensor) -> Tensor:
        assert self.read_message is not None
        hidden: list[Tensor] = []
        for t, h in enumerate(first.unbind()):
            if t:
                h = torch.addmm(h, self._message(t, hidden[-1]), self.read_message[t - 1])
            hidden.append(self.mlp.deepened(t, h.relu()))
        return torch.stack(hidden)

    def _attend(self, own: Tensor) -> Tensor:
        assert self.attention is not None
        hidden = [own[0]]
        for t in range(1, len(own)):
            both = torch.cat([self._message(t, hidden[-1]), own[t]])  # (2 B, d)
            projected = self.attention.one(t - 1, both)
            query, key, value = projected.unflatten(0, (2, -1)).chunk(3, 2)
            weights = ((query * key).sum(2).float() / math.sqrt(own.shape[2])).softmax(0)
            hidden.append((weights[..., None].to(value.dtype) * value).sum(0))
        return torch.stack(hidden)


class MacroTaskTable(nn.Module):
    """Embed the two table entries of each task: the macro nodes that the user and the item prefer under
    it."""

    def __init__(self, tasks: int, macro_users: int, macro_items: int, width: int):
        super().__init__()
        self.width = 2 * width
        self.of_user = nn.Embedding(tasks * (macro_items + 1), width)
        self.of_item = nn.Embedding(tasks * (macro_users + 1), width)
        for embedding in (self.of_user, self.of_item):
            nn.init.normal_(embedding.weight, 0, SPREAD)
        self.first_item = nn.Buffer(torch.arange(tasks) * (macro_items + 1), persistent=False)
        self.first_user = nn.Buffer(torch.arange(tasks) * (macro_users + 1), persistent=False)

    def forward(self, of_user: Tensor, of_item: Tensor) -> Tensor:
        """(B, T) item macro nodes and (B, T) user macro nodes -> (T, B, 2 * width)."""
        both = [self.of_user((of_user + self.first_item).T), self.of_item((of_item + self.first_user).T)]
        return for_products(torch.cat(both, 2))
