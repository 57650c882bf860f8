"""Networks that read a user's last events in order: the blocks of SASRec and of a model like HSTU.

Every place sees itself and the places before it. So a sequence is padded at its end, where padding changes
nothing.

Axes: `B` users, `L` places of a sequence, `D` width, `H` heads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Block = Callable[[Mapping[str, Any]], nn.Module]
"""Makes a block from settings."""

BUCKETS = 64
"""Time gaps that are told apart."""
PER_OCTAVE, MINUTES = 2, 1440.0
"""Buckets between a gap and its double, and minutes of a day."""


class SASRecBlock(nn.Module):
    """Causal softmax attention, then a feed-forward layer, each normalised before and added to its input.

    PyTorch has this block; its attention is `torch.nn.functional.scaled_dot_product_attention`. Attention
    weights have no dropout, which is slow to draw on a processor.

    Args:
        settings: `width`, `heads`, `dropout`.
    """

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__()
        width = settings["width"]
        self.layer = nn.TransformerEncoderLayer(
            width, settings["heads"], width, settings["dropout"], batch_first=True, norm_first=True
        )
        self.layer.self_attn.dropout = 0.0

    def forward(self, hidden: torch.Tensor, days: torch.Tensor) -> torch.Tensor:
        """Return the next layer of each place. Shape (B, L, D)."""
        mask = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1], device=hidden.device)
        return self.layer(hidden, mask, is_causal=True)


class HSTUBlock(nn.Module):
    """Pointwise attention without softmax, gated (Zhai et al. 2024, eq. 1 to 3):

        U, V, Q, K = silu(X W1),  A = silu(Q K' + bias) / L,  Y = X + (norm(A V) * U) W2

    with X normalised before. The bias of a head is learned for each distance of two places, and for each
    bucket of the time between them.

    Args:
        settings: `width`, `heads`, `length`, `dropout`.
    """

    def __init__(self, settings: Mapping[str, Any]):
        super().__init__()
        width, self.heads, self.length = settings["width"], settings["heads"], settings["length"]
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward, self.outward = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(settings["dropout"])
        self.of_distance = nn.Embedding(self.length, self.heads)
        self.of_gap = nn.Embedding(BUCKETS, self.heads)
        for table in (self.of_distance, self.of_gap):
            nn.init.zeros_(table.weight)

    def forward(self, hidden: torch.Tensor, days: torch.Tensor) -> torch.Tensor:
        """Return the next layer of each place. Shape (B, L, D)."""
        place = torch.arange(hidden.shape[1], device=hidden.device)
        distance = place[:, None] - place  # (L, L)
        gaps = (days[:, :, None] - days[:, None]).clamp(min=0)
        bucket = (PER_OCTAVE * torch.log2(1 + MINUTES * gaps)).long().clamp(max=BUCKETS - 1)
        bias = self.of_distance(distance.clamp(min=0)) + self.of_gap(bucket)  # (B, L, L, H)
        parts = functional.silu(self.inward(self.before(hidden))).chunk(4, dim=-1)
        gate, value, query, key = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attention = functional.silu(query @ key.mT + bias.permute(0, 3, 1, 2)) * (distance >= 0) / self.length
        read = (attention @ value).transpose(1, 2).flatten(2)  # (B, L, D)
        return hidden + self.outward(self.dropout(self.after(read) * gate.transpose(1, 2).flatten(2)))


class SequenceNetwork(nn.Module):
    """Embeddings of items and places, and blocks over them. Items are scored with the same embeddings.

    Args:
        block: The kind of its blocks.
        items: Number of items.
        settings: Also `blocks`.

    Example:
        >>> sizes = {"width": 4, "heads": 2, "length": 3, "blocks": 1, "dropout": 0.0}
        >>> network = SequenceNetwork(HSTUBlock, 5, sizes)
        >>> network(torch.tensor([[0, 4]]), torch.tensor([[0.0, 1.0]])).shape
        torch.Size([1, 2, 4])
    """

    def __init__(self, block: Block, items: int, settings: Mapping[str, Any]):
        super().__init__()
        width = settings["width"]
        self.items, self.places = nn.Embedding(items, width), nn.Embedding(settings["length"], width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.dropout, self.norm = nn.Dropout(settings["dropout"]), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(block(settings) for _ in range(settings["blocks"]))

    def forward(self, items: torch.Tensor, days: torch.Tensor) -> torch.Tensor:
        """Return what predicts the event after each place.

        Args:
            items: By index. Shape (B, L).
            days: When, not falling. Shape (B, L).

        Returns:
            Shape (B, L, D).
        """
        own = self.items(items) * self.items.embedding_dim**0.5
        hidden = self.dropout(own + self.places.weight[: items.shape[1]])
        for block in self.blocks:
            hidden = block(hidden, days)
        return self.norm(hidden)
