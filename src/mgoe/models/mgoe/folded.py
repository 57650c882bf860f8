"""Serve the paper's form fast: its experts are linear, so they fold into the towers (ours).

In that form an expert's output is its input `z_s`, and tower t begins with `W_t sum_s g_ts z_s + c_t`. Gates
add up to 1, so this equals `sum_s g_ts (W_t z_s + c_t)`. The bracket is a sum of a user term and an item
term, both computed ahead of a request. What remains per candidate is the gates' softmax, a sum of S rows per
tower, and the towers' deeper layers.

AITM's transfer from tower to tower needs a third of its products. With `p` what a tower receives, `o` its own
last hidden layer, and their weights w and 1 - w: the values' product is linear, so `w V p + (1 - w) V o = V
z` with `z = o + w (p - o)`, and V moves into what reads it, the logit and the next tower. Only the difference
of the two scores counts, and each score is quadratic, `x (K Q' x) + x m`. So the difference is `<p - o, M (p
+ o) + m>` with M the symmetric part of `K Q'`: one product instead of four.
"""

import math

import torch
from torch import Tensor, nn

from mgoe.models.layers.stacked import StackedLinear, Towers
from mgoe.models.mgoe.network import MacroGraphNetwork
from mgoe.models.spec import Batch


class FoldedAITM(nn.Module):
    """`Towers.rest` for transfer `aitm`, with weights folded as above.

    Args:
        towers: Later changes of their weights have no effect.
    """

    def __init__(self, towers: Towers):
        super().__init__()
        self.mlp = towers.mlp
        assert towers.message is not None
        assert towers.attention is not None
        message, message_bias = _doubled(towers.message)
        out, out_bias = _doubled(towers.out)
        projection, projection_bias = _doubled(towers.attention)
        (query, key, value), (q, k, v) = projection.chunk(3, 2), projection_bias.chunk(3, 2)
        scale = math.sqrt(query.shape[1])
        self.message = nn.Buffer(torch.cat([message[:1], value[:-1] @ message[1:]]).float())
        self.message_bias = nn.Buffer(
            torch.cat([message_bias[:1], v[:-1] @ message[1:] + message_bias[1:]]).float()
        )
        self.form = nn.Buffer(((query @ key.mT + key @ query.mT) / (2 * scale)).float())
        self.form_bias = nn.Buffer(((q @ key.mT + k @ query.mT) / scale).float())
        self.out = nn.Buffer(torch.cat([out[:1], value @ out[1:]]).float())
        self.out_bias = nn.Buffer(torch.cat([out_bias[:1], v @ out[1:] + out_bias[1:]]).float())

    def rest(self, first: Tensor) -> Tensor:
        """Return logits (B, T) from (T, B, W), which may be overwritten, as `Towers.rest` does."""
        own = [self.mlp.deepened(t, h.relu()) for t, h in enumerate(first.unbind())]
        merged = own[:1]
        for t, h in enumerate(own[1:]):
            received = torch.addmm(self.message_bias[t], merged[-1], self.message[t]).relu()
            apart = received - h
            score = (torch.addmm(self.form_bias[t], received + h, self.form[t]) * apart).sum(1, keepdim=True)
            merged.append(torch.addcmul(h, score.sigmoid(), apart))
        return torch.cat([torch.addmm(self.out_bias[t], h, self.out[t]) for t, h in enumerate(merged)], 1)


def _doubled(layer: StackedLinear) -> tuple[Tensor, Tensor]:
    return layer.weight.detach().double(), layer.bias.detach().double()


class Folded(nn.Module):
    """An `Additive` model that computes the same as an MGOE in the paper's form.

    Args:
        model: MGOE in form `paper`.
    """

    def __init__(self, model: MacroGraphNetwork):
        super().__init__()
        self.model, self.spec = model, model.spec
        self.towers = model.towers if model.towers.attention is None else FoldedAITM(model.towers)

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        """Return the first layers of the towers for each expert, (B, S * T * W), and the scores of the gates,
        (B, G)."""
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
        """Return logits (B, T) from `first` and the batch's recent neighbours."""
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
