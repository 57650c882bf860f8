"""`ids`: who the user and the item are, and their macro nodes. Every batch has these keys."""

import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import ITEM, USER, Arrays, InputGroup, Key
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View


class Ids(InputGroup):
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

    def read(self, view: View, pairs: Pairs) -> Arrays:
        at, spec = view.snapshot, pairs.spec
        out: Arrays = {
            "user_macro": view.rows("user", "macro", pairs.user, at.macro_users).astype(np.int64),
            "item_macro": view.rows("item", "macro", pairs.item, at.macro_items).astype(np.int64),
        }
        if spec is not None:
            out |= {
                "user": _table_rows(pairs.users, spec.n_users),
                "item": _table_rows(pairs.items, spec.n_items),
            }
        return out


def _table_rows(nodes: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return rows of an embedding table of `size` nodes; its last row, `size`, stands for all others. Shape
    (B,)."""
    return np.where((nodes < 0) | (nodes >= size), size, nodes).astype(np.int64, copy=False)
