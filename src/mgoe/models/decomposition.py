"""A model taken apart by what it reads: of the user, of the item, of both. A service computes each part as seldom as it changes.

A first layer is linear, so its input `x = [x_u, x_i, x_p]` gives `x W = x_u W_u + x_i W_i + x_p W_p`: what the user adds is computed once
a request, what the item adds once a refresh, and only the few columns of the pair are left for every candidate (ours).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mgoe.models.spec import DENSE_KEYS, Batch, FeatureSpec

Owner: TypeAlias = Literal["user", "item", "pair"]
Owners: TypeAlias = Mapping[str, Sequence[Owner]]
"""Whose each column is, for batch keys that hold columns of several; `owner_of` says it of all others."""
OF_USER = ("user", "recent_items", "table_user", "u1", "u2", "context")
OF_ITEM = ("item", "recent_users", "table_item", "i1", "i2")


def owner_of(key: str) -> Owner:
    """Whose a batch key is. What is known of a request, as its context is, counts as the user's."""
    return "user" if key.startswith(OF_USER) else "item" if key.startswith(OF_ITEM) else "pair"


def expanded(batch: Batch, rows: int) -> Batch:
    """Keys with one row repeat it."""
    return {key: value.expand(rows, *value.shape[1:]) for key, value in batch.items()}


def neutral(spec: FeatureSpec) -> Batch:
    """One row that says nothing: nodes without history, and features of 0 or unknown."""
    cold = {
        "user": spec.n_users,
        "item": spec.n_items,
        "user_macro": spec.macro_users,
        "item_macro": spec.macro_items,
    }
    batch = {key: torch.tensor([code]) for key, code in cold.items()}
    for name, macro in (("recent_items", spec.macro_items), ("recent_users", spec.macro_users)):
        for key, value in ((name, -1), (f"{name}_task_mask", 0), (f"{name}_macro", macro)):
            batch[key] = torch.full((1, spec.recents), value)
    for key, macro in (("table_user", spec.macro_items), ("table_item", spec.macro_users)):
        batch[key] = torch.full((1, len(spec.tasks)), macro)
    for key, width in spec.widths.items():
        batch[key] = torch.zeros(1, width)
    for key, width in (
        ("u1", spec.macro_items),
        ("u2", spec.macro_users),
        ("i1", spec.macro_users),
        ("i2", spec.macro_items),
    ):
        batch[key] = torch.zeros(1, width)
    for kind in ("user_side", "item_side", "context"):
        for feature in getattr(spec, kind):
            batch[f"{kind}.{feature.name}"] = (
                torch.full((1, 1), -1) if feature.multi else torch.zeros(1, dtype=torch.int64)
            )
    return batch


class Decomposition(nn.Module):
    """How a model is served: `logits(batch) = join(user(batch), item(batch), batch)`, where `user` reads what is the user's and `item`
    what is the item's. This one computes nothing ahead, and so fits every model.

    Attributes:
        width: F, floats a row that `user` and `item` give.
        user_keys, item_keys, keys: What `user`, `item` and `join` read of a batch, where it is there. In `join` a key of the user's may
            have one row for all candidates.
        whole: Whether `join` reads all columns of mixed keys; else these hold the pair's columns alone.
    """

    width: int = 0
    whole: bool = True

    def __init__(self, model: Any, keys: Collection[str]):
        super().__init__()
        self.model = model
        self.user_keys, self.item_keys, self.keys = frozenset({"user"}), frozenset({"item"}), frozenset(keys)

    def user(self, batch: Batch) -> Tensor:
        """(1, F), or (B, F) where each candidate has a context of its own."""
        return torch.zeros(1, 0)

    def item(self, batch: Batch) -> Tensor:
        """(B, F)."""
        return torch.zeros(_rows(batch), 0)

    def join(self, user: Tensor, item: Tensor, batch: Batch) -> Tensor:
        """Logits (B, T)."""
        return self.model.logits(expanded(batch, item.shape[0]))


