"""The input groups in their order, and how pairs are read through them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mgoe.config import named
from mgoe.features.categories import Categories
from mgoe.features.edges import Edges
from mgoe.features.encoded import Context, Side
from mgoe.features.group import Arrays, InputGroup, Key, Part
from mgoe.features.links import Links
from mgoe.features.moments import at_moments
from mgoe.features.nodes import Aggregates, Content, Counts, Ids, Placing, Recents
from mgoe.features.pair import Pair
from mgoe.features.rates import RatesOfExposures
from mgoe.features.repeats import Repeats
from mgoe.features.sketch import Sketch
from mgoe.features.spec import FeatureSpec
from mgoe.features.trend import Trend
from mgoe.features.view import Pairs, View
from mgoe.graph.pair_rows import Side as NodeSide

GROUPS: dict[str, InputGroup] = {
    group.name: group
    for group in (
        Ids(),
        Side(),
        Context(),
        Recents(),
        Counts(),
        Pair(),
        Sketch(),
        Edges(),
        Aggregates(),
        RatesOfExposures(),
        Placing(),
        Content(),
        Repeats(),
        Trend(),
        Links(),
        Categories(),
    )
}
"""Registered input groups by name, in the order in which models read their columns. A new group goes at the
end, so that trained models keep their columns."""


def input_groups(names: Collection[str]) -> dict[str, InputGroup]:
    """Return some input groups by name, in the order in which models read their columns: that of `GROUPS`,
    and then extensions by name.

    Raises:
        ConfigError: A name is unknown, or an extension cannot be imported.

    Example:
        >>> [*input_groups(["pair", "counts"])]
        ['counts', 'pair']
    """
    order = [name for name in GROUPS if name in names] + sorted({*names}.difference(GROUPS))
    return {name: named("mgoe.inputs", GROUPS, name, InputGroup) for name in order}


def batch_keys(spec: FeatureSpec, groups: Collection[str]) -> dict[str, Key]:
    """Return the keys of a batch that holds some groups, by name, in the order of `input_groups`; those
    of `ids` are always there.

    Example:
        >>> [*batch_keys(spec, ["counts", "pair"])]
        ['user', 'item', 'user_macro', 'item_macro', 'counts', 'pair']
    """
    return {
        key.name: key
        for group in input_groups({"ids", *groups}).values()
        for key in group.keys(spec)
        if key.owners
    }


class Reader:
    """Reads pairs for one model.

    Args:
        groups: The groups to read besides `ids`.
        spec: What the model was made for: sizes of its tables. Without it, nodes are not looked up in tables.
        part: Read the columns of this part alone, and no others. It needs `spec`.
        side: Read keys with columns of this side, which may have others beside them.

    Example:
        >>> found = Reader(["counts"], spec)(bundle.view, np.array([0, 1]), np.array([0, 1]))
        >>> sorted(found)
        ['counts', 'item', 'item_macro', 'user', 'user_macro']
    """

    def __init__(
        self,
        groups: Iterable[str],
        spec: FeatureSpec | None = None,
        part: Part | None = None,
        side: NodeSide | None = None,
    ):
        self._spec = spec
        self._reads: list[Callable[[View, Pairs], Arrays]] = []
        for group in input_groups({"ids", *groups}).values():
            if (
                group.fresh
                and spec is not None
                and spec.widths
                and not any(key.owners for key in group.keys(spec))
            ):
                continue  # the model was made for rows that do not read it
            if part is not None:
                keys = [] if spec is None else [key for key in group.keys(spec) if part in key.parts]
                if keys:
                    self._reads.append(partial(group.read_part, part=part, keys=keys))
            else:
                self._reads.append(group.read if side is None else partial(group.read_side, side=side))

    def __call__(
        self,
        view: View,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray] | None = None,
        moments: NDArray[np.int64] | None = None,
    ) -> Arrays:
        """Return the arrays of pairs that share one view, by batch key. Labels never enter here.

        Args:
            view: What the pairs are read from.
            users, items: By index. One that is negative or beyond the view is a node without history. Shape
                (B,) each.
            context: Encoded context features, each of B rows, or of one row for all.
            moments: What each pair is read strictly before, microseconds, if the view has moments, and from
                when ages count; as of the view by default. Shape (B,).

        Raises:
            GraphError: Users and items differ in length.
        """
        slots = None
        if moments is not None and view.moments is not None:
            view, slots = at_moments(view, users, items, moments)
        pairs = Pairs.of(view, users, items, context or {}, self._spec, slots, moments)
        out = Arrays()
        for read in self._reads:
            out |= read(view, pairs)
        return out


def read(
    view: View,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    groups: Iterable[str],
    context: Mapping[str, NDArray] | None = None,
) -> Arrays:
    """Return the arrays of some groups for pairs that share one view, without a model. See `Reader`.

    Example:
        >>> read(bundle.view, np.array([0, 1]), np.array([3, 3]), ["pair"])["pair"].shape[0]
        2
    """
    return Reader(groups)(view, users, items, context)
