"""How much memory and disk a build needs, so that a user knows before hours are spent."""

from mgoe._util.files import GIB
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.build.resolutions import AUTO_RESOLUTIONS
from mgoe.graph.fold import SnapshotCuts, task_mask_type
from mgoe.graph.sketch import GRAM_ROWS, OVERSAMPLING

PROCESS = 180 << 20
"""Bytes of Python and the libraries before any work; 173 MiB were measured."""
BYTES_PER_MACRO_PAIR = 48
"""Of two macro nodes while shares are computed: sums of two threads, and four arrays on the way to
logarithms.
"""
BYTES_PER_SAMPLED_PAIR = 16
"""Of a pair of the sampled users: item and score, and both again by item."""
BYTES_PER_EDGE = 10
"""Of a 1st-order edge, at most."""
BYTES_PER_SORTED_EVENT = 16
"""Of an event while DuckDB sorts it, at most; it packs them to about two thirds."""


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
    at_the_end = 3 * items + sampled  # profile, result and padded result of the items, basis of the users
    # beside two bases: one of the items, a third, or a chunk
    on_the_way = 2 * sampled + max(items, sampled, 2 * min(sampled, GRAM_ROWS))
    rows = max(at_the_end, on_the_way)
    macro = 0 if settings.resolutions == "auto" else max(ku * ki for ku, ki in settings.resolutions)
    return (
        PROCESS
        + BYTES_PER_MACRO_PAIR * macro
        + 4 * (settings.rank + OVERSAMPLING) * rows
        + BYTES_PER_SAMPLED_PAIR * pairs * sampled // max(users, 1)
    )


def check_memory(users: int, items: int, settings: GraphSettings, pairs: int = 0) -> None:
    """Refuse a build that `graph.memory` cannot hold; arguments as for `memory_needed`.

    Raises:
        GraphError: The memory does not suffice.
    """
    needed = memory_needed(users, items, settings, pairs) / GIB
    if needed > settings.memory:
        sampled = min(users, settings.sample)
        raise GraphError(
            "graph.memory",
            f"the sketch must be learned in memory, and {items:,} items and {sampled:,} users at rank "
            f"{settings.rank} need {needed:.2f} GiB, found {settings.memory:g}; raise graph.memory, or lower "
            "graph.rank or graph.sample",
        )


def disk_needed(events: int, cuts: SnapshotCuts, settings: GraphSettings, tasks: int) -> int:
    """Return the bytes that a build writes at most.

    That is if no two events belong to one pair, and every edge to a macro node has weight.

    Args:
        events: Of the history.
        cuts: Of the snapshots.
        settings: Of the graph.
        tasks: T.
    """
    task_mask, vector = task_mask_type(tasks)().nbytes, 4 * settings.rank
    sizes = AUTO_RESOLUTIONS if settings.resolutions == "auto" else settings.resolutions
    node = 4 * (3 * tasks + 3) + settings.recents * (4 + task_mask) + vector + 16
    node += 2 * sum(sizes[settings.dense_of(len(sizes))])  # half precision, both orders
    node += 16 * len(sizes)  # where edges start, and the macro node
    kept = sum(12 * users * items + 32 * (users + items) for users, items in sizes) * len(cuts)
    for users, items in zip(cuts.users.tolist(), cuts.items.tolist(), strict=True):
        kept += (users + items) * node + items * (vector + 8)  # the basis again
        kept += BYTES_PER_EDGE * sum(min(users * ki, events) + min(items * ku, events) for ku, ki in sizes)
        kept += events * (4 + task_mask + 8 + 2)  # pairs by user
    users, items = int(cuts.users[-1]), int(cuts.items[-1])
    # of one snapshot at a time
    work = events * (4 + task_mask) + (users + items) * (4 * tasks + 36) + items * vector
    spilled = BYTES_PER_SORTED_EVENT * events
    return int(kept + max(work, spilled if spilled > settings.memory * 2**29 else 0))
