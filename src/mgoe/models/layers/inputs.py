"""From a batch to vectors: dense features with their hinges, categories, and single users and items with
their recent neighbours."""

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor, nn

from mgoe.config.base import as_list
from mgoe.features import FeatureSpec, Key, Part, batch_keys
from mgoe.models.layers.stacked import for_products, masked_softmax, uniform
from mgoe.models.layers.tables import SPREAD, table
from mgoe.models.spec import Batch

CLIP = 10.0
"""Standardised values are clipped here: a drifting count may not outweigh everything else."""
MOST_KNOTS = 16


def _rising(knots: tuple[float, ...]) -> tuple[float, ...]:
    if len(knots) > MOST_KNOTS or not all(a < b for a, b in itertools.pairwise((-CLIP, *knots, CLIP))):
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
        groups: Input groups to read; groups without dense features or categories are ignored. Rare
            categories are embedded only beside `ids`.
        width: Width of each category's embedding.
        edge_vectors: Whether to read the macro edges of `aggregates` as numbers too, one per macro node.
        knots: Knots of each number, in standard deviations from its mean; one hinge per knot. Macro edges
            have none: target edges are read in three shapes, and vectors of edges are wide.
    """

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
        by_id = "ids" in groups
        self.embedded = [key for key in keys if key.kind == "category" and (by_id or not key.rare)]
        self.categories = nn.ModuleList(Category(key, width) for key in self.embedded)
        widths = {key: spec.widths[key] for key in self.keys}
        moments = [spec.moments.get(key, ((0.0,) * n, (1.0,) * n)) for key, n in widths.items()]
        deviation = torch.tensor([number for _, stds in moments for number in stds], dtype=torch.float32)
        self.mean = nn.Buffer(
            torch.tensor([number for means, _ in moments for number in means], dtype=torch.float32)
        )
        # The model learned nothing from a constant number, so it reads 0 of it.
        self.scale = nn.Buffer(torch.where(deviation > 1e-6, 1 / deviation, 0.0))
        self.names = [key for key, columns in widths.items() for _ in range(columns)] + [
            key.name for key in self.embedded for _ in range(width)
        ]
        hinges = [key.hinges for key in self._numeric for _ in key.owners]
        bent = [column for column, bends in enumerate(hinges) if bends]
        self.knots = nn.Buffer(torch.tensor(knots, dtype=torch.float32), persistent=False)
        self.bent = nn.Buffer(torch.tensor(bent, dtype=torch.int64), persistent=False)
        self.width = len(self.names) + len(knots) * len(bent)

    def columns(self, *prefixes: str) -> list[int]:
        """Return the columns of features whose batch key starts with a prefix, without their hinges."""
        return [column for column, name in enumerate(self.names) if name.startswith(prefixes)]

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, width)."""
        parts = _read(batch, self, [key.name for key in self.embedded])
        if not parts:
            return batch["user"].new_zeros((batch["user"].shape[0], 0), dtype=torch.float32)
        return for_products(torch.cat(parts, 1))

    def parts(self) -> list[Part]:
        """Return the part that each column belongs to."""
        width = (len(self.names) - len(self.mean)) // max(1, len(self.embedded))
        parts: list[Part] = [part for key in self._numeric for part in key.parts]
        parts.extend(key.parts[0] for key in self.embedded for _ in range(width))
        return parts + [parts[column] for column in self.bent.tolist()] * len(self.knots)

    def pair(self) -> Callable[[Batch], list[Tensor]]:
        """Return what reads the columns of the pair alone."""
        return PairColumns(self)


