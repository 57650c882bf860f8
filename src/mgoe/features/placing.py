"""`placing`: how much of what a node reads its content has said."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import Side


class Placing(NodeGroup):
    """Whether a node is placed by its content, and the share of its own scores in its sum. Shape (B, 2) per
    side."""

    name = "placing"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        sides = ("user_placing", USER), ("item_placing", ITEM)
        return [dense(name, (owner, spec.widths.get(name, 0)), hinges=False) for name, owner in sides]

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        if side not in view.snapshot.placed:
            return {}
        kappa, total = (view.rows(side, name, pairs.nodes(side)) for name in ("kappa", "sum"))
        own = (total - kappa) / np.maximum(total, 1e-9)
        return {f"{side}_placing": np.column_stack([kappa > 0, own]).astype(np.float32)}
