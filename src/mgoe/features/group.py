"""The contract of an input group: what it adds to a batch, whose each column is, and how it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import Side

Arrays: TypeAlias = dict[str, NDArray]
"""Arrays by name."""
Part: TypeAlias = Literal["user", "item", "pair"]
"""When a service computes a column: once per request (`user`), once per item (`item`), or for every candidate
(`pair`)."""
Kind: TypeAlias = Literal["dense", "category", "index"]


@dataclass(frozen=True)
class Owner:
    """What a column belongs to: two rows with the same owner hold the same value.

    A group derived from a node, such as an item's author or a user's macro node, follows from that node:
    `Owner("author", ITEM.of)`. The product of two owners is the pair of them: `USER * CONTEXT`.

    Attributes:
        name: Shown in documentation.
        of: Which of `user`, `item` and `context` it follows from.

    Example:
        >>> (USER * CONTEXT).part, Owner("author", ITEM.of).part
        ('user', 'item')
    """

    name: str
    of: frozenset[str]

    def __mul__(self, other: Owner) -> Owner:
        return Owner(f"{self.name} x {other.name}", self.of | other.of)

    @property
    def part(self) -> Part:
        """When a service computes a column of this owner; what is known of a request counts as the user's."""
        if "item" not in self.of:
            return "user"
        return "item" if len(self.of) == 1 else "pair"


USER, ITEM, CONTEXT = (Owner(name, frozenset({name})) for name in ("user", "item", "context"))
"""What a column belongs to: the user, the item, or the context of a request."""
PAIR = USER * ITEM
"""Columns that belong to a user and an item together."""


@dataclass(frozen=True)
class Key:
    """One array of a batch.

    Attributes:
        name: Its key in the batch.
        kind: `dense`: float columns that a model reads as numbers. `category`: an integer that a model
            embeds, or a list of them per row. `index`: an integer per row or a list of them that dedicated
            layers read, such as a node.
        owners: The owner of each dense column; otherwise one for all.
        unknown: What an unknown node reads.
        size: Values of a category or an index, the unknown one included where it is not negative.
        length: Entries of a list; None where a row holds a single value.
        hinges: Whether a model may bend a dense column at knots.
        rare: Whether a category has so few training rows per value that a model embeds it only with ids.

    Example:
        >>> dense("age", (USER, 1)).parts
        ('user',)
    """

    name: str
    kind: Kind
    owners: tuple[Owner, ...]
    unknown: int = 0
    size: int = 0
    length: int | None = None
    hinges: bool = True
    rare: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """The part of each dense column; otherwise one for all."""
        return tuple(owner.part for owner in self.owners)

    @property
    def multi(self) -> bool:
        """Whether a row holds a list."""
        return self.length is not None

    def neutral(self) -> NDArray:
        """Return one row as an unknown node reads it."""
        if self.kind == "dense":
            return np.full((1, len(self.owners)), self.unknown, np.float32)
        return np.full((1,) if self.length is None else (1, self.length), self.unknown, np.int64)


def dense(name: str, *owners: tuple[Owner, int], hinges: bool = True) -> Key:
    """Return a key of dense columns, from each owner and how many columns it has, in their order.

    Example:
        >>> dense("counts", (USER, 2), (ITEM, 3)).owners[2].name
        'item'
    """
    return Key(name, "dense", tuple(owner for owner, width in owners for _ in range(width)), hinges=hinges)


class InputGroup(ABC):
    """One group of inputs: its columns, their owners, its value for unknown nodes, and its
    kernel.

    Training, evaluation, the bundle and the live service read it through `read`. What a service prepares once
    per request or once per item follows from the owners of the columns.

    Example:
        >>> from mgoe.features import GROUPS
        >>> [key.name for key in GROUPS["counts"].keys(spec)]
        ['counts']
    """

    name: ClassVar[str]
    fresh: ClassVar[bool] = False
    """Whether a model reads it only if rows are of an event log and read up to their bucket or moment. Ages
    would mislead a model whose rows all read as of a cut, which was long ago for some and just now for
    others; and of what was shown, rates say more."""

    def keys(self, spec: FeatureSpec) -> Sequence[Key]:
        """Return the group's arrays in a batch, by default a dense one of the pair that has the group's name.
        Dense ones without columns are left out of batches."""
        return [dense(self.name, (PAIR, spec.widths.get(self.name, 0)))]

    @abstractmethod
    def read(self, view: View, pairs: Pairs) -> Arrays:
        """Return the arrays of all keys, one row per pair, as of `view.as_of`."""

    def read_part(self, view: View, pairs: Pairs, part: Part, keys: Sequence[Key]) -> Arrays:
        """Return the columns of one part alone. Override it where that is cheaper than reading all columns.

        Args:
            view, pairs: As for `read`.
            part: Which columns to return.
            keys: The keys that have such columns.
        """
        arrays = self.read(view, pairs)
        return {
            key.name: arrays[key.name][:, [of == part for of in key.parts]]
            if len({*key.parts}) > 1
            else arrays[key.name]
            for key in keys
        }

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        """Return at least the arrays of keys that have columns of one side."""
        return self.read(view, pairs)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        """Return the names of dense columns that come from the graph, by batch key."""
        return {}


class NodeGroup(InputGroup):
    """A group of keys that belong to the user alone or to the item alone, so that each side is read apart.

    Example:
        >>> from mgoe.features import GROUPS
        >>> [name for name, group in GROUPS.items() if isinstance(group, NodeGroup)]
        ['ids', 'side', 'recents', 'aggregates', 'placing', 'content']
    """

    def keys(self, spec: FeatureSpec) -> Sequence[Key]:
        """Return by default a dense array of each side, with its values as they are."""
        sides = (f"user_{self.name}", USER), (f"item_{self.name}", ITEM)
        return [dense(name, (owner, spec.widths.get(name, 0)), hinges=False) for name, owner in sides]

    @abstractmethod
    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        """Return the arrays of one side's keys, one row per pair, as of `view.as_of`."""

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return self.read_side(view, pairs, "user") | self.read_side(view, pairs, "item")
