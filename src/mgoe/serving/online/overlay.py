"""The live state laid over what is stored: over a snapshot, as input groups read it, and over a bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.features import Overlay, PairOverlay, Source, View
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.online.live import Consumer, LiveNodes
from mgoe.serving.online.state import LiveState


def overlay_of(live: LiveNodes) -> Overlay:
    """Return the arrays of touched nodes and pairs, not copied."""
    user, item = (live.sides[side].overlay() for side in SIDES)
    pairs = PairOverlay(*(getattr(live.state.pairs, name) for name in PairOverlay._fields))
    return Overlay(user, item, pairs, tuple(live.state.rates.cells))


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
                moved, state = self._live.is_moved, self._live.state
                self._view = self._base.over(overlay_of(self._live), state.now) if moved else self._base
                self._as_of = now
            yield self._view


class LiveBundle(Bundle):
    """Predicts and recommends with the events of a log, up to when it was opened. Newcomers follow the known
    nodes.

    Args:
        bundle: As it was written.
        log: Its events that the bundle's graph lacks are applied.

    Raises:
        StoreError: A log is away.

    Example:
        >>> from mgoe.serving import Event, open_log
        >>> log = open_log("state")
        >>> log.append([Event(42, 7, "click", 1_800_000_000_000_000)])
        {}
        >>> LiveBundle(bundle, log).size("user") - bundle.size("user")
        1
        >>> log.close()
    """

    def __init__(self, bundle: Bundle, log: ServiceLog):
        super().__init__(bundle.path, bundle.manifest)
        consumer = Consumer.of(log, self)
        while consumer.has_more:  # those that come meanwhile do not keep it from answering
            consumer.catch_up()
        self._live = consumer.live
        self._now = LiveView(self.view, self._live)

    @property
    def _source(self) -> Source:
        return self._now

    def indices(self, side: Side, ids: ArrayLike | pa.Array) -> NDArray[np.int64]:
        return self._live.indices(side, ids)

    def ids(self, side: Side, indices: NDArray[np.int64]) -> list[Any]:
        return self._live.ids(side, indices)

    def size(self, side: Side) -> int:
        return self._live.size(side)
