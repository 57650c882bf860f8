"""`side`: side features of the user and of the item."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mgoe.features.group import ITEM, USER, Arrays, Key, NodeGroup, Owner, dense
from mgoe.features.spec import CategoricalSpec, FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import pair_rows


class Side(NodeGroup):
    """Numbers of each side as standard scores, shape (B, columns), its categories, (B,) or padded lists (B,
    L), and its whitened vectors, each followed by whether there is one, (B, columns)."""

    name = "side"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        users = encoded_keys("user_side", USER, spec.user_side, spec)
        vectors = [
            dense(name, (owner, spec.widths.get(name, 0)), hinges=False)
            for name, owner in (("user_side_vector", USER), ("item_side_vector", ITEM))
        ]
        return [*users, *encoded_keys("item_side", ITEM, spec.item_side, spec), *vectors]

    def read_side(self, view: View, pairs: Pairs, side: pair_rows.Side) -> Arrays:
        held = view.side[side]
        found = held.gather(pairs.users if side == "user" else pairs.items)
        vectors = [found.pop(name) for name in held.encoders.spaces]
        arrays = named(f"{side}_side", found)
        if vectors:
            arrays[f"{side}_side_vector"] = np.concatenate(vectors, 1).astype(np.float32)
        return arrays


def encoded_keys(
    prefix: str, owner: Owner, categories: Iterable[CategoricalSpec], spec: FeatureSpec
) -> list[Key]:
    """Return the keys of encoded features: all numbers together, then each category."""
    numeric = f"{prefix}_numeric"
    return [dense(numeric, (owner, spec.widths.get(numeric, 0)))] + [
        Key(
            f"{prefix}.{feature.name}",
            "category",
            (owner,),
            unknown=-1 if feature.multi else 0,
            size=feature.size,
            length=1 if feature.multi else None,
            rare=feature.rare,
        )
        for feature in categories
    ]


def named(prefix: str, features: Mapping[str, NDArray]) -> Arrays:
    """Return encoded features by batch key."""
    return {
        f"{prefix}_numeric" if name == "numeric" else f"{prefix}.{name}": values
        for name, values in features.items()
    }
