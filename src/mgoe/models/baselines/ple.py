"""PLE, progressive layered extraction (Tang, Liu, Zhao and Gong, RecSys 2020): experts of each task's own beside shared ones."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import BaselineOptions, FlatInputs
from mgoe.models.layers.gates import Gates, PartialGates, mix
from mgoe.models.layers.stacked import StackedMLP, Widths
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class PLEOptions(BaselineOptions):
    """Switches of PLE."""

    hidden: Widths = (128, 64)
    """Width of the experts of each extraction level, a layer a level: two levels are as deep as an expert of MMoE. One level is CGC."""
    own_experts: int = Field(default=1, ge=1)
    """Of each task and level."""
    shared_experts: int = Field(default=1, ge=1)
    """Of each level."""


class Extraction(nn.Module):
    """One level, customised gate control (CGC).

    ```text
    g_t = softmax(W_t q_t) over the experts of task t and the shared ones     out_t = sum_s g_ts expert_s
    g_0 = softmax(W_0 q_0) over all experts                                   out_0 = sum_s g_0s expert_s     (not at the last level)
    ```

    Experts and gates of the first level read the inputs; above it, those of task t read `out_t` and shared ones `out_0` of the level below.

    Args:
        tasks: T.
        common: Width of the inputs at the first level, else 0.
        own: Width of the level below, else 0.
        hidden: Width of an expert.
        own_experts: Of each task; they come first, task by task.
        shared_experts: They follow.
        last: No level follows, so nothing reads `out_0`.
    """

    group: Tensor

    def __init__(
        self,
        tasks: int,
        common: int,
        own: int,
        hidden: int,
        own_experts: int,
        shared_experts: int,
        last: bool,
    ):
        super().__init__()
        self.tasks = tasks
        mine = torch.arange(tasks * own_experts).view(tasks, own_experts)
        shared = torch.arange(shared_experts) + mine.numel()
        experts = mine.numel() + shared_experts
        self.register_buffer("group", torch.arange(experts) // own_experts, persistent=False)
        self.group.clamp_(max=tasks)
        self.experts = StackedMLP(experts, common, own, (hidden,))
        self.gates = PartialGates(
            torch.cat([mine, shared.expand(tasks, -1)], 1).tolist(), experts, common, own
        )
        self.shared_gate = None if last else Gates(1, experts, common or own)

    def forward(self, common: Tensor | None, below: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, common), or `out` of the level below (T + 1, B, own) -> `out` (T + 1 or T, B, hidden) and weights (B, T + 1 or T, S)."""
        if below is None:
            experts, weights = self.experts(common), self.gates(common)
        else:
            experts, weights = self.experts(None, below[self.group]), self.gates(None, below[: self.tasks])
        if self.shared_gate is not None:
            query = common if below is None else below[-1]
            weights = torch.cat([weights, self.shared_gate(query)], 1)
        return mix(weights, experts), weights


class PLE(RankingModel):
    """Levels of extraction, then a tower a task.

    A task's experts are read by its own gate alone at the last level. A level has T + 1 experts by default, MMoE has T; each has MMoE's
    widths. A regression is a tower like the others.
    """

    Options = PLEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: PLEOptions):
        super().__init__(spec, inputs, options)
        tasks, o = len(spec.tasks), options
        self.inputs = FlatInputs(spec, inputs, o)
        widths = [
            (self.inputs.width, 0, o.hidden[0]),
            *((0, below, hidden) for below, hidden in pairwise(o.hidden)),
        ]
        self.levels = nn.ModuleList(
            Extraction(tasks, *of_level, o.own_experts, o.shared_experts, last=number == len(widths))
            for number, of_level in enumerate(widths, 1)
        )
        self.towers = Towers(tasks, 0, o.hidden[-1], o.tower_hidden, "none")

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(None, self._extract(batch)[0])

    def watch(self, batch: Batch) -> dict[str, Tensor]:
        """`gates`: the mean weight of each expert of the last level for each task, (T, S), those of tasks first."""
        with torch.no_grad():
            return {"gates": self._extract(batch)[1].mean(0)}

    def _extract(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the last level: what each tower reads, (T, B, W), and the weights of its gates, (B, T, S)."""
        out, weights = self.levels[0](self.inputs(batch), None)
        for level in self.levels[1:]:
            out, weights = level(None, out)
        return out, weights
