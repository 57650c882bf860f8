"""`ids`: who the user and the item are, and their macro nodes. Every batch has these keys."""

import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import Side


class Ids(NodeGroup):
    """Node and macro node of both sides, shape (B,) each. The last index of each stands for the unknown."""

    name = "ids"

    def keys(self, spec: FeatureSpec) -> tuple[Key, ...]:
        owned = (
            ("user", USER, spec.n_users),
            ("item", ITEM, spec.n_items),
            ("user_macro", USER, spec.macro_users),
            ("item_macro", ITEM, spec.macro_items),
        )
        return tuple(Key(name, "index", (owner,), unknown=n, size=n + 1) for name, owner, n in owned)

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        nodes, cold = pairs.nodes(side), view.cold(side)
        macro = {f"{side}_macro": view.macro(side, view.snapshot.dense, nodes, cold)}
        if pairs.spec is None:
            return macro
        asked = pairs.users if side == "user" else pairs.items
        return {side: _table_rows(asked, pairs.spec.size(side))} | macro


def _table_rows(nodes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return rows of an embedding table of `size` nodes; its last row, `size`, stands for all others. Shape
    (B,)."""
    return np.where((nodes < 0) | (nodes >= size), size, nodes).astype(np.int64, copy=False)
