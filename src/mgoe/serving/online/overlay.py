"""The live state as input groups read it: its arrays, laid over those of the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mgoe.features import NodeOverlay, Overlay, PairOverlay, View
from mgoe.graph.pair_rows import SIDES

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes


def overlay_of(live: LiveNodes) -> Overlay:
    """Return the arrays of touched nodes and pairs, not copied."""
    user, item = (
        NodeOverlay(*(getattr(live.sides[side], name) for name in NodeOverlay._fields)) for side in SIDES
    )
    return Overlay(user, item, PairOverlay(*(getattr(live.pairs, name) for name in PairOverlay._fields)))


@dataclass(frozen=True)
class LiveView:
    """A view of the snapshot over which the live state is laid for every reading.

    Attributes:
        base: The view of the snapshot.
        live: The live state.
    """

    base: View
    live: LiveNodes

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Hold the live state as it is, and return the view with it."""
        with self.live.lock:
            touched = any(nodes.size for nodes in self.live.sides.values())
            yield self.base.over(overlay_of(self.live)) if touched else self.base
