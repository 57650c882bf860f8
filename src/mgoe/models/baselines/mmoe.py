"""MMoE (Ma et al., KDD 2018), experts with one gate per task, and OMoE, its variant with one gate for all
tasks."""

from collections.abc import Collection

from pydantic import Field
from torch import Tensor

from mgoe.models.baselines.flat import AdditiveModel, BaselineOptions, FlatModel
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
