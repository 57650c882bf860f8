"""MacGNN, macro graph neural networks (Chen, Bei et al., WWW 2024, arXiv 2401.14939)."""

from collections.abc import Collection
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import LayerOptions, macro_switches
from mgoe.models.layers.experts import LEADS_TO, MacroExperts
from mgoe.models.layers.inputs import DenseInputs, NodeRows, Nodes, Recents
from mgoe.models.layers.stacked import Towers, uniform
from mgoe.models.spec import Batch, FeatureSpec


class MacGNNOptions(LayerOptions):
    """Switches of MacGNN; `hidden` are the first layers of a tower.

    Example:
        >>> MacGNNOptions(aggregate=32).aggregate
        32
    """

    attention: Literal["target", "constant"] = "target"
    """`constant` is what the released code computes: its softmax is over an axis of length one, so every
    weight is 1."""


class RecentSums(nn.Module):
    """`sum_r V e_r` over the recent neighbours, for each of the two lists. Shape (B, 2 * width)."""

    def __init__(self, nodes_width: int, width: int):
        super().__init__()
        self.items = uniform(nodes_width, width, fan_in=nodes_width)
        self.users = uniform(nodes_width, width, fan_in=nodes_width)

    def forward(self, batch: Batch, rows: NodeRows) -> Tensor:
        sums = (
            ((batch[f"recent_{name}"] >= 0)[:, None].to(neighbors.dtype) @ neighbors).squeeze(1) @ value
            for name, neighbors, value in (
                ("items", rows.recent_items, self.items),
                ("users", rows.recent_users, self.users),
            )
        )
        return torch.cat([*sums], 1)


class MacroNeighbors(nn.Module):
    """Node rows, aggregates of macro neighbours and of recent neighbours, and dense inputs, as one vector.

    ```text
    w_k  = exp(log(n_k + 1) / tau)                                   attention: constant
    w_k  = exp(log(n_k + 1) / tau + <Q E_k, K e_target> / sqrt(H))   attention: target
    h_o  = sum_k (w_k / sum w) V_o E_k
    ```

    The target is the node of the pair of the neighbour's kind: the candidate for macro items, the user for
    macro users.

    Args:
        spec: Describes the batches.
        groups: Input groups to read.
        options: Widths and attention.
    """

    def __init__(self, spec: FeatureSpec, groups: Collection[str], options: MacGNNOptions):
        super().__init__()
        o, target = options, options.attention == "target"
        self.dense = DenseInputs(spec, groups, o.width, o.edge_vectors)
        self.by_id, recents = "ids" in groups, "recents" in groups
        row = o.width * len(spec.tasks) if self.by_id else o.width
        self.nodes = Nodes(spec, self.by_id, recents, row) if self.by_id or recents or target else None
        self.macro = MacroExperts(spec, 1, **macro_switches(o), target=row if target else 0)
        self.recents = None
        if recents:
            self.recents = Recents(spec, row, o.aggregate) if target else RecentSums(row, o.aggregate)
        self.width = self.dense.width + 2 * row * self.by_id + self.macro.width + 2 * o.aggregate * recents

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, width)."""
        parts = [self.dense(batch)]
        targets: dict[str, Tensor] = {}
        if self.nodes is not None:
            rows = self.nodes(batch)
            targets = {"user": rows.user[None], "item": rows.item[None]}
            parts += [rows.user, rows.item] if self.by_id else []
            parts += [self.recents(batch, rows)] if self.recents is not None else []
        parts += [
            self.macro.of_order(order, batch[order], targets.get(side)).squeeze(0)
            for order, side in LEADS_TO.items()
        ]
        return torch.cat(parts, 1)


class MacGNN(RankingModel):
    """MacGNN, the macro graph without experts or gates (Chen et al., WWW 2024):
    `y_t = tower_t([e_u, e_i, h_u1, h_u2, h_i1, h_i2, micro_u, micro_i, dense])`.

    The paper predicts clicks. Here each task has a tower over shared inputs, with the layers of an MMoE
    expert and a tower; so has a regression. A node is a row of the id tables, as wide as in other models, or
    without the input group `ids` the embedding of its macro node.

    Deviations: ReLU replaces Dice, which normalises by the batch. Recent neighbours are read as in all other
    models (`Recents`), or summed as in the released code with `attention: constant`. Every order has a V of
    its own. The product of edge weight and attention is normalised once, over both.

    Example:
        >>> from mgoe.models import neutral
        >>> MacGNN(spec, ("ids", "recents", "aggregates"), MacGNNOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = MacGNNOptions
    requires: ClassVar[frozenset[str]] = frozenset({"aggregates"})

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MacGNNOptions):
        super().__init__(spec, inputs, options)
        self.inputs = MacroNeighbors(spec, inputs, options)
        layers = (*options.hidden, *options.tower_hidden)
        self.towers = Towers(len(spec.tasks), self.inputs.width, 0, layers, "none")

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(self.inputs(batch), None)
