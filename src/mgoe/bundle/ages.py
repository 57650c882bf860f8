"""How old a bundle is: its graph, its weights, and its last full training."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgoe.bundle.bundle import Bundle


def ages(bundle: "Bundle", now: datetime | None = None) -> dict[str, float]:
    """Return what a service reports of the age of its bundle, by the times of the log.

    Args:
        bundle: The bundle; one of an earlier version does not say how old its weights are.
        now: The present by default.

    Returns:
        Seconds since the newest event of the graph, since the newest row that the weights learned from, and
        since that of the last full training; and the drift of the graph, at the resolution that experts read.

    Example:
        >>> from mgoe.bundle import ages
        >>> sorted(ages(bundle))
        ['full training age seconds', 'graph age seconds', 'graph drift', 'weights age seconds']
    """
    now, graph = now or datetime.now(UTC), bundle.graph
    drift = graph.meta["drift"]
    since = {
        "graph": datetime.fromtimestamp(graph.meta["last"] / 1e6, UTC),
        **{
            name: datetime.fromisoformat(bundle.manifest[key])
            for name, key in (("weights", "trained_until"), ("full training", "fully_trained_until"))
            if key in bundle.manifest
        },
    }
    return {f"{name} age seconds": (now - moment).total_seconds() for name, moment in since.items()} | {
        "graph drift": drift[bundle.settings.graph.dense_of(len(drift))]
    }
