"""Baselines over every input as one vector: their base, single-task networks, and Shared-Bottom.

Axes: see `mgoe.models`; X is the width of the vector.
"""

from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.features import Part
from mgoe.models.base import RankingModel
from mgoe.models.decomposition import Additive, AdditiveDecomposition, Decomposition
from mgoe.models.layers.experts import MacroExperts
from mgoe.models.layers.inputs import DenseInputs, Knots, Nodes, Recents, TargetAttention
from mgoe.models.layers.stacked import StackedMLP, Towers, Transfer, Widths
from mgoe.models.spec import Batch, FeatureSpec, batch_keys


class BaselineOptions(Settings):
    """Switches that all baselines share.

    Example:
        >>> BaselineOptions(width=8).tower_hidden
        (64, 32)
    """

    width: int = Field(default=16, ge=1)
    """Width of category and macro node embeddings. A node's id row is T times as wide, the budget of MGOE's
    ids."""
    aggregate: int = Field(default=16, ge=1)
    """Width of each order's aggregate and of the recents' summaries."""
    tower_hidden: Widths = (64, 32)
    """Layers of the towers."""
    tau: float = Field(default=1.3, gt=0, allow_inf_nan=False)
    """Temperature of the edge weights (input group `aggregates`)."""
    mask_empty: bool = True
    """Give no weight to macro nodes without an edge."""
    edge_vectors: bool = True
    """Read the macro edges as numbers beside their aggregates, as MGOE does."""


class LayerOptions(BaselineOptions):
    """Switches of baselines whose experts, or bottoms of tasks, have layers.

    Example:
        >>> LayerOptions(hidden=[64]).hidden
        (64,)
    """

    hidden: Widths = (128, 64)
    """Layers of an expert, or of a task's bottom, which those of its tower follow."""


class FlatInputs(nn.Module):
    """All inputs as one vector: dense features, `[e_u, e_i]`, summaries of the recents, macro aggregates (one
    set for all tasks).

    Args:
        spec: Describes the batches.
        groups: Input groups to read.
        options: Widths.
        knots: Knots of piecewise-linear features.
        attention: What weighs recent neighbours.

    Example:
        >>> inputs = FlatInputs(spec, ("ids", "side"), BaselineOptions())
        >>> len(inputs.parts()) == inputs.width
        True
    """

    def __init__(
        self,
        spec: FeatureSpec,
        groups: Collection[str],
        options: BaselineOptions,
        knots: Knots = (),
        attention: type[TargetAttention] = TargetAttention,
    ):
        super().__init__()
        o = options
        self.dense = DenseInputs(spec, groups, o.width, o.edge_vectors, knots)
        self.by_id, recents = "ids" in groups, "recents" in groups
        row = o.width * len(spec.tasks) if self.by_id else o.width
        self.nodes = Nodes(spec, self.by_id, recents, row) if self.by_id or recents else None
        self.recents = Recents(spec, row, o.aggregate, attention) if recents else None
        self.macro = MacroExperts(spec, 1, **macro_switches(o)) if "aggregates" in groups else None
        ids = row if self.by_id else 0
        macro = self.macro.width // 2 if self.macro else 0
        self.widths: list[tuple[Part, int]] = [
            ("user", ids),
            ("item", ids),
            ("pair", self.recents.width if self.recents else 0),
            ("user", macro),
            ("item", macro),
        ]
        """Part and width of the columns after the dense features."""
        self.width = self.dense.width + sum(width for _, width in self.widths)
        if not self.width:
            raise nothing_to_read(groups)

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, X)."""
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

    def parts(self) -> list[Part]:
        """Return the part that each column belongs to; summaries of the recents belong to the pair."""
        return self.dense.parts() + [part for part, width in self.widths for _ in range(width)]

    def pair(self) -> Callable[[Batch], list[Tensor]]:
        """Return a reader of the pair's columns: dense ones, and summaries of the recents."""
        dense, nodes, recents = self.dense.pair(), self.nodes, self.recents
        if nodes is None or recents is None:
            return dense
        return lambda batch: [*dense(batch), recents(batch, nodes(batch))]

    def weights(self, batch: Batch) -> dict[str, Tensor]:
        """Return weights of macro nodes, (B, K), and of recent neighbours, (B, R), by batch key."""
        out = {} if self.macro is None else self.macro.weights(batch)
        if self.recents is not None and self.nodes is not None:
            out |= self.recents.weights(batch, self.nodes(batch))
        return out


