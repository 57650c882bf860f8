"""`aggregates`: dense macro edges of both orders, and the macro task table."""

import numpy as np

from mgoe.features.group import ITEM, USER, Arrays, InputGroup, Key, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View


class Aggregates(InputGroup):
    """log(1 + edge) of both orders, (B, Ki), (B, Ku), (B, Ku), (B, Ki), and the macro task tables, (B, T)
    each."""

    name = "aggregates"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        users, items, tasks = spec.macro_users, spec.macro_items, len(spec.tasks)
        edges = (("u1", USER, items), ("u2", USER, users), ("i1", ITEM, users), ("i2", ITEM, items))
        tables = (("table_user", USER, items), ("table_item", ITEM, users))
        return [dense(name, (owner, spec.widths.get(name, width))) for name, owner, width in edges] + [
            Key(name, "index", (owner,), unknown=cold, size=cold + 1, length=tasks)
            for name, owner, cold in tables
        ]

    def read(self, view: View, pairs: Pairs) -> Arrays:
        at, (user, item) = view.snapshot, (pairs.user, pairs.item)
        return {
            "u1": view.rows("user", "log_first", user).astype(np.float32),
            "u2": view.rows("user", "log_second", user).astype(np.float32),
            "i1": view.rows("item", "log_first", item).astype(np.float32),
            "i2": view.rows("item", "log_second", item).astype(np.float32),
            "table_user": view.rows("user", "table", user, at.macro_items).astype(np.int64),
            "table_item": view.rows("item", "table", item, at.macro_users).astype(np.int64),
        }
