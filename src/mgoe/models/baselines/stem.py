"""STEM-Net, shared and task-specific embeddings (Su, Pan et al., AAAI 2024, arXiv 2308.13537)."""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import BaselineOptions, LayerOptions, macro_switches, nothing_to_read
from mgoe.models.layers.experts import MacroExperts, mix
from mgoe.models.layers.inputs import DenseInputs, NodeRows, Nodes, Recents
from mgoe.models.layers.stacked import StackedMLP, Towers
from mgoe.models.spec import Batch, FeatureSpec


class SplitInputs(nn.Module):
    """The inputs of `FlatInputs` in several sets: numbers are common to all sets, everything embedded belongs
    to one set.

    A node's row in the id tables is as wide as in other models, T D, and is divided among the sets: T D / (T
    + 1) each, rounded down. Categories and macro nodes have small tables, so they have width D in every set.

    Args:
        spec: Describes the batches.
        groups: Input groups to read.
        options: Widths.
        sets: Number of sets.
    """

    def __init__(self, spec: FeatureSpec, groups: Collection[str], options: BaselineOptions, sets: int):
        super().__init__()
        o, self.sets = options, sets
        self.dense = DenseInputs(spec, groups, sets * o.width, o.edge_vectors)
        self.categories = (len(self.dense.embedded), sets, o.width)
        self.common = self.dense.width - math.prod(self.categories)
        self.by_id, recents = "ids" in groups, "recents" in groups
        node = max(1, o.width * len(spec.tasks) // sets) if self.by_id else o.width
        self.nodes = Nodes(spec, self.by_id, recents, sets * node) if self.by_id or recents else None
        self.recents = nn.ModuleList(Recents(spec, node, o.aggregate) for _ in range(sets * recents))
        self.macro = MacroExperts(spec, sets, **macro_switches(o)) if "aggregates" in groups else None
        self.own = len(self.dense.embedded) * o.width + 2 * node * self.by_id + 2 * o.aggregate * recents
        self.own += self.macro.width if self.macro else 0
        if not self.common + self.own:
            raise nothing_to_read(groups)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (B, common) and (sets, B, own)."""
        x = self.dense(batch)
        parts = [x[:, self.common :].unflatten(1, self.categories).permute(2, 0, 1, 3).flatten(2)]
        if self.nodes is not None:
            rows = NodeRows(*(row.unflatten(-1, (self.sets, -1)).movedim(-2, 0) for row in self.nodes(batch)))
            if self.by_id:
                parts += [rows.user, rows.item]
            if self.recents:
                sets = zip(self.recents, zip(*rows, strict=True), strict=True)
                parts.append(torch.stack([recents(batch, NodeRows(*of_set)) for recents, of_set in sets]))
        if self.macro is not None:
            parts += self.macro(batch)
        return x[:, : self.common], torch.cat(parts, 2)


class STEM(RankingModel):
    """One expert on each task's own embeddings and one on shared ones. A tower reads all of them; two receive
    its gradient.

    ```text
    E_t = expert_t(x_t), t = 1 .. T        E_0 = expert_0(x_0)          x_t: inputs by the embeddings of set t
    g_t = softmax(W_t (x_t + x_0)) over all T + 1 experts
    h_t = g_t0 E_0 + g_tt E_t + sum_(s not t) g_ts stop(E_s)            stop: no gradient passes
    ```

    So the embeddings of a task learn from that task alone, and the shared ones from all tasks. Every expert
    and gate reads numbers directly; the paper embeds them. Experts have the layers of an MMoE expert. A
    regression has a tower like any other task.

    Example:
        >>> from mgoe.models import neutral
        >>> STEM(spec, ("ids", "side"), LayerOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = LayerOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: LayerOptions):
        super().__init__(spec, inputs, options)
        tasks = len(spec.tasks)
        self.inputs = SplitInputs(spec, inputs, options, tasks + 1)
        common, own = self.inputs.common, self.inputs.own
        self.experts = StackedMLP(tasks + 1, common, own, options.hidden)
        self.gates = StackedMLP(tasks, common, own, (tasks + 1,))  # its first layer alone
        self.towers = Towers(tasks, 0, self.experts.width, options.tower_hidden, "none")
        self.trained = nn.Buffer(torch.cat([torch.eye(tasks), torch.ones(tasks, 1)], 1), persistent=False)

    def logits(self, batch: Batch) -> Tensor:
        common, own = self.inputs(batch)
        experts, weights = self.experts(common, own), self._weights(common, own)
        fixed = mix(weights * (1 - self.trained), experts.detach())
        return self.towers(None, mix(weights * self.trained, experts) + fixed)

    def expert_weights(self, batch: Batch) -> Tensor:
        """Return the weights of all experts, (B, T, T + 1), the shared one last."""
        return self._weights(*self.inputs(batch))

    def _weights(self, common: Tensor, own: Tensor) -> Tensor:
        """(B, T, T + 1)."""
        return self.gates.first(common, own[:-1] + own[-1:]).float().softmax(2).transpose(0, 1)
