"""A model taken apart by what it reads: of the user, of the item, of both. A service computes each part as
seldom as it changes.

A first layer is linear, so its input `x = [x_u, x_i, x_p]` gives `x W = x_u W_u + x_i W_i + x_p W_p`: what
the user adds is computed once per request, what the item adds once per item, and only the few columns of the
pair are left for every candidate (ours). Which column belongs to which part follows from the owners that the
input groups declare.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mgoe.features import GROUPS, FeatureSpec, Key, Part, batch_keys
from mgoe.models.spec import Batch


def expanded(batch: Batch, rows: int) -> Batch:
    """Keys with one row repeat it.

    Example:
        >>> expanded({"user": torch.tensor([7])}, rows=3)["user"]
        tensor([7, 7, 7])
    """
    return {key: value.expand(rows, *value.shape[1:]) for key, value in batch.items()}


def neutral(spec: FeatureSpec, groups: Collection[str] = GROUPS) -> Batch:
    """Return one row that says nothing: nodes without history, and features that are 0 or unknown.

    Example:
        >>> set(neutral(spec)) == set(batch_keys(spec, GROUPS))
        True
    """
    return {name: torch.from_numpy(key.neutral()) for name, key in batch_keys(spec, groups).items()}


class Decomposition(nn.Module):
    """How a model is served: `logits(batch) = join(user(batch) + item(batch), batch)`, where `user` reads
    what is the user's and `item` what is the item's. This one computes nothing ahead, and so fits every
    model.

    Attributes:
        pieces: Floats of each piece of a row that `user` and `item` give.
        width: F, their sum.
        user_keys, item_keys, keys: What `user`, `item` and `join` read of a batch, where it is there. In
            `join` a key of the user's may have one row for all candidates.
        whole: Whether `join` reads all columns of mixed keys; else these hold the pair's columns alone.

    Example:
        >>> from mgoe.models import make_model, resolve
        >>> make_model(resolve("stem"), spec, seed=0).decompose().width
        0
    """

    pieces: tuple[int, ...] = (0,)
    whole: bool = True

    def __init__(self, model: Any, keys: Collection[str]):
        super().__init__()
        self.model = model
        self.user_keys, self.item_keys, self.keys = frozenset({"user"}), frozenset({"item"}), frozenset(keys)

    @property
    def width(self) -> int:
        return sum(self.pieces)

    def user(self, batch: Batch) -> Tensor:
        """(1, F), or (B, F) of several users, or where each candidate has a context of its own."""
        return torch.zeros(_rows(batch), 0)

    def item(self, batch: Batch) -> Tensor:
        """(B, F)."""
        return torch.zeros(_rows(batch), 0)

    def join(self, first: Tensor, batch: Batch) -> Tensor:
        """Logits (B, T) from what user and items give together, (B, F), and from the batch."""
        return self.rest(first.split(self.pieces, 1), batch)

    def rest(self, pieces: Sequence[Tensor], batch: Batch) -> Tensor:
        """The same from the pieces of these rows: a service has them apart, so that none is copied."""
        return self.model.logits(expanded(batch, pieces[0].shape[0]))


class Inputs(Protocol):
    """Inputs as one vector, each of whose columns belongs to one part."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """Return the vector of each row, (B, X)."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """Return the part of each column."""

    @abstractmethod
    def pair(self) -> Callable[[Batch], list[Tensor]]:
        """Return what reads the pair's columns, (B, columns or fewer) each."""


class Additive(Protocol):
    """A model that can be taken apart: `logits(batch) = rest(first(batch, x), batch)`, where x is the vector
    of its inputs."""

    spec: FeatureSpec

    @abstractmethod
    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """Return parts (..., B, W) that are affine in x, and a sum of what the batch says of the user and
        what it says of the item."""

    @abstractmethod
    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Return logits (B, T)."""


class AdditiveDecomposition(Decomposition):
    """`first(u, i, p) = first(u, 0, 0) + (first(0, i, 0) - first(0, 0, 0)) + x_p W_p`, with 0 for what says
    nothing.

    Args:
        model: What is taken apart.
        inputs: Its inputs.
        keys: Everything that it reads of a batch.
        late: The keys that `rest` and the pair's inputs read besides the pair's own.

    Example:
        >>> from mgoe.models import make_model, resolve
        >>> parts = make_model(resolve("mmoe"), spec, seed=0).decompose()
        >>> row = neutral(spec)
        >>> parts.join(parts.user(row) + parts.item(row), row).shape
        torch.Size([1, 2])
    """

    whole = False

    def __init__(self, model: Additive, inputs: Inputs, keys: Mapping[str, Key], late: Collection[str]):
        own = {name for name, key in keys.items() if key.kind != "index" and "pair" in key.parts}
        super().__init__(model, {*late, *own})
        self.inputs, self.pair = inputs, inputs.pair()
        self.user_keys = frozenset(name for name, key in keys.items() if "user" in key.parts)
        self.item_keys = frozenset(name for name, key in keys.items() if "item" in key.parts)
        parts = inputs.parts()
        self.user_columns = nn.Buffer(torch.tensor([float(of == "user") for of in parts]))
        self.item_columns = nn.Buffer(torch.tensor([float(of == "item") for of in parts]))
        self._none = {name: torch.from_numpy(key.neutral()) for name, key in keys.items()}
        with torch.no_grad():
            pair = torch.eye(len(parts))[[of == "pair" for of in parts]]
            nothing = model.first(self._none, torch.zeros(1, len(parts)))
            self.nothing = nn.Buffer(_flat(nothing))
            self.weight = nn.Buffer(_flat(model.first(expanded(self._none, len(pair)), pair)) - self.nothing)
        shapes = [(*part.shape[:-2], part.shape[-1]) for part in nothing]
        self._shapes, self.pieces = shapes, tuple(map(math.prod, shapes))

    def user(self, batch: Batch) -> Tensor:
        return self._first(batch, self.user_keys, self.user_columns)

    def item(self, batch: Batch) -> Tensor:
        return self._first(batch, self.item_keys, self.item_columns) - self.nothing

    def rest(self, pieces: Sequence[Tensor], batch: Batch) -> Tensor:
        batch = expanded(batch, pieces[0].shape[0])
        if pair := self.pair(batch):
            read, weights = torch.cat(pair, 1), self.weight.split(self.pieces, 1)
            pieces = [torch.addmm(piece, read, w) for piece, w in zip(pieces, weights, strict=True)]
        parts = [_unfolded(piece, shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return self.model.rest(parts, batch)

    def _first(self, batch: Batch, keys: frozenset[str], columns: Tensor) -> Tensor:
        """What one side adds, with what there is without either. Shape (B, F)."""
        batch = {key: value for key, value in batch.items() if key in keys}
        whole = expanded(self._none | batch, _rows(batch))
        return _flat(self.model.first(whole, self.inputs(whole) * columns))


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """(..., B, W) each -> (B, F)."""
    return torch.cat([part.movedim(-2, 0).flatten(1) for part in parts], 1)


def _unfolded(piece: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, ... W) -> (..., B, W)."""
    apart = piece.unflatten(1, shape).movedim(0, -2)
    return apart.clone(memory_format=torch.contiguous_format) if len(shape) > 1 else piece


def _rows(batch: Batch) -> int:
    return max((value.shape[0] for value in batch.values()), default=1)
