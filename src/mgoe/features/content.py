"""`content`: vectors of the user and of the item."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import Side


class Content(NodeGroup):
    """The whitened vectors of each side, each followed by whether there is one. Shape (B, columns) each."""

    name = "content"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        sides = ("user_content", USER), ("item_content", ITEM)
        return [dense(name, (owner, spec.widths.get(name, 0)), hinges=False) for name, owner in sides]

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        held, nodes = view.side[side], pairs.users if side == "user" else pairs.items
        vectors = [held.column(name, nodes) for name in held.encoders.spaces]
        return {f"{side}_content": np.concatenate(vectors, 1).astype(np.float32)} if vectors else {}
