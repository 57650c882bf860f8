"""DIN, deep interest networks (Zhou et al., KDD 2018, arXiv 1706.06978)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mgoe.models.baselines.flat import SharedBottom
from mgoe.models.layers.inputs import TargetAttention

HIDDEN = 36
"""Units of the layer that weighs a neighbour, as published."""


class ActivationUnit(TargetAttention):
    """Weighs each of R neighbours by an MLP, `MLP([e_k, e_target, e_k * e_target, log(1 + s(task mask))])`.

    The weights need not sum to one, so that many neighbours like the target say more than one.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width)
        del self.query, self.key
        self.layers = nn.Sequential(nn.Linear(3 * inputs + 1, HIDDEN), nn.PReLU(), nn.Linear(HIDDEN, 1))

    def weights(self, target: Tensor, neighbors: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        target = target[:, None].expand_as(neighbors)
        read = torch.cat([neighbors, target, neighbors * target, bonus[:, :, None].to(target.dtype)], 2)
        return self.layers(read).squeeze(2) * present


class DIN(SharedBottom):
    """DIN: the last items of a user, each weighed by what it has to do with the candidate, and the last users
    of the item likewise, before the layers of Shared-Bottom.

    The paper predicts clicks and reads items alone. Here each task has a tower, the tasks done with a
    neighbour enter its weight, and PReLU replaces Dice, which normalises by the batch.

    Example:
        >>> from mgoe.models import make_model, neutral
        >>> make_model("din", spec, seed=0).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"recents"})
    attention = ActivationUnit
