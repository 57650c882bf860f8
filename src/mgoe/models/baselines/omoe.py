"""OMoE: a mixture of experts with one gate for all tasks (the one-gate model in Ma et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from mgoe.models.baselines.flat import FlatModel
from mgoe.models.baselines.mmoe import MMoEOptions
from mgoe.models.layers.gates import Gates, mix
from mgoe.models.layers.stacked import StackedMLP
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class OMoE(FlatModel):
    """`y_t = tower_t(sum_s g_s expert_s(x))` with `g = softmax(W x)`: every tower reads the same mix.

    Experts and towers are those of MMoE. A regression has a tower like any other task.
    """

    Options = MMoEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MMoEOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        self.experts = StackedMLP(options.experts or tasks, self.inputs.width, 0, options.hidden)
        self.gate = Gates(1, self.experts.copies, self.inputs.width)
        self.towers = Towers(tasks, self.experts.width, 0, options.tower_hidden, "none")

    def logits(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        return self.towers(mix(self.gate(x), self.experts(x)).squeeze(0), None)

    def expert_weights(self, batch: Batch) -> Tensor:
        return self.gate(self.inputs(batch))
