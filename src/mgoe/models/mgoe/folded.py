"""Experts that are linear, seen from the towers: how the paper's form is served (ours).

In that form an expert is what it reads, `z_s`, and tower t begins with `W_t sum_s g_ts z_s + c_t`. Gates add up to 1, so this is
`sum_s g_ts (W_t z_s + c_t)`: what stands in the brackets is a sum of the user's and the item's, and is computed ahead of a request. For
a candidate there remain the gates' softmax, a sum of S rows a tower, and the towers' deeper layers.

Of these, what AITM passes on from tower to tower takes a third of its products. With `p` what a tower hears, `o` its own last hidden
layer, and weights w and 1 - w of the two: the values' product is linear, so `w V p + (1 - w) V o = V z` with `z = o + w (p - o)`, and V
goes into what reads it, the logit and the next tower. Of the two scores only the difference counts, and as each is quadratic,
`x (K Q' x) + x m`, it is `<p - o, M (p + o) + m>` with M the symmetric part of `K Q'`: one product instead of four.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgoe.models.decomposition import AdditiveHalves
from mgoe.models.layers.stacked import StackedLinear
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch

if TYPE_CHECKING:
    from mgoe.models.mgoe.model import MGOE


class FoldedAITM(nn.Module):
    """`rest` of towers that pass on by AITM, with weights folded as above.

    Args:
        towers: With transfer `aitm`. Later changes of their weights are not seen.
    """

    told: Tensor
    told_bias: Tensor
    form: Tensor
    form_bias: Tensor
    out: Tensor
    out_bias: Tensor

    def __init__(self, towers: Towers):
        super().__init__()
        self.mlp = towers.mlp
        assert towers.told is not None
        assert towers.value is not None
        (told, told_bias), (out, out_bias), (three, three_bias) = map(
            _doubled, (towers.told, towers.out, towers.value)
        )
        (query, key, value), (q, k, v) = three.chunk(3, 2), three_bias.chunk(3, 2)
        scale = math.sqrt(query.shape[1])
        form = (query @ key.mT + key @ query.mT) / (2 * scale)
        form_bias = (q @ key.mT + k @ query.mT) / scale
        folded = {
            "told": torch.cat([told[:1], value[:-1] @ told[1:]]),
            "told_bias": torch.cat([told_bias[:1], v[:-1] @ told[1:] + told_bias[1:]]),
            "form": form,
            "form_bias": form_bias,
            "out": torch.cat([out[:1], value @ out[1:]]),
            "out_bias": torch.cat([out_bias[:1], v @ out[1:] + out_bias[1:]]),
        }
        for name, weight in folded.items():
            self.register_buffer(name, weight.float())

    def rest(self, first: Tensor) -> Tensor:
        """As `Towers.rest`: (T, B, W), which may be overwritten -> (B, T)."""
        own = [self._own(t, h) for t, h in enumerate(first.unbind())]
        merged = own[:1]
        for told, told_bias, form, form_bias, mine in zip(
            self.told, self.told_bias, self.form, self.form_bias, own[1:], strict=True
        ):
            heard = torch.addmm(told_bias, merged[-1], told).relu()
            apart = heard - mine
            weight = (torch.addmm(form_bias, heard + mine, form) * apart).sum(1, keepdim=True).sigmoid()
            merged.append(torch.addcmul(mine, weight, apart))
        return torch.cat(
            [torch.addmm(bias, h, out) for bias, h, out in zip(self.out_bias, merged, self.out, strict=True)],
            1,
        )

    def _own(self, t: int, h: Tensor) -> Tensor:
        """Last hidden layer of one tower, a product at a time: runtimes add the bias and cut below 0 within it."""
        h = h.relu()
        for layer in self.mlp.deeper:
            assert isinstance(layer, StackedLinear)
            h = torch.addmm(layer.bias[t], h, layer.weight[t]).relu()
        return h


def _doubled(layer: StackedLinear) -> tuple[Tensor, Tensor]:
    return layer.weight.detach().double(), layer.bias.detach().double()


class Folded(nn.Module):
    """An `Additive` model that computes what an MGOE in the paper's form does.

    Args:
        model: In form `paper`, whose gates read `experts`, `ids` or `inputs`.
    """

    def __init__(self, model: MGOE):
        super().__init__()
        self.model, self.spec = model, model.spec
        self.towers = FoldedAITM(model.towers) if model.towers.value is not None else model.towers

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """First layers of the towers from each expert, (B, S * T * W), and scores of the gates, (B, G)."""
        model, layer = self.model, self.model.towers.mlp
        _, experts, *scores = model.first(batch, x)
        if model.gates.score is not None and not scores:
            scores = [model.gates.score(experts.transpose(0, 1).flatten(1))]
        assert layer.own is not None
        width = experts.shape[2]
        begun = torch.einsum("sbi,tio->bsto", experts, layer.own[:, :width]) + layer.bias[:, 0]
        if model.table is not None:
            entries = model.table(batch["table_user"], batch["table_item"])
            begun = begun + torch.einsum("tbi,tio->bto", entries, layer.own[:, width:])[:, None]
        if layer.common is not None:
            begun = begun + (x @ layer.common[: x.shape[1]]).unflatten(1, (layer.copies, -1))[:, None]
        return [begun.flatten(1), *scores]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        """Logits (B, T) from `first`, and from what the batch holds of recent neighbours."""
        model, layer = self.model, self.model.towers.mlp
        begun = first[0].unflatten(1, (model.gates.experts, layer.copies, -1))
        if model.gates.score is None:
            h = begun[:, 0]
        else:
            gates = model.gates.weights(first[1])  # (B, T or 1, S)
            h = gates[:, :, 0, None] * begun[:, 0]
            for s in range(1, model.gates.experts):
                h = h + gates[:, :, s, None] * begun[:, s]
        if model.recents is not None and model.nodes is not None:
            assert layer.common is not None
            recents = model.recents(batch, model.nodes(batch))
            h = h + (recents @ layer.common[-recents.shape[1] :]).unflatten(1, (layer.copies, -1))
        return self.towers.rest(h.transpose(0, 1))


class FoldedHalves(AdditiveHalves):
    """Those of a `Folded` model. Where the pair has nothing of its own, `join` is `towers` of a sum that can be made as rows are read."""

    model: Folded

    @property
    def mixed(self) -> tuple[int, int, int] | None:
        """Experts S, towers T and gates (T, 1 or 0) of a row, which is `[begun (S, T, W), scores (gates, S)]`; None: `join` reads more."""
        if self.keys:
            return None
        gates, towers = self.model.model.gates, self.model.model.towers.mlp.copies
        return gates.experts, towers, gates.gates

    def towers(self, h: Tensor) -> Tensor:
        """From the mixed first layers before their ReLU, (T, B, W), to logits (B, T)."""
        return self.model.towers.rest(h)
