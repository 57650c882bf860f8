"""OMoE: a mixture of experts with one gate for all tasks (the one-gate model that Ma et al., KDD 2018, hold MMoE against)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import FlatInputs
from mgoe.models.baselines.mmoe import MMoEOptions
from mgoe.models.layers.gates import Gates, mix
from mgoe.models.layers.stacked import StackedMLP
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class OMoE(RankingModel):
    """`y_t = tower_t(sum_s g_s expert_s(x))` with `g = softmax(W x)`: the mix is made once and read by every tower.

    Experts and towers are those of MMoE. A regression is a tower like the others.
    """

    Options = MMoEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MMoEOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        self.inputs = FlatInputs(spec, inputs, options)
        self.experts = StackedMLP(options.experts or tasks, self.inputs.width, 0, options.hidden)
        self.gate = Gates(1, self.experts.copies, self.inputs.width)
        self.towers = Towers(tasks, self.experts.width, 0, options.tower_hidden, "none")

    def logits(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        return self.towers(mix(self.gate(x), self.experts(x)).squeeze(0), None)

    def watch(self, batch: Batch) -> dict[str, Tensor]:
        """`gates`: the mean weight of each expert, the same for each task, (T, S)."""
        with torch.no_grad():
            return {"gates": self.gate(self.inputs(batch)).mean(0).expand(len(self.spec.tasks), -1)}
