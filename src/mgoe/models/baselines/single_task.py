"""Single-task: a network a task over shared embeddings (the first baseline of every multi-task paper)."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import BaselineOptions, FlatInputs
from mgoe.models.layers.stacked import Widths
from mgoe.models.layers.towers import Towers, Transfer
from mgoe.models.spec import Batch, FeatureSpec


class SingleTaskOptions(BaselineOptions):
    """Switches of single-task networks."""

    hidden: Widths = (128, 64)
    """Layers of a task's bottom, which those of its tower follow."""


class SingleTask(RankingModel):
    """`y_t = tower_t(bottom_t(x))`: no layer is shared, the vector x of the inputs is.

    What makes up x serves all tasks: embeddings of nodes, categories and macro nodes, and the summaries of the recents. So do the public
    comparisons of multi-task models have it, and so the budget of embeddings is everyone's. A bottom has the layers of an expert of MMoE,
    a tower those of every other tower. A regression is a tower like the others.
    """

    Options = SingleTaskOptions
    transfer: ClassVar[Transfer] = "none"
    """What a tower hears of the one before."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: SingleTaskOptions):
        super().__init__(spec, inputs, options)
        self.inputs = FlatInputs(spec, inputs, options)
        self.towers = Towers(
            len(spec.tasks), self.inputs.width, 0, (*options.hidden, *options.tower_hidden), self.transfer
        )

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(self.inputs(batch), None)
