"""HoME, a hierarchy of multi-gate experts (Wang et al., KDD 2025, arXiv 2408.05430)."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mgoe.config import did_you_mean
from mgoe.errors import ConfigError
from mgoe.models.baselines.flat import BaselineOptions, FlatModel
from mgoe.models.layers.gates import Gates, PartialGates, mix
from mgoe.models.layers.stacked import StackedLinear, uniform
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec, TaskSpec


class HoMEOptions(BaselineOptions):
    """Switches of HoME."""

    hidden: tuple[PositiveInt, PositiveInt] = (128, 64)
    """Width of the experts of the meta layer and of the task layer: together as deep as an MMoE expert."""
    experts: int = Field(default=1, ge=1)
    """Experts per task, per group, and shared by all."""
    rank: int = Field(default=8, ge=1)
    """Rank of the feature gates."""
    groups: tuple[tuple[str, ...], ...] | None = None
    """Tasks by category. By default regressions are separate from binary tasks, as watch time is from
    interactions in the paper; tasks of a single kind are divided into the weaker and the stronger ones."""


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
        copies = len(self.down)
        gate = torch.bmm(torch.bmm(v.expand(copies, -1, -1), self.down), self.up).sigmoid_()
        h = self.linear(2 * v * gate)
        return F.silu(F.layer_norm(h, h.shape[-1:]) * self.scale + self.shift)


class HoME(FlatModel):
    """Two layers of experts under a hierarchy of masks: all tasks, groups of tasks, single tasks.

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
    """

    Options = HoMEOptions
    group: Tensor
    source: Tensor

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: HoMEOptions):
        super().__init__(spec, inputs, options)
        tasks, n, (meta, last) = len(spec.tasks), options.experts, options.hidden
        group_of = groups_of(spec.tasks, options.groups)
        groups = max(group_of) + 1
        # Numbers of the experts of each task, each group, and all; in the meta layer without those of tasks.
        units = [range(unit * n, (unit + 1) * n) for unit in range(tasks + groups + 1)]
        width = self.inputs.width

        experts = (groups + 1) * n  # of each group, then of all
        self.meta_experts = GatedExperts(experts, width, meta, options.rank)
        self.group_gates = PartialGates([[*unit, *units[groups]] for unit in units[:groups]], experts, width)
        self.all_gate = Gates(1, experts, width)
        self.meta_self_gates = PartialGates(
            [[*unit] for unit in units[: groups + 1]], experts, width, damps=True
        )

        experts = (tasks + groups + 1) * n  # of each task, of each group, then of all
        self.task_experts = GatedExperts(experts, meta, last, options.rank)
        reads = [[*units[t], *units[tasks + group], *units[-1]] for t, group in enumerate(group_of)]
        self.gates = PartialGates(reads, experts, 0, 2 * meta)
        self.self_gates = PartialGates([[*unit] for unit in units[:tasks]], experts, 0, 2 * meta, damps=True)
        self.towers = Towers(tasks, 0, last, options.tower_hidden, "none")
        self.register_buffer("group", torch.tensor(group_of), persistent=False)
        source = torch.tensor([*group_of, *range(groups), groups]).repeat_interleave(n)
        self.register_buffer("source", source, persistent=False)  # which z an expert of the task layer reads

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
        experts = self.meta_experts(x[None])
        z = mix(weights, experts)
        return z, torch.cat([z[self.group], z[-1:].expand(len(self.group), -1, -1)], 2)


def groups_of(tasks: Sequence[TaskSpec], named: Sequence[Sequence[str]] | None) -> list[int]:
    """Return the group of each task, numbered from 0.

    Raises:
        ConfigError: The groups do not contain every task exactly once.
    """
    names = [task.name for task in tasks]
    if named is not None:
        listed = [name for group in named for name in group]
        for name in listed:
            if name not in names:
                raise ConfigError("options.groups", f"{name!r} is no task{did_you_mean(name, names)}")
        if sorted(listed) != sorted(names):
            raise ConfigError(
                "options.groups",
                f"must hold every task once, found {listed}; the tasks are {', '.join(names)}",
            )
        filled = [group for group in named if group]
        return [next(number for number, group in enumerate(filled) if name in group) for name in names]
    kinds = [task.kind for task in tasks]
    if len(set(kinds)) > 1:
        return [int(kind != kinds[0]) for kind in kinds]
    return [int(t >= len(tasks) // 2) if len(tasks) > 1 else 0 for t in range(len(tasks))]
