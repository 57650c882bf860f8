"""Vectors of single users and items: rows of their ids or macro nodes, or projections of their features."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mgoe.models.layers.inputs import DenseInputs
from mgoe.models.layers.stacked import for_products
from mgoe.models.layers.tables import table
from mgoe.models.spec import Batch, FeatureSpec


class NodeRows(NamedTuple):
    """Vectors of the users and items of a batch; R is 0 if the recents are not read."""

    user: Tensor
    """(B, width)."""
    item: Tensor
    recent_items: Tensor
    """Recent items of the user, (B, R, width); padding reads the last row."""
    recent_users: Tensor
    """Recent users of the item, (B, R, width)."""


class Nodes(nn.Module):
    """Rows of single users and items: of their ids or, with ids off, of their macro nodes.

    Args:
        spec: Describes the batches.
        by_id: Whether ids are on.
        recents: Whether the recent neighbours are read.
        width: Width of a row.
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
        """Look up once per table: sparse gradients of several look-ups would have to be added."""
        codes = batch[f"{node}{self.suffix}"][:, None]
        if self.recents:
            recents = batch[f"recent_{node}s{self.suffix}"]
            codes = torch.cat([codes, torch.where(recents < 0, rows.num_embeddings - 1, recents)], 1)
        target, recents = for_products(rows(codes)).split([1, codes.shape[1] - 1], 1)
        return target.squeeze(1), recents


class ProjectedNodes(nn.Module):
    """`e_u` and `e_i` with ids off: projections of a side's features and both sides' counts, of width 0 if
    there are none.

    Args:
        inputs: The dense inputs to project.
        copies: Number of vectors per node.
        width: Width of each vector.
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
