"""From a batch to one vector: dense features with their hinges, side and context categories."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor, nn

from mgoe.config.base import as_list
from mgoe.features import FeatureSpec, Key, Part, batch_keys
from mgoe.models.layers.stacked import for_products
from mgoe.models.layers.tables import SPREAD, table
from mgoe.models.spec import Batch

CLIP = 10.0
"""Standardised values are clipped here: a drifting count may not outweigh everything else."""
MOST_KNOTS = 16


def _rising(knots: tuple[float, ...]) -> tuple[float, ...]:
    ends = (-CLIP, *knots, CLIP)
    if len(knots) > MOST_KNOTS or not all(a < b for a, b in itertools.pairwise(ends)):
        raise ValueError(
            f"takes up to {MOST_KNOTS} numbers, each above the one before, between -{CLIP:g} and {CLIP:g}, "
            f"where values are clipped, found {list(knots)}; sort them and remove duplicates"
        )
    return knots


Knots = Annotated[tuple[float, ...], BeforeValidator(as_list), AfterValidator(_rising)]
"""Knots of piecewise-linear features, in standard deviations from the mean, as an option."""


class Category(nn.Module):
    """Embedding of one categorical feature; several categories give their mean, and no category gives
    zero."""

    def __init__(self, feature: Key, width: int):
        super().__init__()
        self.size, self.multi = feature.size, feature.multi
        self.codes = (
            table(feature.size + feature.multi, width)
            if feature.multi
            else nn.Embedding(feature.size, width, sparse=True)
        )
        if not feature.multi:
            nn.init.normal_(self.codes.weight, 0, SPREAD)

    def forward(self, codes: Tensor) -> Tensor:
        """(B,), or with several categories per row (B, L) padded with -1, -> (B, width)."""
        if not self.multi:
            return self.codes(codes)
        codes = torch.where(codes < 0, self.size, codes)
        return F.embedding_bag(codes, self.codes.weight, mode="mean", sparse=True, padding_idx=self.size)


class DenseInputs(nn.Module):
    """All features of a row as one vector: standardised and clipped numbers, embedded categories, and hinges.

    A hinge `max(0, v - k)` bends at the knot k, so that a linear layer over `[v, hinges]` reads any function
    of v that is linear between knots (the encoding of Gorishniy et al., NeurIPS 2022, in another basis).

    Args:
        spec: Describes the batches.
        groups: Input groups to read; groups without dense features or categories are ignored.
        width: Width of each category's embedding.
        edge_vectors: Whether to read the macro edges of `aggregates` as numbers too, one per macro node.
        knots: Knots of each number, in standard deviations from its mean; one hinge per knot. Target edges,
            which are read in three shapes, have none.
    """

    mean: Tensor
    scale: Tensor
    knots: Tensor
    bent: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        groups: Collection[str],
        width: int,
        edge_vectors: bool = False,
        knots: Sequence[float] = (),
    ):
        super().__init__()
        read = {group for group in groups if group != "aggregates" or edge_vectors}
        keys = batch_keys(spec, read).values()
        self._numeric = [key for key in keys if key.kind == "dense" and key.name in spec.widths]
        self.keys = [key.name for key in self._numeric]
        self.embedded = [key for key in keys if key.kind == "category"]
        self.categories = nn.ModuleList(Category(key, width) for key in self.embedded)
        mean: list[float] = []
        std: list[float] = []
        for key in self.keys:
            columns = spec.widths[key]
            of_key = spec.moments.get(key, ((0.0,) * columns, (1.0,) * columns))
            mean.extend(of_key[0])
            std.extend(of_key[1])
        deviation = torch.tensor(std, dtype=torch.float32)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        # The model learned nothing from a constant number, so it reads 0 of it.
        self.register_buffer("scale", torch.where(deviation > 1e-6, 1 / deviation, 0.0))
        self.names = [key for key in self.keys for _ in range(spec.widths[key])] + [
            key.name for key in self.embedded for _ in range(width)
        ]
        hinges = [key.hinges for key in self._numeric for _ in key.owners]
        bent = [column for column, bends in enumerate(hinges) if bends]
        self.register_buffer("knots", torch.tensor(knots, dtype=torch.float32), persistent=False)
        self.register_buffer("bent", torch.tensor(bent, dtype=torch.int64), persistent=False)
        self.width = len(self.names) + len(knots) * len(bent)

    def columns(self, *prefixes: str) -> list[int]:
        """Return the columns of features whose batch key starts with a prefix, without their hinges."""
        return [column for column, name in enumerate(self.names) if name.startswith(prefixes)]

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, width)."""
        parts = [
            category(batch[key.name]) for category, key in zip(self.categories, self.embedded, strict=True)
        ]
        if self.keys:
            numbers, hinges = _numbers(batch, self)
            parts = [numbers, *parts, *hinges]
        if not parts:
            return batch["user"].new_zeros((batch["user"].shape[0], 0), dtype=torch.float32)
        return for_products(torch.cat(parts, 1))

    def parts(self) -> list[Part]:
        """Return the part that each column belongs to."""
        width = (len(self.names) - len(self.mean)) // max(1, len(self.embedded))
        parts: list[Part] = []
        for key in self._numeric:
            parts += key.parts
        for key in self.embedded:
            parts += key.parts[:1] * width
        bent = [parts[column] for column in self.bent.tolist()]
        return [*parts, *(bent * len(self.knots))]

    def pair(self) -> PairColumns:
        """Return what reads the columns of the pair alone."""
        return PairColumns(self)


class PairColumns(nn.Module):
    """The pair's columns of dense inputs, from a batch whose keys hold no other columns."""

    mean: Tensor
    scale: Tensor
    knots: Tensor
    bent: Tensor

    def __init__(self, inputs: DenseInputs):
        super().__init__()
        parts = inputs.parts()[: len(inputs.mean)]
        columns = [column for column, part in enumerate(parts) if part == "pair"]
        self.keys = list(dict.fromkeys(inputs.names[column] for column in columns))
        own = [n for n, key in enumerate(inputs.embedded) if key.parts[0] == "pair"]
        self.names = [inputs.embedded[n].name for n in own]
        self.categories = nn.ModuleList(inputs.categories[n] for n in own)
        self.register_buffer("mean", inputs.mean[columns], persistent=False)
        self.register_buffer("scale", inputs.scale[columns], persistent=False)
        self.register_buffer("knots", inputs.knots, persistent=False)
        bent = torch.isin(torch.tensor(columns, dtype=torch.int64), inputs.bent).nonzero()[:, 0]
        self.register_buffer("bent", bent, persistent=False)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return numbers, categories and hinges, (B, columns or fewer) each; nothing without columns."""
        parts = [category(batch[key]) for category, key in zip(self.categories, self.names, strict=True)]
        if not self.keys:
            return parts
        numbers, hinges = _numbers(batch, self)
        return [numbers, *parts, *hinges]


def _numbers(batch: Batch, columns: DenseInputs | PairColumns) -> tuple[Tensor, list[Tensor]]:
    """Return standardised and clipped numbers, (B, N), and the hinges of each knot, (B, bent) each."""
    raw = torch.cat([batch[key] for key in columns.keys], 1)
    numbers = ((raw - columns.mean) * columns.scale).clamp(-CLIP, CLIP)
    if not len(columns.knots):
        return numbers, []
    bent = numbers[:, columns.bent]
    return numbers, [(bent - knot).relu() for knot in columns.knots]
