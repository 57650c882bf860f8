"""How much memory learning takes, which nothing spills: a build that cannot hold it is refused before hours are spent."""

from __future__ import annotations

from mgoe._util.files import GIB
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.sketch import GRAM_ROWS, OVERSAMPLING

PROCESS = 180 << 20
"""Bytes of Python and the libraries before any work; 173 MiB were measured."""
A_TABLE = 48
"""Bytes of a pair of macro nodes while shares are made: sums of two threads, and four arrays on the way to logarithms."""
A_PAIR = 16
"""Bytes of a pair of the users that the sketch is learned from: item and score, and both again by item."""


def memory_needed(users: int, items: int, settings: GraphSettings, pairs: int = 0) -> int:
    """Bytes of anonymous memory at the peak of learning the sketch, as measured; tests hold it to 15 %.

    Args:
        users, items: Known.
        settings: Of the graph.
        pairs: Of all users.
    """
    sampled = min(users, settings.sample)
    at_the_end = 3 * items + sampled  # profile, result and padded result of the items, basis of the users
    on_the_way = 2 * sampled + max(
        items, sampled, 2 * min(sampled, GRAM_ROWS)
    )  # beside two bases: one of the items, a third, or a chunk
    rows = max(at_the_end, on_the_way)
    macro = (
        0 if settings.resolutions == "auto" else max(users * items for users, items in settings.resolutions)
    )
    return (
        PROCESS
        + A_TABLE * macro
        + 4 * (settings.rank + OVERSAMPLING) * rows
        + A_PAIR * pairs * sampled // max(users, 1)
    )


def check_memory(users: int, items: int, settings: GraphSettings, pairs: int = 0) -> None:
    """Refuse what `graph.memory` does not hold; arguments as for `memory_needed`.

    Raises:
        GraphError: It does not.
    """
    needed = memory_needed(users, items, settings, pairs) / GIB
    if needed > settings.memory:
        raise GraphError(
            "graph.memory",
            f"the sketch must be learned in memory, and {items:,} items and {min(users, settings.sample):,} users at rank {settings.rank} "
            f"need {needed:.2f} GiB, found {settings.memory:g}; raise graph.memory, or lower graph.rank or graph.sample",
        )