def macro_switches(options: BaselineOptions) -> dict[str, Any]:
    """Return the switches of `MacroExperts`."""
    return options.model_dump(include={"width", "aggregate", "tau", "mask_empty"})


def nothing_to_read(groups: Collection[str]) -> ConfigError:
    """Return the error for inputs that leave a model without a number."""
    return ConfigError(
        "inputs", f"leave the model nothing to read, found {sorted(groups)}; add `counts` or `ids`"
    )


class FlatModel(RankingModel):
    """A model that reads all inputs as one vector."""

    attention: ClassVar[type[TargetAttention]] = TargetAttention
    """What weighs recent neighbours."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: Any, knots: Knots = ()):
        super().__init__(spec, inputs, options)
        self.inputs = FlatInputs(spec, inputs, options, knots, self.attention)


class AdditiveModel(FlatModel, Additive):
    """A flat model that can be decomposed after its first layers, whose `rest` reads `first` alone."""

    def logits(self, batch: Batch) -> Tensor:
        return self.rest(self.first(batch, self.inputs(batch)), batch)

    def decompose(self) -> Decomposition:
        nodes = self.inputs.nodes
        late = nodes.reads if nodes is not None and self.inputs.recents is not None else set()
        return AdditiveDecomposition(self, self.inputs, batch_keys(self.spec, self.needs), late)

    def explain(self, batch: Batch) -> dict[str, Tensor]:
        out, gates = self.inputs.weights(batch), self.expert_weights(batch)
        return out if gates is None else out | {"gates": gates.expand(-1, len(self.spec.tasks), -1)}


class SingleTask(FlatModel):
    """Single-task networks, the first baseline of every multi-task paper: `y_t = tower_t(bottom_t(x))`.

    Tasks share the input vector x, and no layer.

    All tasks share what makes up x: embeddings of nodes, categories and macro nodes, and summaries of the
    recents. Public comparisons of multi-task models do the same, and it gives every model the same budget of
    embeddings. A bottom has the layers of an expert of MMoE, and a tower those of any tower. A regression has
    a tower like any other task.

    Example:
        >>> from mgoe.models import neutral
        >>> SingleTask(spec, ("ids", "side"), LayerOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = LayerOptions
    transfer: ClassVar[Transfer] = "none"
    """How a tower uses the one before."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: LayerOptions):
        super().__init__(spec, inputs, options)
        layers = (*options.hidden, *options.tower_hidden)
        self.towers = Towers(len(spec.tasks), self.inputs.width, 0, layers, self.transfer)

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(self.inputs(batch), None)


class SharedBottomOptions(BaselineOptions):
    """Switches of Shared-Bottom.

    Example:
        >>> SharedBottomOptions(knots=[0.0]).knots
        (0.0,)
    """

    hidden: Widths | None = None
    """Layers of the bottom; by default (128 T, 64), as many parameters as MMoE's T experts of (128, 64)."""
    knots: Knots = ()
    """Knots of piecewise-linear features, as in MGOE. They separate the effect of its experts from that of
    its knots."""


class SharedBottom(AdditiveModel):
    """Shared-Bottom (Caruana, 1997): one MLP for all tasks, and one tower per task.

    Example:
        >>> from mgoe.models import neutral
        >>> SharedBottom(spec, ("ids", "side"), SharedBottomOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = SharedBottomOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: SharedBottomOptions):
        super().__init__(spec, inputs, options, options.knots)
        tasks = len(spec.tasks)
        self.bottom = StackedMLP(1, self.inputs.width, 0, options.hidden or (128 * tasks, 64))
        self.towers = Towers(tasks, self.bottom.width, 0, options.tower_hidden, "none")

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        return [self.bottom.first(x, None)]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return self.towers(self.bottom.rest(first[0]).squeeze(0), None)
