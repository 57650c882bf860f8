"""The live state as input groups read it: its arrays, laid over those of the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mgoe.features import NodeOverlay, Overlay, PairOverlay, View
from mgoe.graph.pair_rows import SIDES

if TYPE_CHECKING:
    from mgoe.serving.online.live import LiveNodes
    from mgoe.serving.online.state import LiveState


def overlay_of(live: LiveNodes) -> Overlay:
    """Return the arrays of touched nodes and pairs, not copied."""
    user, item = (
        NodeOverlay(*(getattr(live.sides[side], name) for name in NodeOverlay._fields)) for side in SIDES
    )
    return Overlay(user, item, PairOverlay(*(getattr(live.pairs, name) for name in PairOverlay._fields)))


class LiveView:
    """A view of the snapshot over which the live state is laid, again after every change.

    Args:
        base: The view of the snapshot.
        live: The live state.
    """

    def __init__(self, base: View, live: LiveNodes):
        self._base, self._live, self._view = base, live, base
        self._as_of: tuple[LiveState, int] | None = None

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Hold the live state as it is, and return the view with it."""
        with self._live.lock:
            now = self._live.state, self._live.version
            if now != self._as_of:
                touched = any(nodes.size for nodes in self._live.sides.values())
                self._view = self._base.over(overlay_of(self._live)) if touched else self._base
                self._as_of = now
            yield self._view
