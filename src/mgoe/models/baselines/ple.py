"""PLE, progressive layered extraction (Tang et al., RecSys 2020): experts of single tasks beside shared
ones."""

from collections.abc import Collection
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.models.baselines.flat import BaselineOptions, FlatModel
from mgoe.models.layers.gates import Gates, PartialGates, mix
from mgoe.models.layers.stacked import StackedMLP, Widths
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class PLEOptions(BaselineOptions):
    """Switches of PLE."""

    hidden: Widths = (128, 64)
    """Width of the experts of each extraction level, one layer per level: two levels are as deep as an MMoE
    expert. One level is CGC."""
    own_experts: int = Field(default=1, ge=1)
    """Experts per task and level."""
    shared_experts: int = Field(default=1, ge=1)
    """Shared experts per level."""


class Extraction(nn.Module):
    """One level, customised gate control (CGC).

    ```text
    g_t = softmax(W_t q_t) over the experts of task t and the shared ones    out_t = sum_s g_ts expert_s
    g_0 = softmax(W_0 q_0) over all experts, not at the last level           out_0 = sum_s g_0s expert_s
    ```

    Experts and gates of the first level read the inputs. Above it, those of task t read `out_t` of the level
    below, and shared ones read `out_0`.

    Args:
        tasks: T.
        common: Width of the inputs at the first level, else 0.
        own: Width of the level below, else 0.
        hidden: Width of an expert.
        own_experts: Number of experts per task; they come first, task by task.
        shared_experts: Number of shared experts; they follow.
        last: Whether no level follows, so that nothing reads `out_0`.
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
        """(B, common), or `out` of the level below (T + 1, B, own) -> `out` (T + 1, B, hidden) and weights
        (B, T + 1, S).

        The last level gives T in place of T + 1.
        """
        if below is None:
            experts, weights = self.experts(common), self.gates(common)
        else:
            experts, weights = self.experts(None, below[self.group]), self.gates(None, below[: self.tasks])
        if self.shared_gate is not None:
            query = common if below is None else below[-1]
            weights = torch.cat([weights, self.shared_gate(query)], 1)
        return mix(weights, experts), weights


class PLE(FlatModel):
    """Levels of extraction, then one tower per task.

    At the last level only its own gate reads a task's experts. A level has T + 1 experts by default, of
    MMoE's widths; MMoE has T. A regression has a tower like any other task.
    """

    Options = PLEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: PLEOptions):
        super().__init__(spec, inputs, options)
        tasks, o = len(spec.tasks), options
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

    def expert_weights(self, batch: Batch) -> Tensor:
        """Return the weights of the last level, those of the tasks' own experts first."""
        return self._extract(batch)[1]

    def _extract(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what each tower reads of the last level, (T, B, W), and the weights of its gates, (B, T,
        S)."""
        out, weights = self.levels[0](self.inputs(batch), None)
        for level in self.levels[1:]:
            out, weights = level(None, out)
        return out, weights
