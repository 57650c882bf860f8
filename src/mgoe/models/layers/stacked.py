"""Layers that hold several copies (one per expert, or one per task) and run them as one product, and the
towers made of them."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
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
        members: M, the number of sets of deeper layers over the same first layers, see `Members`.
    """

    def __init__(
        self,
        copies: int,
        common: int,
        own: int,
        hidden: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        members: int = 1,
    ):
        super().__init__()
        self.copies, self.width, self.activation = copies, hidden[-1], activation
        fan_in = common + own
        self.common = uniform(common, copies * hidden[0], fan_in=fan_in) if common else None
        self.own = uniform(copies, own, hidden[0], fan_in=fan_in) if own else None
        self.bias = uniform(copies, 1, hidden[0], fan_in=fan_in)
        self.members = Members(members, copies, hidden[0]) if members > 1 else None
        deeper = (StackedLinear(members * copies, a, b) for a, b in itertools.pairwise(hidden))
        self.deeper = nn.ModuleList(deeper)

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
            h = h + (common @ self.common).unflatten(1, (self.copies, -1)).transpose(0, 1)
        return h

    def forward(self, common: Tensor | None, own: Tensor | None = None) -> Tensor:
        """(B, common) and (copies, B, own), see `first`, -> (copies, B, hidden[-1])."""
        return self.rest(self.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """Run the rest on the first layers, which may be overwritten: (copies, B, hidden[0]) -> (M copies, B,
        hidden[-1])."""
        h = self.activation(first if self.members is None else self.members(first))
        for layer in self.deeper:
            h = self.activation(layer(h))
        return h

    def deepened(self, copy: int, h: Tensor) -> Tensor:
        """Run the deeper layers of one copy, (B, hidden[0]) -> (B, hidden[-1]), one product at a time."""
        for layer in self.deeper:
            assert isinstance(layer, StackedLinear)
            h = self.activation(layer.one(copy, h))
        return h


class Members(nn.Module):
    """What tells members apart that share a first layer: each scales and shifts its units (after TabM, arXiv
    2410.24210). Scales start as random signs, so that members begin with different activations of
    the same units.

    Args:
        members: M.
        copies: S, the number of first layers.
        width: W, the units of each.
    """

    spread = 0.5
    """Standard deviation of shifts at the start."""

    def __init__(self, members: int, copies: int, width: int):
        super().__init__()
        self.scale = nn.Parameter(2.0 * torch.randint(2, (members, copies, 1, width)) - 1)
        self.shift = nn.Parameter(self.spread * torch.randn(members, copies, 1, width))

    def forward(self, first: Tensor) -> Tensor:
        """(S, B, W) -> (M S, B, W)."""
        kind = first.dtype
        return torch.addcmul(self.shift.to(kind), first, self.scale.to(kind)).flatten(0, 1)


class Towers(nn.Module):
    """Prediction towers, one per task from weakest to strongest, each receiving information from the one
    before: T MLPs and their logits, or M times T.

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
        self.message = StackedLinear(receivers, last, last) if self.transfer != "none" else None
        self.read_message = (
            uniform(receivers, last, hidden[0], fan_in=common + own + last)
            if self.transfer == "concat"
            else None
        )
        self.attention = StackedLinear(receivers, last, 3 * last) if self.transfer == "aitm" else None

    def forward(self, common: Tensor | None, own: Tensor | None) -> Tensor:
        """(B, common) and (M T, B, own), the towers of a member side by side, -> logits (B, M T)."""
        return self.rest(self.mlp.first(common, own))

    def rest(self, first: Tensor) -> Tensor:
        """Return logits (B, M T) from the first layers before their ReLU, (M T, B, hidden[0]), which may be
        overwritten."""
        if self.transfer == "concat":
            h = self._concatenate(first)
        else:
            h = self.mlp.rest(first)
            h = self._attend(h) if self.transfer == "aitm" else h
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
            projected = self.attention.some(self._receivers(t), both)
            query, key, value = projected.unflatten(1, (2, -1)).chunk(3, 3)
            weights = ((query * key).sum(3).float() / math.sqrt(own.shape[2])).softmax(1)
            hidden.append((weights[..., None].to(value.dtype) * value).sum(1))
        return torch.stack(hidden, 1).flatten(0, 1)


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
