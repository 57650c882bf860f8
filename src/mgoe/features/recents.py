"""`recents`: the user's last items and the item's last users, with the tasks done and their macro nodes."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, InputGroup, Key
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import OTHER, SIDES


class Recents(InputGroup):
    """Neighbours, newest first and padded with -1; the tasks done with them as bits; their macro nodes.
    Shape (B, R) each."""

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

    def read(self, view: View, pairs: Pairs) -> Arrays:
        at, spec = view.snapshot, pairs.spec
        nodes = {"user": pairs.user, "item": pairs.item}
        cold = {"user": at.macro_users, "item": at.macro_items}
        sizes = None if spec is None else {"user": spec.n_users, "item": spec.n_items}
        out: Arrays = {}
        for side in SIDES:
            other = OTHER[side]
            neighbours = view.rows(side, "recent", nodes[side], -1).astype(np.int64)
            out[f"recent_{other}s_task_mask"] = view.rows(side, "recent_task_mask", nodes[side]).astype(
                np.int64
            )
            out[f"recent_{other}s_macro"] = view.rows(other, "macro", neighbours, cold[other]).astype(
                np.int64
            )
            out[f"recent_{other}s"] = neighbours if sizes is None else np.minimum(neighbours, sizes[other])
        return out
