"""What pairs are read from: a snapshot, live changes laid over it, side features, and the time it is read as
of.

Axes: `B` pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe.data import FeatureEncoders, SideFeatures
from mgoe.errors import GraphError
from mgoe.features.overlay import NodeOverlay, Overlay
from mgoe.features.spec import FeatureSpec
from mgoe.graph import Snapshot
from mgoe.graph.moments import Moments
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.graph.placing import Placing, SomeNodes
from mgoe.graph.scores import UNIT

Slots = NDArray[np.int64] | None
"""Rows of nodes in an overlay, -1 for those that are unchanged; None if no node has changed."""
Own = Literal["own"]
"""The rows that a view's nodes have themselves."""


class Source(Protocol):
    """Something that pairs are read from: a `View`, or a live state whose view changes.

    Example:
        >>> source: Source = bundle.view
        >>> with source.reading() as view:
        ...     view is source
        True
    """

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which the view does not change."""
        ...


@dataclass(frozen=True)
class View:
    """A snapshot with an overlay of live changes (an empty one in training).

    Attributes:
        snapshot: The macro graph as of its cut.
        overlay: What has changed since.
        side: Encoded side features of users and of items.
        as_of: The time that pairs are read as of: everything in the view happened in this bucket or before.
        base: Arrays of the snapshot by the names of `NodeOverlay`, but for edges, for each side: as nodes
            read them with their content, if they have any.
        now: The moment from which ages count, in microseconds.
        moments: How nodes change after the snapshot, where pairs are read as of moments.
        kept: What input groups gather once, by their names.

    Example:
        >>> view = bundle.view
        >>> view.snapshot.cut == view.as_of
        True
    """

    snapshot: Snapshot
    overlay: Overlay
    side: Mapping[Side, SideFeatures]
    as_of: int
    base: Mapping[Side, dict[str, NDArray]]
    now: int
    moments: Moments | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        user_side: SideFeatures | None = None,
        item_side: SideFeatures | None = None,
    ) -> View:
        """Return the view of a snapshot without live changes. Side features that are not given are empty."""
        nothing = SideFeatures(FeatureEncoders(), {})
        side: dict[Side, SideFeatures] = {"user": user_side or nothing, "item": item_side or nothing}
        base: dict[Side, dict[str, NDArray]] = {one: _base(snapshot, one) for one in SIDES}
        return cls(snapshot, Overlay.empty(snapshot), side, snapshot.cut, base, snapshot.now)

    def place(self, side: Side, nodes: NDArray[np.int64]) -> None:
        """Read nodes as their side features now say that they are about. What is placed moves into memory.

        Args:
            side: One that has content.
            nodes: By index, at least 0. Shape (n,).
        """
        base, at = self.base[side], self.snapshot
        every = np.arange(max(len(base["sum"]), nodes.max(initial=-1) + 1))
        nodes = np.union1d(nodes, every[len(base["sum"]) :])
        base["content"] = self.side[side].content_of(every)
        edges, macro, chances = (
            [getattr(part, f"{side}_{name}") for part in at.resolutions]
            for name in ("edges", "macro", "chances")
        )
        some = SomeNodes.of(
            nodes,
            base["content"],
            np.rint(at.arrays[f"{side}_sum"] * float(UNIT)).astype(np.int64),
            at.arrays[f"{side}_vectors"],
            edges,
            macro,
            [table.shape[::-1] for table in chances],
        )
        placing = Placing(base["targets"], base["worth"])
        read = placing.read(some, chances, at.dense)
        for name in base.keys() & read.keys():
            base[name] = take(base[name], every, 0)
            base[name][nodes] = read[name]
        self.kept.clear()

    def over(self, overlay: Overlay, now: int | None = None) -> View:
        """Return this view with other live changes, from a later moment if one is given."""
        return replace(self, overlay=overlay, kept={}, now=max(self.now, now or self.now))

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Return this view, which never changes."""
        yield self

    def nodes(self, side: Side) -> NodeOverlay:
        """Return the changed nodes of a side."""
        return self.overlay.user if side == "user" else self.overlay.item

    def cold(self, side: Side) -> int:
        """Return the macro node of a side's nodes without history, at the dense resolution."""
        return self.snapshot.macro_users if side == "user" else self.snapshot.macro_items

    def slots(self, side: Side, nodes: NDArray[np.integer]) -> Slots:
        """Return the row of each node in the overlay, -1 where it is unchanged; None if no node has changed.
        Any shape."""
        slot = self.nodes(side).slot
        return take(slot, nodes, -1).astype(np.int64) if len(slot) else None

    def known(self, side: Side, nodes: NDArray[np.integer], slots: Slots | Own = "own") -> NDArray[np.int64]:
        """Return nodes by index, -1 for those without history. Any shape."""
        slots = self.slots(side, nodes) if isinstance(slots, str) else slots
        there = nodes < len(self.base[side]["sum"])
        if slots is not None:
            there |= slots >= 0
        return np.where(there & (nodes >= 0), nodes, -1).astype(np.int64)

    def macro(
        self,
        side: Side,
        resolution: int,
        nodes: NDArray[np.int64],
        fill: int = -1,
        slots: Slots | Own = "own",
    ) -> NDArray[np.int64]:
        """Return the macro node of each node at a resolution, `fill` for nodes of -1. Nodes of any shape.

        With slots of None, all nodes are read as the snapshot has them.
        """
        slots = self.slots(side, nodes) if isinstance(slots, str) else slots
        live = None if slots is None else self.nodes(side).macro[:, resolution]
        return _read(self.base[side][f"macro{resolution}"], slots, live, nodes, fill).astype(np.int64)

    def rows(
        self,
        side: Side,
        name: str,
        nodes: NDArray[np.int64],
        fill: float = 0,
        slots: Slots | Own = "own",
    ) -> NDArray:
        """Return a row per node of an array of `base`, `fill` for nodes of -1. Nodes of any shape.

        With slots of None, all nodes are read as the snapshot has them.
        """
        slots = self.slots(side, nodes) if isinstance(slots, str) else slots
        live = None if slots is None else getattr(self.nodes(side), name)
        return _read(self.base[side][name], slots, live, nodes, fill)


