"""How much disk a build needs, so that a user knows before hours are spent."""

from __future__ import annotations

from mgoe.config import GraphSettings
from mgoe.graph.pairs import Moments, code_type

SORTED_EVENT = 16
"""Bytes of an event while DuckDB sorts it, at most; it packs them to about two thirds."""


def disk_needed(events: int, moments: Moments, settings: GraphSettings, tasks: int) -> int:
    """Bytes that a build writes at most: as if no two events were of one pair, and every edge to a macro node had weight.

    Args:
        events: Of the history.
        moments: Of the snapshots.
        settings: Of the graph.
        tasks: T.
    """
    code = code_type(tasks)().nbytes
    sizes = [(100, 100)] if settings.resolutions == "auto" else settings.resolutions
    dense = sizes[settings.dense_of(len(sizes))]
    total = 0
    for users, items in zip(moments.users.tolist(), moments.items.tolist(), strict=True):
        node = 4 * (2 * tasks + 3) + settings.recents * (4 + code) + 4 * settings.rank + 4 * tasks + 32
        node += 2 * sum(dense)  # half precision, both orders
        node += sum(8 + 6 * min(max(size), max(1, events // max(users, 1))) for size in sizes)
        total += (users + items) * node + items * (4 * settings.rank + 8)  # the basis again
        total += events * (4 + code + 8 + 2)  # by user, kept
    by_item = events * (4 + code)
    return int(total + max(by_item, SORTED_EVENT * events if events * SORTED_EVENT > settings.memory * 2**29 else 0))
