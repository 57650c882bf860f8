"""Baselines whose experts serve all tasks: OMoE, MMoE and MetaHeac."""

from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.models.baselines.flat import AdditiveModel, FlatModel, LayerOptions
from mgoe.models.layers.experts import Gates, mix
from mgoe.models.layers.stacked import StackedLinear, StackedMLP, Towers
from mgoe.models.layers.tables import SPREAD
from mgoe.models.spec import Batch, FeatureSpec


class MMoEOptions(LayerOptions):
    """Switches of MMoE.

    Example:
        >>> MMoEOptions(experts=4).hidden
        (128, 64)
    """

    experts: int | None = Field(default=None, ge=1)
    """Number of experts; by default as many as tasks, as in MGOE."""


class MMoE(AdditiveModel):
    """MMoE, multi-gate mixture of experts (Ma et al., KDD 2018): one gate per task.

    Example:
        >>> from mgoe.models import neutral
        >>> MMoE(spec, ("ids", "side"), MMoEOptions(experts=4)).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = MMoEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MMoEOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        self.experts = StackedMLP(options.experts or tasks, self.inputs.width, 0, options.hidden)
        self.gates = Gates(tasks, self.experts.copies, self.inputs.width)
        self.towers = Towers(tasks, 0, self.experts.width, options.tower_hidden, "none")

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        return [self.experts.first(x, None), *([] if self.gates.score is None else [self.gates.score(x)])]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return self.towers(None, mix(self._weights(first), self.experts.rest(first[0])))

    def expert_weights(self, batch: Batch) -> Tensor:
        return self._weights(self.first(batch, self.inputs(batch)))

    def _weights(self, first: list[Tensor]) -> Tensor:
        """(B, T, S)."""
        return self.gates(first[0]) if self.gates.score is None else self.gates.weights(first[1])


class OMoE(FlatModel):
    """OMoE, the variant of MMoE with one gate for all tasks: `y_t = tower_t(sum_s g_s expert_s(x))` with `g =
    softmax(W x)`, so every tower reads the same mix.

    Experts and towers are those of MMoE. A regression has a tower like any other task.

    Example:
        >>> from mgoe.models import neutral
        >>> OMoE(spec, ("ids", "side"), MMoEOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
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


class TaskGate(nn.Module):
    """One gate that reads the task: `softmax(W [x, e_t] + b)`. W is split, so that no (B, T, ...) input is
    formed.

    Args:
        inputs: Width of x.
        width: Width of e_t.
        choices: Number of experts or critics to weigh.
    """

    def __init__(self, inputs: int, width: int, choices: int):
        super().__init__()
        self.of_inputs = nn.Linear(inputs, choices)
        self.of_task = nn.Linear(width, choices, bias=False)

    def forward(self, x: Tensor, tasks: Tensor) -> Tensor:
        """(B, inputs) and (T, width) -> weights (B, T, choices)."""
        return (self.of_inputs(x)[:, None] + self.of_task(tasks)).float().softmax(2)


class MetaHeac(FlatModel):
    """MetaHeac, meta hybrid experts and critics (Zhu, Liu, Xie et al., KDD 2021, arXiv 2105.14688).

    Experts and critics that all tasks share, and gates that know a task only by its embedding `e_t`:

    ```text
    h_t = sum_s softmax_s(W_e [x, e_t]) expert_s(x)          y_t = sum_c softmax_c(W_c [x, e_t]) critic_c(h_t)
    ```

    A critic is a tower that judges every task; there are as many as tasks. Deviation: the paper trains in two
    steps, as meta-learning, for campaigns that are new in production; here tasks are fixed, and everything is
    trained in one step like every other model, as in public comparisons. Experts are those of MMoE, and every
    critic runs on every task, as published. The value of a regression is the weighted sum of the critics.

    Example:
        >>> from mgoe.models import neutral
        >>> MetaHeac(spec, ("ids", "side"), MMoEOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = MMoEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MMoEOptions):
        super().__init__(spec, inputs, options)
        tasks, width, o = len(spec.tasks), self.inputs.width, options
        experts = o.experts or tasks
        self.experts = StackedMLP(experts, width, 0, o.hidden)
        self.critics = StackedMLP(tasks, self.experts.width, 0, o.tower_hidden)
        self.verdict = StackedLinear(tasks, self.critics.width, 1)
        self.expert_gate = TaskGate(width, o.width, experts) if experts > 1 else None
        self.critic_gate = TaskGate(width, o.width, tasks) if tasks > 1 else None
        self.tasks = nn.Parameter(torch.randn(tasks, o.width) * SPREAD) if max(experts, tasks) > 1 else None

    def logits(self, batch: Batch) -> Tensor:
        x = self.inputs(batch)
        h = mix(self._weights(self.expert_gate, x), self.experts(x))  # (T, B, W)
        verdicts = self.verdict(self.critics(h.flatten(0, 1))).unflatten(1, h.shape[:2])  # (C, T, B, 1)
        return (self._weights(self.critic_gate, x) * verdicts.squeeze(3).permute(2, 1, 0)).sum(2)

    def expert_weights(self, batch: Batch) -> Tensor:
        return self._weights(self.expert_gate, self.inputs(batch))

    def _weights(self, gate: TaskGate | None, x: Tensor) -> Tensor:
        """(B, T, choices). One choice needs no gate."""
        if gate is None or self.tasks is None:
            return x.new_ones((len(x), len(self.spec.tasks), 1))
        return gate(x, self.tasks)
