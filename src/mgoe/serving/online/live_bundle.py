"""A bundle with live events: what a service answers, without the service."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.features import Source
from mgoe.graph.pair_rows import Side
from mgoe.serving.events.log import EventLog
from mgoe.serving.online.consumer import Consumer
from mgoe.serving.online.overlay import LiveView


class LiveBundle(Bundle):
    """Predicts and recommends with the events of a log, up to when it was opened. Newcomers follow the known
    nodes.

    Args:
        bundle: As it was written.
        log: Its events that the bundle's graph lacks are applied.

    Raises:
        StoreError: The log is away.
    """

    def __init__(self, bundle: Bundle, log: EventLog):
        super().__init__(bundle.path, bundle.manifest)
        self._live = Consumer.of(log, bundle).live

    def _known_items(self, user: int) -> NDArray[np.int32]:
        return self._live.known_items(user)

    @property
    def _source(self) -> Source:
        return LiveView(self.view, self._live)

    def indices(self, side: Side, ids: ArrayLike | pa.Array) -> NDArray[np.int64]:
        return self._live.indices(side, ids)

    def ids(self, side: Side, indices: NDArray[np.int64]) -> list[Any]:
        return self._live.ids(side, indices)

    def size(self, side: Side) -> int:
        return self._live.size(side)
