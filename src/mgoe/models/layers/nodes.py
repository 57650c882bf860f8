"""What stands for single users and items: rows of their ids or macro nodes, or projections of their features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mgoe.models.layers.inputs import DenseInputs
from mgoe.models.layers.stacked import for_products
from mgoe.models.layers.tables import table
from mgoe.models.spec import Batch, FeatureSpec


class NodeRows(NamedTuple):
    """What stands for the users and items of a batch; R is 0 where the recents are not read."""

    user: Tensor
    """(B, width)."""
    item: Tensor
    recent_items: Tensor
    """Of the user, (B, R, width); padding reads the last row."""
    recent_users: Tensor
    """Of the item."""


class Nodes(nn.Module):
    """Rows that stand for single users and items: those of their ids or, with ids off, their macro nodes' embeddings.

    Args:
        spec: What the batches hold.
        by_id: Whether ids are on.
        recents: Whether the recent neighbours are read.
        width: Of a row.
    """

    def __init__(self, spec: FeatureSpec, by_id: bool, recents: bool, width: int):
        super().__init__()
        self.suffix = "" if by_id else "_macro"
        self.recents, self.width = recents, width
        users, items = (spec.n_users, spec.n_items) if by_id else (spec.macro_users, spec.macro_items)
        self.users = table(users + 1, width, sparse=by_id)
        self.items = table(items + 1, width, sparse=by_id)

    @property
    def reads(self) -> set[str]:
        """Batch keys."""
        nodes = {f"user{self.suffix}", f"item{self.suffix}"}
        lists = ("recent_items", "recent_users") if self.recents else ()
        return nodes | {f"{name}{kind}" for name in lists for kind in ("", "_task_mask", self.suffix)}

    def forward(self, batch: Batch) -> NodeRows:
        user, recent_users = self._rows(self.users, batch, "user")
        item, recent_items = self._rows(self.items, batch, "item")
        return NodeRows(user, item, recent_items, recent_users)

    def _rows(self, rows: nn.Embedding, batch: Batch, node: str) -> tuple[Tensor, Tensor]:
        """One look-up a table: the sparse gradients of several would have to be added."""
        codes = batch[f"{node}{self.suffix}"][:, None]
        if self.recents:
            recents = batch[f"recent_{node}s{self.suffix}"]
            codes = torch.cat([codes, torch.where(recents < 0, rows.num_embeddings - 1, recents)], 1)
        target, recents = for_products(rows(codes)).split([1, codes.shape[1] - 1], 1)
        return target.squeeze(1), recents


class ProjectedNodes(nn.Module):
    """`e_u` and `e_i` with ids off: learned projections of a side's features and both sides' counts, of width 0 where there are none.

    Args:
        inputs: The dense inputs to project.
        copies: Vectors a node.
        width: Of each vector.
    """

    user_columns: Tensor
    item_columns: Tensor

    def __init__(self, inputs: DenseInputs, copies: int, width: int):
        super().__init__()
        user, item = inputs.columns("user_side", "counts"), inputs.columns("item_side", "counts")
        self.register_buffer("user_columns", torch.tensor(user, dtype=torch.int64), persistent=False)
        self.register_buffer("item_columns", torch.tensor(item, dtype=torch.int64), persistent=False)
        self.user = nn.Linear(len(user), copies * width) if user else None
        self.item = nn.Linear(len(item), copies * width) if item else None
        self.widths = (width * bool(user), width * bool(item))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs) -> (B, copies * width) each."""
        user = x[:, :0] if self.user is None else self.user(x[:, self.user_columns])
        item = x[:, :0] if self.item is None else self.item(x[:, self.item_columns])
        return user, item
