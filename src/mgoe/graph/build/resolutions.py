"""How many macro nodes a graph has."""

from mgoe.config import GraphSettings
from mgoe.errors import GraphError

AUTO_RESOLUTIONS = ((6, 8), (12, 20), (25, 50), (100, 100), (300, 300))
NODES_PER_MACRO_NODE = 10
"""`auto` keeps a resolution only if the first snapshot has so many nodes per macro node."""
MOST_MACRO_NODES = (1 << 16) - 2
"""Macro nodes are stored in 16 bits."""


def choose_resolutions(settings: GraphSettings, users: int, items: int) -> tuple[tuple[int, int], ...]:
    """Return the numbers of macro nodes; they depend on the first snapshot alone, so later events do not
    change them.

    Args:
        settings: Of the graph.
        users, items: Number of nodes with history at the first snapshot.

    Raises:
        GraphError: An explicit number exceeds the nodes.
    """
    if settings.resolutions == "auto":
        fits = [
            size
            for size in AUTO_RESOLUTIONS
            if size[0] * NODES_PER_MACRO_NODE <= users and size[1] * NODES_PER_MACRO_NODE <= items
        ]
        small = (max(1, min(6, users // 3)), max(1, min(8, items // 3)))
        return tuple(fits) or (small,)
    for ku, ki in settings.resolutions:
        for name, k, n in (("user", ku, users), ("item", ki, items)):
            if not 1 <= k <= MOST_MACRO_NODES:
                rule = f"a side has 1 to {MOST_MACRO_NODES:,} macro nodes, found {k} for {name}s"
                raise GraphError("graph.resolutions", f"{rule}; ask for fewer")
            if k > n:
                rule = f"{k} {name} macro nodes are more than the {n} {name}s of the first snapshot"
                raise GraphError("graph.resolutions", f"{rule}; ask for fewer, or `auto`")
    return tuple(settings.resolutions)
