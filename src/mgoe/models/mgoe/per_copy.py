"""Serve experts and towers one product at a time (ours).

Training runs all copies of a layer as one batched product. ONNX Runtime adds the bias of such a product in a
pass of its own over the numbers of all copies, which do not fit into the cache. Apart, a copy's numbers stay
there from layer to layer, and a bias is part of its product. That takes seven eighths of the time.

Axes: `B` candidates, `S` experts, `T` tasks, `W` units.
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
        model, tasks = self.model, len(self.spec.tasks)
        assert model.experts is not None
        begun, others = first[: model.experts.copies], first[model.experts.copies :]
        if model.products is not None:
            begun = model.with_products([torch.stack(begun), *others]).unbind()
        experts = [
            model.experts.deepened(number, model.experts.activation(h)) for number, h in enumerate(begun)
        ]
        bottoms = [_mixed(weights, experts) for weights in model.gates.weights(first[-1]).unbind(1)]
        return self._towers(bottoms * (tasks // len(bottoms)))

    def _towers(self, bottoms: list[Tensor]) -> Tensor:
        """Return the logits, (B, T), from the bottom of each task."""
        towers, logits = self.model.towers, list[Tensor]()
        mlp, before = towers.mlp, bottoms[0]
        assert mlp.own is not None
        for task, bottom in enumerate(bottoms):
            h, weight = bottom, mlp.own[task]
            if task and towers.message is not None and towers.read_message is not None:
                h = torch.cat([h, towers.message.one(task - 1, before).relu()], 1)
                weight = torch.cat([weight, towers.read_message[task - 1]])
            before = mlp.deepened(task, torch.addmm(mlp.bias[task], h, weight).relu())
            logits.append(towers.out.one(task, before))
        return torch.cat(logits, 1)


def _mixed(weights: Tensor, experts: list[Tensor]) -> Tensor:
    """Return the weighted sum of experts, (B, W), from their weights, (B, S)."""
    total = weights[:, :1] * experts[0]
    for number, expert in enumerate(experts[1:], 1):
        total = torch.addcmul(total, weights[:, number : number + 1], expert)
    return total