class Pairs(NamedTuple):
    """The pairs to read.

    Attributes:
        user, item: Nodes by index, -1 for those without history. Shape (B,) each.
        users, items: The same as they were asked for; negative or beyond the log where unknown. Shape (B,)
            each.
        context: Encoded context features by name, each of B rows.
        spec: Sizes of the model's tables; None where no model is concerned.
        now: The moment from which ages count, in microseconds. Shape (B,).
        user_slots, item_slots: Row of each node in the overlay, -1 where it is unchanged; None if no node
            has changed. Shape (B,) each.
        kept: What one input group reads and another needs too, by name.

    Example:
        >>> pairs = Pairs.of(bundle.view, np.array([0, 0]), np.array([3, 4]), {}, None)
        >>> pairs.users.size
        2
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    context: Mapping[str, NDArray]
    spec: FeatureSpec | None
    now: NDArray[np.int64]
    user_slots: Slots
    item_slots: Slots
    kept: dict[str, Any]

    @classmethod
    def of(
        cls,
        view: View,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray],
        spec: FeatureSpec | None,
        slots: tuple[Slots, Slots] | None = None,
        now: NDArray[np.int64] | None = None,
    ) -> Pairs:
        """Look nodes up, and repeat a context of one row for all pairs.

        Args:
            view: What the pairs are read from.
            users, items: By index. Shape (B,) each.
            context: Encoded context features, each of B rows, or of one row for all.
            spec: See above.
            slots: Of users and of items, where they are not those of the nodes.
            now: Of each pair, where it is not that of the view. Shape (B,).

        Raises:
            GraphError: Users and items differ in length.
        """
        if users.shape != items.shape:
            raise GraphError(
                "pairs", f"users and items must be of one length, found {users.shape} and {items.shape}"
            )
        n = len(users)
        rows = {
            name: values if len(values) == n else np.repeat(values, n, axis=0)
            for name, values in context.items()
        }
        own = slots or (view.slots("user", users), view.slots("item", items))
        known = view.known("user", users, own[0]), view.known("item", items, own[1])
        return cls(*known, users, items, rows, spec, np.full(n, view.now) if now is None else now, *own, {})

    def slots(self, side: Side) -> Slots:
        """Return where the nodes of a side are in the overlay."""
        return self.user_slots if side == "user" else self.item_slots

    def changed(self, side: Side) -> NDArray[np.int64]:
        """Return the same as an array, for kernels."""
        slots = self.slots(side)
        return np.full(len(self.user), -1, np.int64) if slots is None else slots

    def nodes(self, side: Side) -> NDArray[np.int64]:
        """Return the nodes of a side."""
        return self.user if side == "user" else self.item


def _base(snapshot: Snapshot, side: Side) -> dict[str, NDArray]:
    arrays, neighbors = snapshot.arrays, f"recent_{OTHER[side]}s"
    own = {f"macro{r}": getattr(part, f"{side}_macro") for r, part in enumerate(snapshot.resolutions)}
    return {
        "recent": arrays[neighbors],
        "recent_task_mask": arrays[f"{neighbors}_task_mask"],
        "log_first": arrays[f"{side[0]}1"],
        "log_second": arrays[f"{side[0]}2"],
        **{name: arrays[f"{side}_{name}"] for name in ("sum", "second_sum", "counts", "table", "vectors")},
        **{name: arrays[f"{side}_{name}"] for name in ("first", "last", "total", "again", "ages")},
        **own,
        **snapshot.placed.get(side, {}),
    }


def _read(
    base: NDArray, slots: Slots, live: NDArray | None, nodes: NDArray[np.int64], fill: float
) -> NDArray:
    """Return rows of a snapshot's array, and of the live array for nodes with a slot; `fill` at node -1."""
    out = take(base, nodes, fill)
    if slots is not None and live is not None:
        there = slots >= 0
        out[there] = live[slots[there]]
    return out
