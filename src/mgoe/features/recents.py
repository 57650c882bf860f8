"""`recents`: the user's last items and the item's last users, with the tasks done and their macro nodes."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import OTHER, Side


class Recents(NodeGroup):
    """Neighbours, newest first and padded with -1; the tasks done with them as bits; their macro nodes. Shape
    (B, R) each."""

    name = "recents"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        keys = []
        for name, owner, nodes, macro in (
            ("recent_items", USER, spec.n_items, spec.macro_items),
            ("recent_users", ITEM, spec.n_users, spec.macro_users),
        ):
            masks = 1 << len(spec.tasks)
            for suffix, unknown, size in (
                ("", -1, nodes + 1),
                ("_task_mask", 0, masks),
                ("_macro", macro, macro + 1),
            ):
                keys.append(Key(f"{name}{suffix}", "index", (owner,), unknown, size, spec.recents))
        return keys

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        other, nodes, spec = OTHER[side], pairs.nodes(side), pairs.spec
        neighbors = view.rows(side, "recent", nodes, -1).astype(np.int64)
        macro = view.macro(other, view.snapshot.dense, neighbors, view.cold(other))
        return {
            f"recent_{other}s": neighbors if spec is None else np.minimum(neighbors, spec.size(other)),
            f"recent_{other}s_task_mask": view.rows(side, "recent_task_mask", nodes).astype(np.int64),
            f"recent_{other}s_macro": macro,
        }
