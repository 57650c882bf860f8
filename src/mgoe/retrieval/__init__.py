"""Candidates for a ranking model: a few hundred of millions of items, from generators that read a `View`.

Axes: `U` users, `I` items, `E` pairs that count, `L` links, `Ku` user macro nodes.
"""

from mgoe.graph.latest import PAIR, LatestPairs, Rows
from mgoe.graph.links import ItemLinks, computed
from mgoe.retrieval.blend import Blend
from mgoe.retrieval.generators import GENERATORS, Asked, Stored, find_generators
from mgoe.retrieval.history import Done, OwnItems, known_items, latest_pairs
from mgoe.retrieval.links import Former, item_links
from mgoe.retrieval.mix import best_quotas, mixed
from mgoe.retrieval.retrieval import Retrieval
from mgoe.retrieval.swing import swing_rows

__all__ = [
    "GENERATORS",
    "PAIR",
    "Asked",
    "Blend",
    "Done",
    "Former",
    "ItemLinks",
    "LatestPairs",
    "OwnItems",
    "Retrieval",
    "Rows",
    "Stored",
    "best_quotas",
    "computed",
    "find_generators",
    "item_links",
    "known_items",
    "latest_pairs",
    "mixed",
    "swing_rows",
]
