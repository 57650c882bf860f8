"""What the rivals have in common: one vector of every input they are given, and equal capacity."""

from __future__ import annotations

from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import InputGroup, Settings
from mgoe.errors import ConfigError
from mgoe.models.experts import MacroExperts
from mgoe.models.inputs import DenseInputs, Nodes
from mgoe.models.layers import Widths
from mgoe.models.recents import Recents
from mgoe.models.spec import Batch, FeatureSpec


class RivalOptions(Settings):
    """Switches of all of them."""

    width: int = Field(default=16, ge=1)
    """Of category and macro node embeddings, and of ids a task: a node's id row has T times as much, the budget of MGOE's ids."""
    aggregate: int = Field(default=16, ge=1)
    """Of each order's aggregate and of the recents' summaries."""
    tower_hidden: Widths = (64, 32)
    tau: float = Field(default=1.3, gt=0, allow_inf_nan=False)
    """Temperature of the edge weights (input group `aggregates`)."""
    mask_empty: bool = True
    """No weight for macro nodes without an edge."""
    edge_vectors: bool = True
    """Read the macro edges as numbers beside their aggregates, as MGOE does."""


class FlatInputs(nn.Module):
    """Everything as one vector: dense features, `[e_u, e_i]`, summaries of the recents, macro aggregates (one set for all tasks)."""

    def __init__(self, spec: FeatureSpec, groups: Collection[InputGroup], options: RivalOptions):
        super().__init__()
        o = options
        self.dense = DenseInputs(spec, groups, o.width, o.edge_vectors)
        self.by_id = "ids" in groups
        nodes_width = o.width * len(spec.tasks) if self.by_id else o.width
        recents = "recents" in groups
        self.nodes = Nodes(spec, self.by_id, recents, nodes_width) if self.by_id or recents else None
        self.recents = Recents(spec, nodes_width, o.aggregate) if recents else None
        self.macro = (
            MacroExperts(spec, 1, width=o.width, aggregate=o.aggregate, tau=o.tau, mask_empty=o.mask_empty)
            if "aggregates" in groups
            else None
        )
        self.width = (
            self.dense.width
            + 2 * nodes_width * self.by_id
            + (self.recents.width if self.recents else 0)
            + (self.macro.width if self.macro else 0)
        )
        if not self.width:
            raise ConfigError("inputs", f"leave the model nothing to read, found {sorted(groups)}; add `counts` or `ids`")

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, width)."""
        parts = [self.dense(batch)]
        if self.nodes is not None:
            rows = self.nodes(batch)
            if self.by_id:
                parts += [rows.user, rows.item]
            if self.recents is not None:
                parts.append(self.recents(batch, rows))
        if self.macro is not None:
            parts += [aggregate.squeeze(0) for aggregate in self.macro(batch)]
        return torch.cat(parts, 1)
