"""Layers that hold several copies (one per expert, or one per task) and run them as one product."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
"""Widths of an MLP's layers, as an option."""


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

    def some(self, copies: slice, x: Tensor) -> Tensor:
        """Run some of the copies: (n, B, inputs) -> (n, B, outputs)."""
        weight, bias = self.weight[copies], self.bias[copies]
        if len(weight) == 1:  # a batch of one product takes longer than the product
            return F.linear(x[0], weight[0].T, bias[0, 0])[None]
        return torch.baddbmm(bias, x, weight)


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
        self.deeper = nn.ModuleList(StackedLinear(copies, a, b) for a, b in itertools.pairwise(hidden))

    def first(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """Return the first layers before their activation: (B, common), (copies, B, own) -> (copies, B,
        hidden[0]).

        If consecutive copies share their own inputs, these may come once per group of copies, (groups, B,
        own).
        """
        h: Tensor = self.bias
        if self.own is not None and own is not None:
            groups = len(own)
            if groups < self.copies:
                weight, bias = (
                    p.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2) for p in (self.own, self.bias)
                )
                h = (
                    torch.baddbmm(bias, own, weight)
                    .unflatten(2, (self.copies // groups, -1))
                    .transpose(1, 2)
                    .flatten(0, 1)
                )
            else:
                h = torch.baddbmm(h, own, self.own)
        if self.common is not None and common is not None:
            h = h + self._apart(common @ self.common)
        return h

    def _apart(self, side_by_side: Tensor) -> Tensor:
        """(B, copies * width) -> (copies, B, width)."""
        return side_by_side.unflatten(1, (self.copies, -1)).transpose(0, 1)

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
