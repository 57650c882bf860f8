"""Candidates for a ranking model: a few hundred of millions of items, from generators that read a `View`.

Axes: `U` users, `I` items, `E` pairs that count, `L` links, `Ku` user macro nodes.
"""

from mgoe.retrieval.generators import GENERATORS
from mgoe.retrieval.links import ItemLinks, item_links
from mgoe.retrieval.mix import best_quotas, mixed
from mgoe.retrieval.retrieval import Retrieval

__all__ = ["GENERATORS", "ItemLinks", "Retrieval", "best_quotas", "item_links", "mixed"]