class PairColumns(nn.Module):
    """The pair's columns of dense inputs, from a batch whose keys hold no other columns."""

    knots: Tensor

    def __init__(self, inputs: DenseInputs):
        super().__init__()
        parts = inputs.parts()[: len(inputs.mean)]
        columns = [column for column, part in enumerate(parts) if part == "pair"]
        self.keys = list(dict.fromkeys(inputs.names[column] for column in columns))
        own = [n for n, key in enumerate(inputs.embedded) if key.parts[0] == "pair"]
        self.names = [inputs.embedded[n].name for n in own]
        self.categories = nn.ModuleList(inputs.categories[n] for n in own)
        self.mean = nn.Buffer(inputs.mean[columns], persistent=False)
        self.scale = nn.Buffer(inputs.scale[columns], persistent=False)
        self.register_buffer("knots", inputs.knots, persistent=False)  # the same tensor
        bent = torch.isin(torch.tensor(columns, dtype=torch.int64), inputs.bent).nonzero()[:, 0]
        self.bent = _run(bent.tolist()) or nn.Buffer(bent, persistent=False)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Return numbers, categories and hinges, (B, columns or fewer) each; nothing without columns."""
        return _read(batch, self, self.names)


def _run(columns: Sequence[int]) -> slice | None:
    """Return neighbouring columns as a slice, which ONNX Runtime reads without two transpositions."""
    run = range(columns[0], columns[-1] + 1) if columns else range(0)
    return slice(run.start, run.stop) if list(run) == list(columns) else None


def _read(batch: Batch, columns: DenseInputs | PairColumns, embedded: Sequence[str]) -> list[Tensor]:
    """Return standardised and clipped numbers, (B, N), embedded categories, and the hinges of each knot, (B,
    bent) each."""
    parts = [category(batch[key]) for category, key in zip(columns.categories, embedded, strict=True)]
    if not columns.keys:
        return parts
    raw = torch.cat([batch[key] for key in columns.keys], 1)
    numbers = ((raw - columns.mean) * columns.scale).clamp(-CLIP, CLIP)
    if not len(columns.knots):
        return [numbers, *parts]
    bent = numbers[:, columns.bent]
    return [numbers, *parts, *((bent - knot).relu() for knot in columns.knots)]


class NodeRows(NamedTuple):
    """Vectors of the users and items of a batch; R is 0 if the recents are not read."""

    user: Tensor
    """(B, width)."""
    item: Tensor
    recent_items: Tensor
    """Recent items of the user, (B, R, width); padding reads the last row."""
    recent_users: Tensor
    """Recent users of the item, (B, R, width)."""


class Nodes(nn.Module):
    """Rows of single users and items: of their ids or, with ids off, of their macro nodes.

    Args:
        spec: Describes the batches.
        by_id: Whether ids are on.
        recents: Whether the recent neighbours are read.
        width: Width of a row.
    """

    def __init__(self, spec: FeatureSpec, by_id: bool, recents: bool, width: int):
        super().__init__()
        self.suffix = "" if by_id else "_macro"
        self.recents, self.width = recents, width
        users, items = (spec.n_users, spec.n_items) if by_id else (spec.macro_users, spec.macro_items)
        self.users = table(users + 1, width, sparse=by_id)
        self.items = table(items + 1, width, sparse=by_id)

    @property
    def reads(self) -> set[str]:
        """Batch keys."""
        lists = ("recent_items", "recent_users") if self.recents else ()
        return {f"user{self.suffix}", f"item{self.suffix}"} | {
            f"{name}{kind}" for name in lists for kind in ("", "_task_mask", self.suffix)
        }

    def forward(self, batch: Batch) -> NodeRows:
        user, recent_users = self._rows(self.users, batch, "user")
        item, recent_items = self._rows(self.items, batch, "item")
        return NodeRows(user, item, recent_items, recent_users)

    def _rows(self, rows: nn.Embedding, batch: Batch, node: str) -> tuple[Tensor, Tensor]:
        """Look up once per table: sparse gradients of several look-ups would have to be added."""
        codes = batch[f"{node}{self.suffix}"][:, None]
        if self.recents:
            recents = batch[f"recent_{node}s{self.suffix}"]
            codes = torch.cat([codes, torch.where(recents < 0, rows.num_embeddings - 1, recents)], 1)
        target, recents = for_products(rows(codes)).split([1, codes.shape[1] - 1], 1)
        return target.squeeze(1), recents


class ProjectedNodes(nn.Module):
    """`e_u` and `e_i` with ids off: projections of a side's features and both sides' counts, of width 0 if
    there are none.

    Args:
        inputs: The dense inputs to project.
        copies: Number of vectors per node.
        width: Width of each vector.
    """

    def __init__(self, inputs: DenseInputs, copies: int, width: int):
        super().__init__()
        user, item = inputs.columns("user_side", "counts"), inputs.columns("item_side", "counts")
        self.user_columns = nn.Buffer(torch.tensor(user, dtype=torch.int64), persistent=False)
        self.item_columns = nn.Buffer(torch.tensor(item, dtype=torch.int64), persistent=False)
        self.user = nn.Linear(len(user), copies * width) if user else None
        self.item = nn.Linear(len(item), copies * width) if item else None
        self.widths = (width * bool(user), width * bool(item))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs) -> (B, copies * width) each."""
        return (
            x[:, :0] if self.user is None else self.user(x[:, self.user_columns]),
            x[:, :0] if self.item is None else self.item(x[:, self.item_columns]),
        )


