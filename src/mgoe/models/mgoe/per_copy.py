"""Serve experts and towers one product at a time (ours).

Training runs all copies of a layer as one batched product. ONNX Runtime adds the bias of such a product, and
scales and shifts the units of members, in passes of their own over the numbers of all copies, which do not
fit into the cache. Apart, a copy's numbers stay there from layer to layer, and a bias is part of its product.
For four members that takes four fifths of the time.

Axes: `B` candidates, `S` experts, `M` members, `T` tasks, `W` units.
"""

import torch
from torch import Tensor, nn

from mgoe.models.mgoe.network import MacroGraphNetwork
from mgoe.models.spec import Batch


class PerCopy(nn.Module):
    """An `Additive` model that computes the same as an MGOE for which `fits` holds.

    Args:
        model: The MGOE.
    """

    def __init__(self, model: MacroGraphNetwork):
        super().__init__()
        self.model, self.spec = model, model.spec

    @staticmethod
    def fits(model: MacroGraphNetwork) -> bool:
        """Return whether towers read experts alone, and gates do not read them."""
        scored = model.gates.score is not None and model.query != "experts"
        bare = model.recents is None and model.table is None and model.towers.transfer != "aitm"
        return model.experts is not None and scored and bare

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """As `MGOE.first`, but with each expert by itself, (B, W)."""
        experts, *others = self.model.first(batch, x)
        return [*experts.unbind(), *others]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Return logits (B, T) from `first`."""
        model = self.model
        members, tasks = model.options.members, len(self.spec.tasks)
        assert model.experts is not None
        begun, others = first[: model.experts.copies], first[model.experts.copies :]
        if model.products is not None:
            begun = model.with_products([torch.stack(begun), *others]).unbind()
        gates = model.gates.weights(first[-1]).unflatten(1, (members, -1))  # (B, M, T or 1, S)
        logits: list[Tensor] = []
        for member in range(members):
            experts = [self._expert(member, number, h) for number, h in enumerate(begun)]
            bottoms = [_mixed(weights, experts) for weights in gates[:, member].unbind(1)]
            logits.append(self._towers(member, bottoms * (tasks // len(bottoms))))
        return torch.stack(logits).mean(0)

    def _expert(self, member: int, number: int, h: Tensor) -> Tensor:
        """Run an expert of a member on its first layer, (B, W)."""
        mlp = self.model.experts
        assert mlp is not None
        if mlp.members is not None:
            h = h * mlp.members.scale[member, number] + mlp.members.shift[member, number]
        return mlp.deepened(member * mlp.copies + number, mlp.activation(h))

    def _towers(self, member: int, bottoms: list[Tensor]) -> Tensor:
        """Return the logits of a member, (B, T), from the bottom of each task."""
        towers, logits = self.model.towers, list[Tensor]()
        mlp, before = towers.mlp, bottoms[0]
        assert mlp.own is not None
        for task, bottom in enumerate(bottoms):
            number, receiver = member * towers.tasks + task, member * (towers.tasks - 1) + task - 1
            h, weight = bottom, mlp.own[number]
            if task and towers.message is not None and towers.read_message is not None:
                h = torch.cat([h, towers.message.one(receiver, before).relu()], 1)
                weight = torch.cat([weight, towers.read_message[receiver]])
            before = mlp.deepened(number, torch.addmm(mlp.bias[number], h, weight).relu())
            logits.append(towers.out.one(number, before))
        return torch.cat(logits, 1)


def _mixed(weights: Tensor, experts: list[Tensor]) -> Tensor:
    """Return the weighted sum of experts, (B, W), from their weights, (B, S)."""
    total = weights[:, :1] * experts[0]
    for number, expert in enumerate(experts[1:], 1):
        total = torch.addcmul(total, weights[:, number : number + 1], expert)
    return total
