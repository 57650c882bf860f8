"""MacGNN, macro graph neural networks (Chen, Bei et al., WWW 2024, arXiv 2401.14939)."""

from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor, nn

from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import LayerOptions, macro_switches
from mgoe.models.layers.experts import LEADS_TO, MacroExperts
from mgoe.models.layers.inputs import DenseInputs, Nodes, Recents
from mgoe.models.layers.stacked import Towers
from mgoe.models.spec import Batch, FeatureSpec


class MacroNeighbors(nn.Module):
    """Node rows, aggregates of macro neighbours and of recent neighbours, and dense inputs, as one vector.

    ```text
    w_k  = exp(log(n_k + 1) / tau + <Q E_k, K e_target> / sqrt(H))
    h_o  = sum_k (w_k / sum w) V_o E_k
    ```

    The target is the node of the pair of the neighbour's kind: the candidate for macro items, the user for
    macro users.

    Args:
        spec: Describes the batches.
        groups: Input groups to read.
        options: Widths.
    """

    def __init__(self, spec: FeatureSpec, groups: Collection[str], options: LayerOptions):
        super().__init__()
        o = options
        self.dense = DenseInputs(spec, groups, o.width, o.edge_vectors)
        self.by_id, recents = "ids" in groups, "recents" in groups
        row = o.width * len(spec.tasks) if self.by_id else o.width
        self.nodes = Nodes(spec, self.by_id, recents, row)
        self.macro = MacroExperts(spec, 1, **macro_switches(o), target=row)
        self.recents = Recents(spec, row, o.aggregate) if recents else None
        self.width = self.dense.width + 2 * row * self.by_id + self.macro.width + 2 * o.aggregate * recents

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, width)."""
        parts, rows = [self.dense(batch)], self.nodes(batch)
        targets = {"user": rows.user[None], "item": rows.item[None]}
        parts += [rows.user, rows.item] if self.by_id else []
        parts += [self.recents(batch, rows)] if self.recents is not None else []
        parts += [
            self.macro.of_order(order, batch[order], targets[side]).squeeze(0)
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
    models (`Recents`). Every order has a V of its own. The product of edge weight and attention is normalised
    once, over both; the released code normalises over an axis of length one, so its attention is constant.

    Example:
        >>> from mgoe.models import neutral
        >>> MacGNN(spec, ("ids", "recents", "aggregates"), LayerOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = LayerOptions
    requires: ClassVar[frozenset[str]] = frozenset({"aggregates"})

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: LayerOptions):
        super().__init__(spec, inputs, options)
        self.inputs = MacroNeighbors(spec, inputs, options)
        layers = (*options.hidden, *options.tower_hidden)
        self.towers = Towers(len(spec.tasks), self.inputs.width, 0, layers, "none")

    def logits(self, batch: Batch) -> Tensor:
        return self.towers(self.inputs(batch), None)