class Inputs(Protocol):
    """Inputs as one vector whose columns are the user's, the item's or of the pair."""

    def __call__(self, batch: Batch) -> Tensor: ...

    def owners(self, mixed: Owners) -> list[Owner]: ...

    def pair(self, mixed: Owners) -> Callable[[Batch], list[Tensor]]: ...


class Additive(Protocol):
    """A model that can be taken apart: `logits(batch) = rest(first(batch, x), batch)`, where x is the vector of its inputs.

    `first` gives parts (..., B, W) that are affine in x, and a sum of what the batch says of the user and what it says of the item.
    """

    spec: FeatureSpec

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]: ...

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor: ...


class AdditiveDecomposition(Decomposition):
    """`first(u, i, p) = first(u, 0, 0) + (first(0, i, 0) - first(0, 0, 0)) + x_p W_p`, with 0 for what says nothing.

    Args:
        model: What is taken apart.
        inputs: Its inputs.
        keys: All that it reads of a batch.
        owners: Whose the columns of mixed keys are.
        late: Which of the keys `rest` and the pair's inputs read, beside the dense ones.
    """

    whole = False
    weight: Tensor
    nothing: Tensor
    user_columns: Tensor
    item_columns: Tensor

    def __init__(
        self, model: Additive, inputs: Inputs, keys: Collection[str], owners: Owners, late: Collection[str]
    ):
        dense = [key for group in DENSE_KEYS.values() for key in group if key in keys]
        super().__init__(
            model, {*late, *(key for key in dense if "pair" in owners.get(key, (owner_of(key),)))}
        )
        self.inputs, self.pair = inputs, inputs.pair(owners)
        self.user_keys = frozenset(key for key in keys if "user" in owners.get(key, (owner_of(key),)))
        self.item_keys = frozenset(key for key in keys if "item" in owners.get(key, (owner_of(key),)))
        whose = inputs.owners(owners)
        for side in ("user", "item"):
            self.register_buffer(f"{side}_columns", torch.tensor([float(of == side) for of in whose]))
        self._none = {key: value for key, value in neutral(model.spec).items() if key in keys}
        with torch.no_grad():
            pair = torch.eye(len(whose))[[of == "pair" for of in whose]]
            nothing = model.first(self._none, torch.zeros(1, len(whose)))
            self._shapes = [(*part.shape[:-2], part.shape[-1]) for part in nothing]
            self.register_buffer("nothing", _flat(nothing))
            self.register_buffer(
                "weight", _flat(model.first(expanded(self._none, len(pair)), pair)) - self.nothing
            )
        self.width = self.nothing.shape[1]

    def user(self, batch: Batch) -> Tensor:
        return self._first(batch, self.user_keys, self.user_columns)

    def item(self, batch: Batch) -> Tensor:
        return self._first(batch, self.item_keys, self.item_columns) - self.nothing

    def join(self, user: Tensor, item: Tensor, batch: Batch) -> Tensor:
        batch = expanded(batch, item.shape[0])
        pair = self.pair(batch)
        first = (torch.addmm(item, torch.cat(pair, 1), self.weight) if pair else item) + user
        parts, start = [], 0
        for shape in self._shapes:
            width = torch.Size(shape).numel()
            parts.append(
                first[:, start : start + width]
                .unflatten(1, shape)
                .movedim(0, -2)
                .clone(memory_format=torch.contiguous_format)
            )
            start += width
        return self.model.rest(parts, batch)

    def _first(self, batch: Batch, keys: frozenset[str], columns: Tensor) -> Tensor:
        """What one side adds, with what there is without either. Shape (B, F)."""
        batch = {key: value for key, value in batch.items() if key in keys}
        whole = expanded(self._none | batch, _rows(batch))
        return _flat(self.model.first(whole, self.inputs(whole) * columns))


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """(..., B, W) each -> (B, F)."""
    return torch.cat([part.movedim(-2, 0).flatten(1) for part in parts], 1)


def _rows(batch: Batch) -> int:
    return max((value.shape[0] for value in batch.values()), default=1)
