"""A bundle's scores of a file: in one process, in several, or on a cluster.

parts       a file of ids, cut into parts, and the one runner of them
pairs       mgoe predict, mgoe evaluate
lists       mgoe recommend --users
on_spark    both on a cluster

A module is imported when one of its names is first used.
"""

# ruff: noqa: F401 - what is imported for types is what is exported
from typing import TYPE_CHECKING

from mgoe._util.lazy import lazy

if TYPE_CHECKING:
    from mgoe.batch.lists import by_rows, recommend_users
    from mgoe.batch.on_spark import recommend_on_spark, score_on_spark
    from mgoe.batch.pairs import measure_pairs, score_pairs
    from mgoe.batch.parts import write_blocks

__getattr__, __dir__ = lazy(
    __name__,
    {
        "lists": ("by_rows", "recommend_users"),
        "on_spark": ("recommend_on_spark", "score_on_spark"),
        "pairs": ("measure_pairs", "score_pairs"),
        "parts": ("write_blocks",),
    },
)
