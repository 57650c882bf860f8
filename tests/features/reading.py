"""Reading pairs of a snapshot or of a live state, without a model."""

from collections.abc import Iterable, Mapping

import numpy as np

from mgoe.features import Source, View, read
from mgoe.graph import Snapshot
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView


def gather(
    source: Snapshot | LiveNodes,
    users: np.ndarray,
    items: np.ndarray,
    groups: Iterable[str],
    context: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of some groups for pairs of indices."""
    view: Source = (
        View.of(source) if isinstance(source, Snapshot) else LiveView(View.of(source.snapshot), source)
    )
    with view.reading() as now:
        return read(now, users, items, groups, context)