class TargetAttention(nn.Module):
    """One softmax over R neighbours, `<Q target, K neighbour>/sqrt(H) + log(1 + s(task mask))`.

    The paper gives no formula; this one is inferred. Padding gets no weight, and a row of padding alone gives
    zero.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.query = uniform(inputs, width, fan_in=inputs)
        self.key = uniform(inputs, width, fan_in=inputs)
        self.value = uniform(inputs, width, fan_in=inputs)
        self.scale = 1 / math.sqrt(width)

    def forward(self, target: Tensor, neighbors: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        """(B, inputs), (B, R, inputs), (B, R), (B, R) bool -> (B, width)."""
        weights = self.weights(target, neighbors, bonus, present)
        return torch.bmm(weights[:, None], neighbors).squeeze(1) @ self.value

    def weights(self, target: Tensor, neighbors: Tensor, bonus: Tensor, present: Tensor) -> Tensor:
        """Return the weight of each neighbour, (B, R)."""
        query = (target @ self.query) @ self.key.T  # Q and K folded: no key per neighbour is formed
        logits = torch.bmm(neighbors, query[:, :, None]).squeeze(2).float() * self.scale + bonus
        return masked_softmax(logits, present)


class Recents(nn.Module):
    """Summaries of both lists of recent neighbours, `[micro_u, micro_i]`, (B, 2 * width)."""

    def __init__(
        self,
        spec: FeatureSpec,
        nodes_width: int,
        width: int,
        attention: type[TargetAttention] = TargetAttention,
    ):
        super().__init__()
        self.width = 2 * width
        self.items = attention(nodes_width, width)
        self.users = attention(nodes_width, width)
        self.gain = nn.Buffer(torch.tensor(spec.task_mask_scores).log1p(), persistent=False)

    def forward(self, batch: Batch, rows: NodeRows) -> Tensor:
        return torch.cat(
            [self.items(*self._reads(batch, rows, "items")), self.users(*self._reads(batch, rows, "users"))],
            1,
        )

    def weights(self, batch: Batch, rows: NodeRows) -> dict[str, Tensor]:
        """Return the weight of each recent neighbour, (B, R), by batch key."""
        return {
            "recent_items": self.items.weights(*self._reads(batch, rows, "items")),
            "recent_users": self.users.weights(*self._reads(batch, rows, "users")),
        }

    def _reads(
        self, batch: Batch, rows: NodeRows, nodes: Literal["items", "users"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the target, its neighbours, the bonus of their tasks, and a mask of those that exist."""
        target, neighbors = (
            (rows.item, rows.recent_items) if nodes == "items" else (rows.user, rows.recent_users)
        )
        return (
            target,
            neighbors,
            self.gain[batch[f"recent_{nodes}_task_mask"].clamp_min(0)],
            batch[f"recent_{nodes}"] >= 0,
        )
