"""Items by the values of their features and by popularity: what filters of a ranking read.

Axes: `B` items, `I` items of the snapshot, `V` values of a feature with the unknown one, `L` values per item.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import take
from mgoe.config import did_you_mean
from mgoe.data import SideFeatures, to_arrow
from mgoe.errors import BundleError, DataError

FIRST_LOOK = 4096
"""Items that a search for popular ones looks at first; each further look takes twice as many."""


class Filter(NamedTuple):
    """Items that have one of some values of a feature.

    Attributes:
        feature: Its name.
        wanted: Whether an item with this value passes; an unknown value never does. Shape (V + 1,); the last
            entry stands for the padding of several-valued features.
    """

    feature: str
    wanted: NDArray[np.bool_]


class ItemIndex:
    """Finds items by feature values, the most popular first.

    Args:
        side: Encoded features of items. An item that has none, such as one that is new since the bundle was
            written, has the unknown value of each.
        score_sum: Sum of the scores of each item's pairs: its popularity. Shape (I,).

    Example:
        >>> index = bundle.item_index
        >>> index.most_popular(3, [], np.empty(0, np.int64)).shape
        (3,)
    """

    def __init__(self, side: SideFeatures, score_sum: NDArray[np.floating]):
        self._side, self._score_sum = side, score_sum
        self._lists: dict[str, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}

    @property
    def features(self) -> list[str]:
        """Features with categories, which filters may name."""
        return [*self._side.encoders.sizes]

    def prepare(self) -> None:
        """Sort items by popularity and by the values of every feature, which the first list and the first
        filter would wait for."""
        _ = self._place
        for feature in self.features:
            self._items_by_value(feature)

    def filters(self, where: Mapping[str, Any]) -> list[Filter]:
        """Read filters.

        Args:
            where: One value or several by feature; an item passes if it has one of them.

        Raises:
            BundleError: A feature is not in the bundle, or is a number or a vector.
        """
        return [self._filter(name, values) for name, values in where.items()]

    def check(self, place: str, feature: str) -> None:
        """Refuse what is not a feature with categories.

        Raises:
            BundleError: It is not in the bundle, or is a number or a vector.
        """
        kinds = {one.name: one.kind for one in self._side.encoders.features}
        has = (
            f"it has {', '.join(self.features)}" if self.features else "it has none; see data.items.features"
        )
        if feature not in kinds:
            raise BundleError(
                place,
                f"{feature[:80]!r} is not an item feature of this bundle"
                f"{did_you_mean(feature, self.features)}; {has}",
            )
        if feature not in self.features:
            what, held = (
                ("number", "a standard score") if kinds[feature] == "numeric" else ("vector", "numbers")
            )
            raise BundleError(
                place,
                f"{feature!r} is a {what}, of which the bundle holds only {held}; "
                f"name a feature with categories: {has}",
            )

    def passes(
        self, items: NDArray[np.int64], filters: Sequence[Filter], left_out: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which items pass every filter and are not to be left out. Shape (B,).

        Args:
            items: Indices. Shape (B,).
            filters: All of which must hold.
            left_out: Indices of other items, rising. Shape (any,).
        """
        kept = np.ones(len(items), bool)
        if len(left_out):
            place = np.minimum(np.searchsorted(left_out, items), len(left_out) - 1)
            kept = left_out[place] != items
        for one in filters:
            kept &= one.wanted[self.values(one.feature, items)].any(axis=1)
        return kept

    def values(self, feature: str, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values of a feature by number, 0 where unknown, padded with -1. Shape (B, L)."""
        held = self._side.column(feature, items)
        return held if held.ndim == 2 else held[:, None]

    def places(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where items stand by popularity, from 0; those that the snapshot lacks stand last. Shape
        (B,)."""
        return take(self._place, items, len(self._place)).astype(np.int64)

    def most_popular(
        self, n: int, filters: Sequence[Filter], left_out: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the n most popular items that pass, the most popular first; all if they are fewer."""
        items, found, start, step = self._fewest(filters), list[NDArray[np.int64]](), 0, max(FIRST_LOOK, n)
        while start < len(items) and sum(map(len, found)) < n:
            block = items[start : start + step].astype(np.int64)
            found.append(block[self.passes(block, filters, left_out)])
            start, step = start + step, 2 * step
        return np.concatenate([*found, np.empty(0, np.int64)])[:n]

    def _filter(self, name: str, values: Any) -> Filter:
        place = f"where.{name[:80]}"
        self.check(place, name)
        asked = to_arrow(values, place)
        if not len(asked):
            raise BundleError(place, "must name at least one value, found none; leave the filter out")
        vocabulary = self._side.encoders.vocabularies[name]
        wanted = np.zeros(vocabulary.size + 2, bool)
        try:
            wanted[vocabulary.indices(asked) + 1] = True
        except (pa.ArrowException, DataError):
            raise BundleError(
                place, f"must be a value or a list of values, found {asked.type}; write them as in the log"
            ) from None
        wanted[0] = False
        return Filter(name, wanted)

    @cached_property
    def _by_popularity(self) -> NDArray[np.int32]:
        """All items of the snapshot, the most popular first. Shape (I,)."""
        return np.argsort(-np.asarray(self._score_sum), kind="stable").astype(np.int32)

    @cached_property
    def _place(self) -> NDArray[np.int32]:
        """Where an item stands in that order. Shape (I,)."""
        place = np.empty(len(self._by_popularity), np.int32)
        place[self._by_popularity] = np.arange(len(place), dtype=np.int32)
        return place

    def _fewest(self, filters: Sequence[Filter]) -> NDArray[np.int32]:
        """Return the items that pass the strictest filter, the most popular first."""
        if not filters:
            return self._by_popularity
        lists = [self._items_with(one) for one in filters]
        fewest = min(lists, key=lambda parts: sum(map(len, parts)))
        if len(fewest) == 1:
            return fewest[0]
        items = np.unique(np.concatenate([*fewest, np.empty(0, np.int32)]))
        return items[np.argsort(self._place[items])]

    def _items_with(self, one: Filter) -> list[NDArray[np.int32]]:
        """Return the items with each wanted value, the most popular first."""
        indptr, items = self._items_by_value(one.feature)
        return [items[indptr[value] : indptr[value + 1]] for value in np.flatnonzero(one.wanted).tolist()]

    def _items_by_value(self, feature: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return all items by value, those of each the most popular first: where each value starts, and the
        items."""
        if feature in self._lists:
            return self._lists[feature]
        held = self.values(feature, self._by_popularity.astype(np.int64))
        order = np.argsort(held, axis=None, kind="stable")
        value, items = held.ravel()[order], self._by_popularity[order // held.shape[1]]
        once = np.ones(len(value), bool)
        once[1:] = (value[1:] != value[:-1]) | (items[1:] != items[:-1])
        value, items = value[once], items[once]
        values = np.arange(self._side.encoders.sizes[feature] + 1)
        self._lists[feature] = np.searchsorted(value, values), items
        return self._lists[feature]
