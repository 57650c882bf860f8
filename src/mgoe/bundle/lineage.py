"""Where a bundle comes from: its parent, how it was trained, and the log that its graph holds."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mgoe import __version__
from mgoe.graph import MacroGraph

Trained = Literal["full", "retrained", "refreshed"]
"""From new weights; from the weights of the parent; or not at all, with the weights of the parent."""


def lineage(graph: MacroGraph, trained: Trained, parent: str | None = None) -> dict[str, Any]:
    """Return the `lineage` of a manifest. Followed from parent to parent, it ends at a full training.

    Args:
        graph: The graph of the bundle.
        trained: How its weights came about.
        parent: `Bundle.name` of the bundle that it was made from; None after a full training.

    Example:
        >>> from mgoe.bundle import lineage
        >>> lineage(graph, "refreshed", parent="5f1d7a84e963")["parent"]
        '5f1d7a84e963'
    """
    return {
        "parent": parent,
        "trained": trained,
        "log": [iso_time(graph.meta[end]) for end in ("first", "last")],
        "version": __version__,
    }


def now() -> str:
    """Return the present as text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def iso_time(microseconds: int) -> str:
    """Return a moment since 1970 as text."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
