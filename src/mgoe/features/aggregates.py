"""`aggregates`: dense macro edges of both orders, and the macro task table."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import OTHER, Side


class Aggregates(NodeGroup):
    """log(1 + edge) of both orders, (B, Ki), (B, Ku), (B, Ku), (B, Ki), and the macro task tables, (B, T)
    each."""

    name = "aggregates"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        users, items, tasks = spec.macro_users, spec.macro_items, len(spec.tasks)
        edges = (("u1", USER, items), ("u2", USER, users), ("i1", ITEM, users), ("i2", ITEM, items))
        tables = (("table_user", USER, items), ("table_item", ITEM, users))
        return [
            dense(name, (owner, spec.widths.get(name, width)), hinges=False) for name, owner, width in edges
        ] + [
            Key(name, "index", (owner,), unknown=cold, size=cold + 1, length=tasks)
            for name, owner, cold in tables
        ]

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        nodes = pairs.nodes(side)
        return {
            f"{side[0]}1": view.rows(side, "log_first", nodes).astype(np.float32),
            f"{side[0]}2": view.rows(side, "log_second", nodes).astype(np.float32),
            f"table_{side}": view.rows(side, "table", nodes, view.cold(OTHER[side])).astype(np.int64),
        }
