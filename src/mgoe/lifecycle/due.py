"""When the weights of a bundle should be trained from scratch again."""

from datetime import datetime, timedelta

import numpy as np

from mgoe.bundle import Bundle
from mgoe.bundle.lineage import iso_time
from mgoe.config import seconds
from mgoe.data import Examples
from mgoe.graph import MacroGraph

NEWCOMERS = 0.3
"""Share of rows of items that came after the last full training, and so have no side features, from which
another one is due (ours)."""


def reasons(bundle: Bundle, graph: MacroGraph, examples: Examples) -> list[str]:
    """Return why a full training is due; nothing if it is not.

    Args:
        bundle: The bundle that was retrained.
        graph: Its graph with the new rows.
        examples: The new rows.
    """
    found = []
    items = int(bundle.manifest["log"]["items"])
    newcomers = float(np.mean((examples.item < 0) | (examples.item >= items)))
    if newcomers > NEWCOMERS:
        found.append(f"{newcomers:.0%} of the new rows have items that came after the last full training")
    since = datetime.fromisoformat(bundle.manifest["fully_trained_until"])
    age = datetime.fromisoformat(iso_time(graph.meta["last"])) - since
    if age > timedelta(seconds=seconds(bundle.settings.retrain.full_after)):
        found.append(
            f"the log has gone on for {age.days} days since the last one (retrain.full_after is "
            f"{bundle.settings.retrain.full_after})"
        )
    return found
