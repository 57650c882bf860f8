"""Single-task: one network per task over shared embeddings (the first baseline of every multi-task paper)."""

from collections.abc import Collection
from typing import ClassVar

from torch import Tensor

from mgoe.models.baselines.flat import BaselineOptions, FlatModel
from mgoe.models.layers.stacked import Widths
from mgoe.models.layers.towers import Towers, Transfer
from mgoe.models.spec import Batch, FeatureSpec


class SingleTaskOptions(BaselineOptions):
    """Switches of single-task networks."""

    hidden: Widths = (128, 64)
    """Layers of a task's bottom; those of its tower follow."""


class SingleTask(FlatModel):
    """`y_t = tower_t(bottom_t(x))`: tasks share the input vector x, and no layer.

    All tasks share what makes up x: embeddings of nodes, categories and macro nodes, and summaries of the
    recents. Public comparisons of multi-task models do the same, and it gives every model the same budget of
    embeddings. A bottom has the layers of an expert of MMoE, and a tower those of any tower. A regression has
    a tower like any other task.
    """

    Options = SingleTaskOptions
    transfer: ClassVar[Transfer] = "none"
    """How a tower uses the one before."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: SingleTaskOptions):
        super().__init__(spec, inputs, options)
        layers = (*options.hidden, *options.tower_hidden)
        self.towers = Towers(len(spec.tasks), self.inputs.width, 0, layers, self.transfer)

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(self.inputs(batch), None)
