"""A model of your own beside MGOE: a cross network (DCN-V2, arXiv 2008.13535) in forty lines.

A model is a class: its switches (`Options`), its layers, and `logits` for a batch. Loss, missing labels,
regression tasks, position bias, sparse tables, training, comparison and the bundle come from `RankingModel`
and the rest of the library. Name it by its import path:

    models:
      - mgoe
      - name: cross
        base: "own_model:CrossNetwork"
        inputs: [side, context, counts, pair, sketch, edges, aggregates]
        options: {crosses: 3}

and let Python find the file:

    PYTHONPATH=examples mgoe run config.yaml --out runs/cross
"""

from collections.abc import Collection

from pydantic import Field
from torch import Tensor, nn

from mgoe.models import BaselineOptions, Batch, FeatureSpec, FlatInputs, RankingModel


class CrossOptions(BaselineOptions):
    """Switches, checked when the YAML is read: an unknown name is refused with the nearest one."""

    crosses: int = Field(default=2, ge=1)
    """Depth of the cross network."""


class CrossNetwork(RankingModel):
    """`x_{l+1} = x_0 * (W x_l + b) + x_l`, shared by all tasks, and a linear head per task."""

    Options = CrossOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: CrossOptions):
        super().__init__(spec, inputs, options)
        self.inputs = FlatInputs(spec, inputs, options)
        width = self.inputs.width
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(options.crosses))
        self.towers = nn.Linear(width, len(spec.tasks))

    def logits(self, batch: Batch) -> Tensor:
        """Shape (B, T)."""
        first = x = self.inputs(batch)
        for cross in self.crosses:
            x = first * cross(x) + x
        return self.towers(x)
