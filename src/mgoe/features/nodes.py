"""Input groups that are rows of the snapshot, one of the user and one of the item: who they are, what they
have done, with whom, and what they are about."""

import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import ITEM, USER, Arrays, InputGroup, Key, NodeGroup, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.counts import count_names
from mgoe.graph.pair_rows import OTHER, SIDES, Side


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
        macro = {f"{side}_macro": view.macro(side, view.snapshot.dense, nodes, cold, pairs.slots(side))}
        if pairs.spec is None:
            return macro
        asked = pairs.users if side == "user" else pairs.items
        return {side: _table_rows(asked, pairs.spec.size(side))} | macro


def _table_rows(nodes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return rows of an embedding table of `size` nodes; its last row, `size`, stands for all others. Shape
    (B,)."""
    return np.where((nodes < 0) | (nodes >= size), size, nodes).astype(np.int64, copy=False)


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
        other, nodes, slots, spec = OTHER[side], pairs.nodes(side), pairs.slots(side), pairs.spec
        neighbors = view.rows(side, "recent", nodes, -1, slots).astype(np.int64)
        masks = view.rows(side, "recent_task_mask", nodes, slots=slots).astype(np.int64)
        macro = view.macro(other, view.snapshot.dense, neighbors, view.cold(other), None)
        return {
            f"recent_{other}s": neighbors if spec is None else np.minimum(neighbors, spec.size(other)),
            f"recent_{other}s_task_mask": masks,
            f"recent_{other}s_macro": macro,
        }


class Counts(InputGroup):
    """`mgoe.graph.counts.node_counts` of the user, then of the item. Shape (B, 4T + 6)."""

    name = "counts"

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        width = spec.widths.get("counts", 0)
        return (dense("counts", (USER, width // 2), (ITEM, width - width // 2)),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        names = count_names(snapshot.arrays["user_table"].shape[1])
        return {"counts": [f"{side}.{name}" for side in SIDES for name in names]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return {
            "counts": np.concatenate(
                [view.rows(side, "counts", pairs.nodes(side), slots=pairs.slots(side)) for side in SIDES],
                axis=1,
            )
        }


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
        nodes, cold = pairs.nodes(side), view.cold(OTHER[side])
        return {
            f"{side[0]}1": view.rows(side, "log_first", nodes, slots=pairs.slots(side)).astype(np.float32),
            f"{side[0]}2": view.rows(side, "log_second", nodes, slots=None).astype(np.float32),
            f"table_{side}": view.rows(side, "table", nodes, cold, None).astype(np.int64),
        }


class Placing(NodeGroup):
    """Whether a node is placed by its content, and the share of its own scores in its sum. Shape (B, 2) per
    side."""

    name = "placing"

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        if side not in view.snapshot.placed:
            return {}
        nodes, slots = pairs.nodes(side), pairs.slots(side)
        kappa, total = (view.rows(side, name, nodes, slots=slots) for name in ("kappa", "sum"))
        own = (total - kappa) / np.maximum(total, 1e-9)
        return {f"{side}_placing": np.column_stack([kappa > 0, own]).astype(np.float32)}


class Content(NodeGroup):
    """The whitened vectors of each side, each followed by whether there is one. Shape (B, columns) each."""

    name = "content"

    def read_side(self, view: View, pairs: Pairs, side: Side) -> Arrays:
        held, nodes = view.side[side], pairs.users if side == "user" else pairs.items
        vectors = [held.column(name, nodes) for name in held.encoders.spaces]
        return {f"{side}_content": np.concatenate(vectors, 1).astype(np.float32)} if vectors else {}
