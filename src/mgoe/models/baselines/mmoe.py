"""MMoE (Ma et al., KDD 2018): experts that all read every input, and one gate per task."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field
from torch import Tensor

from mgoe.models.baselines.flat import AdditiveModel, BaselineOptions
from mgoe.models.layers.gates import Gates, mix
from mgoe.models.layers.stacked import StackedMLP, Widths
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class MMoEOptions(BaselineOptions):
    """Switches of MMoE."""

    experts: int | None = Field(default=None, ge=1)
    """Number of experts; by default as many as tasks, as in MGOE."""
    hidden: Widths = (128, 64)
    """Layers of an expert."""


class MMoE(AdditiveModel):
    """Multi-gate mixture of experts."""

    Options = MMoEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MMoEOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        experts = options.experts or tasks
        self.experts = StackedMLP(experts, self.inputs.width, 0, options.hidden)
        self.gates = Gates(tasks, experts, self.inputs.width)
        self.towers = Towers(tasks, 0, self.experts.width, options.tower_hidden, "none")

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        scores = [] if self.gates.score is None else [self.gates.score(x)]
        return [self.experts.first(x, None), *scores]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return self.towers(None, mix(self._weights(first), self.experts.rest(first[0])))

    def expert_weights(self, batch: Batch) -> Tensor:
        return self._weights(self.first(batch, self.inputs(batch)))

    def _weights(self, first: list[Tensor]) -> Tensor:
        """(B, T, S)."""
        return self.gates(first[0]) if self.gates.score is None else self.gates.weights(first[1])
