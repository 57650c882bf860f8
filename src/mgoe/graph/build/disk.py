"""How much disk a build needs, so that a user knows before hours are spent."""

from __future__ import annotations

from mgoe.config import GraphSettings
from mgoe.graph.build.resolutions import AUTO_RESOLUTIONS
from mgoe.graph.fold import SnapshotCuts, task_mask_type

EDGE = 10
"""Bytes of a 1st-order edge, at most."""
SORTED_EVENT = 16
"""Bytes of an event while DuckDB sorts it, at most; it packs them to about two thirds."""


def disk_needed(events: int, moments: SnapshotCuts, settings: GraphSettings, tasks: int) -> int:
    """Bytes that a build writes at most: as if no two events were of one pair, and every edge to a macro node had weight.

    Args:
        events: Of the history.
        moments: Of the snapshots.
        settings: Of the graph.
        tasks: T.
    """
    code, vector = task_mask_type(tasks)().nbytes, 4 * settings.rank
    sizes = AUTO_RESOLUTIONS if settings.resolutions == "auto" else settings.resolutions
    node = 4 * (3 * tasks + 3) + settings.recents * (4 + code) + vector + 16
    node += 2 * sum(sizes[settings.dense_of(len(sizes))])  # half precision, both orders
    node += 16 * len(sizes)  # where edges start, and the macro node
    kept = sum(12 * users * items + 32 * (users + items) for users, items in sizes) * len(moments)
    for users, items in zip(moments.users.tolist(), moments.items.tolist(), strict=True):
        kept += (users + items) * node + items * (vector + 8)  # the basis again
        kept += EDGE * sum(min(users * ki, events) + min(items * ku, events) for ku, ki in sizes)
        kept += events * (4 + code + 8 + 2)  # pairs by user
    users, items = int(moments.users[-1]), int(moments.items[-1])
    work = (
        events * (4 + code) + (users + items) * (4 * tasks + 36) + items * vector
    )  # of one snapshot at a time
    return int(
        kept + max(work, SORTED_EVENT * events if events * SORTED_EVENT > settings.memory * 2**29 else 0)
    )
