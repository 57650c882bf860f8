"""Reading pairs of a snapshot or of a live state, without a model."""

from collections.abc import Iterable, Mapping

import numpy as np

from mgoe.features import Reader, Source, View
from mgoe.graph import Snapshot
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView


def gather(
    source: Snapshot | LiveNodes,
    users: np.ndarray,
    items: np.ndarray,
    groups: Iterable[str],
    context: Mapping[str, np.ndarray] | None = None,
    moment: int | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of some groups for pairs of indices, as of a moment if one is given."""
    view: Source = (
        View.of(source) if isinstance(source, Snapshot) else LiveView(View.of(source.snapshot), source)
    )
    with view.reading() as now:
        moments = np.full(len(users), now.now if moment is None else moment)
        return Reader(groups)(now, users, items, context, moments)
