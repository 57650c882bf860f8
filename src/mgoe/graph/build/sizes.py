"""The sizes of a graph: its numbers of macro nodes, and the memory that a build needs.

A user learns them before hours are spent.
"""

from mgoe._util.files import GIB
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.sketch import OVERSAMPLING

AUTO_RESOLUTIONS = ((6, 8), (12, 20), (25, 50), (100, 100), (300, 300))
NODES_PER_MACRO_NODE = 10
"""`auto` keeps a resolution only if the first snapshot has so many nodes per macro node."""
MOST_MACRO_NODES = (1 << 16) - 2
"""Macro nodes are stored in 16 bits."""
PROCESS = 180 << 20
"""Bytes of Python and the libraries before any work; 173 MiB were measured."""
BYTES_PER_MACRO_PAIR = 48
"""Bytes per pair of macro nodes while shares are computed: sums of two threads, and four arrays on the way to
logarithms.
"""
BYTES_PER_SAMPLED_PAIR = 16
"""Bytes per pair of the sampled users: item and score, and both again by item."""


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
        most = users // NODES_PER_MACRO_NODE, items // NODES_PER_MACRO_NODE
        fits = tuple((ku, ki) for ku, ki in AUTO_RESOLUTIONS if ku <= most[0] and ki <= most[1])
        return fits or ((max(1, min(6, users // 3)), max(1, min(8, items // 3))),)
    for ku, ki in settings.resolutions:
        for name, k, n in (("user", ku, users), ("item", ki, items)):
            if not 1 <= k <= MOST_MACRO_NODES:
                raise GraphError(
                    "graph.resolutions",
                    f"a side has 1 to {MOST_MACRO_NODES:,} macro nodes, found {k} for {name}s; ask for fewer",
                )
            if k > n:
                raise GraphError(
                    "graph.resolutions",
                    f"{k} {name} macro nodes are more than the {n} {name}s of the first snapshot; "
                    "ask for fewer, or `auto`",
                )
    return tuple(settings.resolutions)


def memory_needed(users: int, items: int, settings: GraphSettings, pairs: int = 0) -> int:
    """Return the anonymous memory at the peak of learning the sketch, in bytes, as measured; tests hold it to
    15 %.

    Nothing of it can be spilled.

    Args:
        users, items: Number of known nodes.
        settings: Of the graph.
        pairs: Number of distinct pairs.
    """
    sampled = min(users, settings.sample)
    rows = max(
        3 * items + sampled,  # at the end: profile, result and padded result of the items, basis of the users
        2 * sampled + items,  # in a power step: two of the users, one of the items
    )
    macro = 0 if settings.resolutions == "auto" else max(ku * ki for ku, ki in settings.resolutions)
    return (
        PROCESS
        + BYTES_PER_MACRO_PAIR * macro
        + 4 * (settings.rank + OVERSAMPLING) * rows
        + BYTES_PER_SAMPLED_PAIR * pairs * sampled // max(users, 1)
    )


def check_memory(users: int, items: int, settings: GraphSettings, memory: float, pairs: int = 0) -> None:
    """Refuse a build that the memory cannot hold, in GiB; other arguments as for `memory_needed`.

    Raises:
        GraphError: The memory does not suffice.
    """
    needed = memory_needed(users, items, settings, pairs) / GIB
    if needed > memory:
        raise GraphError(
            "memory",
            f"the sketch must be learned in memory, and {items:,} items and "
            f"{min(users, settings.sample):,} users at rank {settings.rank} need {needed:.2f} GiB, found "
            f"{memory:g}; raise memory, or lower graph.rank or graph.sample",
        )
