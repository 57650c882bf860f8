"""`side` and `context`: features of the user and of the item, but for vectors, and of the request."""

from collections.abc import Iterable, Mapping

from numpy.typing import NDArray

from mgoe.features.group import CONTEXT, ITEM, USER, Arrays, InputGroup, Key, NodeGroup, Owner, dense
from mgoe.features.spec import CategoricalSpec, FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import pair_rows


class Side(NodeGroup):
    """Numbers of each side as standard scores, shape (B, columns), and its categories, (B,) or padded lists
    (B, L)."""

    name = "side"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        users = encoded_keys("user_side", USER, spec.user_side, spec)
        return users + encoded_keys("item_side", ITEM, spec.item_side, spec)

    def read_side(self, view: View, pairs: Pairs, side: pair_rows.Side) -> Arrays:
        held, nodes = view.side[side], pairs.users if side == "user" else pairs.items
        plain = [name for name in held.arrays if name not in held.encoders.spaces]
        return named(f"{side}_side", {name: held.column(name, nodes) for name in plain})


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


class Context(InputGroup):
    """Numbers as standard scores, shape (B, columns), and categories, (B,) or padded lists (B, L)."""

    name = "context"

    def keys(self, spec: FeatureSpec) -> list[Key]:
        return encoded_keys("context", CONTEXT, spec.context, spec)

    def read(self, view: View, pairs: Pairs) -> Arrays:
        return named("context", pairs.context)
