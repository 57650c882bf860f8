"""Baselines with experts of single tasks beside shared ones, in levels: PLE and HoME."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mgoe.models.baselines.flat import BaselineOptions, FlatModel, LayerOptions
from mgoe.models.layers.experts import Gates, PartialGates, mix
from mgoe.models.layers.stacked import StackedLinear, StackedMLP, Towers, uniform
from mgoe.models.spec import Batch, FeatureSpec, TaskSpec


class PLEOptions(LayerOptions):
    """Switches of PLE. Each of the `hidden` layers is that of the experts of one extraction level: two levels
    are as deep as an MMoE expert. One level is CGC.

    Example:
        >>> PLEOptions(own_experts=2).shared_experts
        1
    """

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
        self.group = nn.Buffer((torch.arange(experts) // own_experts).clamp(max=tasks), persistent=False)
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
            weights = torch.cat([weights, self.shared_gate(common if below is None else below[-1])], 1)
        return mix(weights, experts), weights


class PLE(FlatModel):
    """PLE, progressive layered extraction (Tang et al., RecSys 2020).

    Levels of extraction, then one tower per task.

    At the last level only its own gate reads a task's experts. A level has T + 1 experts by default, of
    MMoE's widths; MMoE has T. A regression has a tower like any other task.

    Example:
        >>> from mgoe.models import neutral
        >>> PLE(spec, ("ids", "side"), PLEOptions(own_experts=2)).predict(neutral(spec)).shape
        torch.Size([1, 2])
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


class HoMEOptions(BaselineOptions):
    """Switches of HoME.

    Example:
        >>> HoMEOptions(experts=2).experts
        2
    """

    hidden: tuple[PositiveInt, PositiveInt] = (128, 64)
    """Width of the experts of the meta layer and of the task layer: together as deep as an MMoE expert."""
    experts: int = Field(default=1, ge=1)
    """Experts per task, per group, and shared by all."""
    rank: int = Field(default=8, ge=1)
    """Rank of the feature gates."""


class GatedExperts(nn.Module):
    """Experts that each weigh their inputs: `Swish(Norm(W (v * 2 sigmoid(v B A)) + b))`, with B and A of low
    rank.

    Args:
        copies: S.
        inputs: Width of v.
        outputs: W.
        rank: Rank of B A.
    """

    def __init__(self, copies: int, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.down = uniform(copies, inputs, rank, fan_in=inputs)
        self.up = uniform(copies, rank, inputs, fan_in=rank)
        self.linear = StackedLinear(copies, inputs, outputs)
        self.scale = nn.Parameter(torch.ones(copies, 1, outputs))
        self.shift = nn.Parameter(torch.zeros(copies, 1, outputs))

    def forward(self, v: Tensor) -> Tensor:
        """(S, B, inputs), or (1, B, inputs) where all read the same -> (S, B, outputs)."""
        gate = torch.bmm(torch.bmm(v.expand(len(self.down), -1, -1), self.down), self.up).sigmoid_()
        h = self.linear(2 * v * gate)
        return F.silu(F.layer_norm(h, h.shape[-1:]) * self.scale + self.shift)


class HoME(FlatModel):
    """HoME, a hierarchy of multi-gate experts (Wang et al., KDD 2025, arXiv 2408.05430).

    Two layers of experts under a hierarchy of masks: all tasks, groups of tasks, single tasks.

    ```text
    meta layer   z_c = sum_s (g_cs + f_cs) expert_s(x)    c a group: reads its own experts and those of all
                                                          c all: reads every expert
    task layer   h_t = sum_s (g_ts + f_ts) expert_s(z)    reads its own experts and its group's, on z_group,
                                                          and those of all, on z_all
    g = softmax(W q) over the experts read
    f = sigmoid(W q) for one expert of its own, softmax(W q) for more: the self gate
    ```

    q is x in the meta layer and [z_group, z_all] in the task layer. Experts are normalised, activated by
    Swish, and weigh their inputs by a feature gate (`GatedExperts`).

    Deviations: the paper normalises by the statistics of the batch, so that a row depends on the rest of its
    batch; here each expert's output is normalised by itself (layer normalisation). A feature gate is one
    product of low rank, not a gated sum of several. Which layer's output each expert of the task layer reads
    is our interpretation of the text. A regression has a tower like any other task.

    Example:
        >>> from mgoe.models import neutral
        >>> HoME(spec, ("ids", "side"), HoMEOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = HoMEOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: HoMEOptions):
        super().__init__(spec, inputs, options)
        tasks, n, (meta, last), width = len(spec.tasks), options.experts, options.hidden, self.inputs.width
        group_of = groups_of(spec.tasks)
        groups = max(group_of) + 1
        # Numbers of the experts of each task, each group, and all; in the meta layer without those of tasks.
        units = [range(unit * n, (unit + 1) * n) for unit in range(tasks + groups + 1)]

        experts = (groups + 1) * n  # of each group, then of all
        self.meta_experts = GatedExperts(experts, width, meta, options.rank)
        self.group_gates = PartialGates([[*unit, *units[groups]] for unit in units[:groups]], experts, width)
        self.all_gate = Gates(1, experts, width)
        self.meta_self_gates = PartialGates([[*unit] for unit in units[: groups + 1]], experts, width)

        experts = (tasks + groups + 1) * n  # of each task, of each group, then of all
        self.task_experts = GatedExperts(experts, meta, last, options.rank)
        reads = [[*units[t], *units[tasks + group], *units[-1]] for t, group in enumerate(group_of)]
        self.gates = PartialGates(reads, experts, 0, 2 * meta)
        self.self_gates = PartialGates([[*unit] for unit in units[:tasks]], experts, 0, 2 * meta)
        self.towers = Towers(tasks, 0, last, options.tower_hidden, "none")
        self.group = nn.Buffer(torch.tensor(group_of), persistent=False)
        source = torch.tensor([*group_of, *range(groups), groups]).repeat_interleave(n)
        self.source = nn.Buffer(source, persistent=False)  # which z an expert of the task layer reads

    def logits(self, batch: Batch) -> Tensor:
        z, q = self._meta(batch)
        weights = self.gates(None, q) + self.self_gates(None, q)
        return self.towers(None, mix(weights, self.task_experts(z[self.source])))

    def expert_weights(self, batch: Batch) -> Tensor:
        """Return the weights of the task layer: experts of tasks, of groups, of all."""
        return self.gates(None, self._meta(batch)[1])

    def _meta(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the outputs of the meta layer, (groups + 1, B, meta), and the query of each task's gates,
        (T, B, 2 meta)."""
        x = self.inputs(batch)
        weights = torch.cat([self.group_gates(x), self.all_gate(x)], 1) + self.meta_self_gates(x)
        z = mix(weights, self.meta_experts(x[None]))
        return z, torch.cat([z[self.group], z[-1:].expand(len(self.group), -1, -1)], 2)


def groups_of(tasks: Sequence[TaskSpec]) -> list[int]:
    """Return the group of each task, numbered from 0.

    Regressions are separate from binary tasks, as watch time is from interactions in the paper; tasks of a
    single kind are divided into the weaker and the stronger ones.
    """
    kinds = [task.kind for task in tasks]
    if len(set(kinds)) > 1:
        return [int(kind != kinds[0]) for kind in kinds]
    return [int(t >= len(tasks) // 2) if len(tasks) > 1 else 0 for t in range(len(tasks))]
