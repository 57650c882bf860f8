"""What the rivals have in common: one vector of every input they are given, and layers of the same widths."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.decomposition import AdditiveHalves, Halves, Owner, Owners
from mgoe.models.layers.experts import MacroExperts
from mgoe.models.layers.inputs import DenseInputs, Knots
from mgoe.models.layers.nodes import Nodes
from mgoe.models.layers.recents import Recents
from mgoe.models.layers.stacked import Widths
from mgoe.models.spec import Batch, FeatureSpec, batch_keys


class BaselineOptions(Settings):
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

    def __init__(
        self, spec: FeatureSpec, groups: Collection[str], options: BaselineOptions, knots: Knots = ()
    ):
        super().__init__()
        o = options
        self.dense = DenseInputs(spec, groups, o.width, o.edge_vectors, knots)
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
            raise ConfigError(
                "inputs", f"leave the model nothing to read, found {sorted(groups)}; add `counts` or `ids`"
            )

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

    def owners(self, mixed: Owners) -> list[Owner]:
        """Whose each column is; the recents' summaries are the pair's."""
        ids = self.nodes.width if self.nodes is not None and self.by_id else 0
        recents = self.recents.width if self.recents is not None else 0
        macro = self.macro.width // 2 if self.macro is not None else 0
        rest: list[tuple[Owner, int]] = [
            ("user", ids),
            ("item", ids),
            ("pair", recents),
            ("user", macro),
            ("item", macro),
        ]
        return self.dense.owners(mixed) + [side for side, width in rest for _ in range(width)]

    def pair(self, mixed: Owners) -> Callable[[Batch], list[Tensor]]:
        """Reads the pair's columns: dense ones, and summaries of the recents."""
        dense, nodes, recents = self.dense.pair(mixed), self.nodes, self.recents
        if nodes is None or recents is None:
            return dense
        return lambda batch: [*dense(batch), recents(batch, nodes(batch))]

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """Of macro nodes, (B, K), and of recent neighbours, (B, R), by the batch's key for them."""
        out = {} if self.macro is None else self.macro.weights(batch)
        if self.recents is not None and self.nodes is not None:
            out |= self.recents.weights(batch, self.nodes(batch))
        return out


class FlatModel(RankingModel):
    """A model whose first layers read everything as one vector, so that it can be taken apart there."""

    inputs: FlatInputs

    @abstractmethod
    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """What all later layers read, affine in x (B, X), each (..., B, W)."""

    @abstractmethod
    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Logits (B, T) from `first` alone."""

    def logits(self, batch: Batch) -> Tensor:
        return self.rest(self.first(batch, self.inputs(batch)), batch)

    def halves(self, owners: Owners) -> Halves:
        late = (
            self.inputs.nodes.reads
            if self.inputs.nodes is not None and self.inputs.recents is not None
            else set()
        )
        return AdditiveHalves(self, self.inputs, batch_keys(self.spec, self.needs), owners, late)

    def explain(self, batch: Batch) -> dict[str, Tensor]:
        return self.inputs.weights(batch)
