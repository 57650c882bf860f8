"""The generators: each gives items of its own kind for a user, best first. Only `own` gives known items.

All of them read the view, so a live event counts at once: for the user's items, for what is recent, and for
the vector and macro node of a user who is new since the snapshot. Those of others stay until the next one. An
item that is registered live is found at once by what it is about.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.hash_table import free_places, place_of
from mgoe._util.kernels import kernel
from mgoe.config import named
from mgoe.features import View
from mgoe.features.sketch import SUMS
from mgoe.graph.best import offer, sort
from mgoe.graph.links import ItemLinks
from mgoe.retrieval.history import OwnItems
from mgoe.retrieval.links import Kind
from mgoe.retrieval.mix import is_among
from mgoe.retrieval.popular import SharedLists, recent_items
from mgoe.retrieval.sketch_index import SketchIndex

MOST_UNSEEN = 1 << 16
"""Items without events that are compared with a user, the newest of them."""


class Stored(NamedTuple):
    """What generators read beside a view, computed from its snapshot.

    Attributes:
        links: Item-to-item links by kind.
        fresh: How active each item is of late, see `freshness`. Shape (I,).
        half_life: Of the weights of a user's items, in microseconds.
        lists: Lists that many users share.
        sketch: Finds the items whose vectors are nearest.
        repeated: Share of each item's events in which its users come back, see `repeat_rates`. Shape (I,).
    """

    links: Mapping[Kind, ItemLinks]
    fresh: NDArray[np.float32]
    half_life: float
    lists: SharedLists
    sketch: SketchIndex
    repeated: NDArray[np.float32]


class Asked(NamedTuple):
    """A user in a view.

    Attributes:
        view: The view.
        user: By index, -1 without history.
        own: The user's items.
    """

    view: View
    user: NDArray[np.int64]
    own: OwnItems


def own(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return the items that the user acts on most, by decayed events."""
    events, rows = asked.own.recent_events, np.arange(len(asked.own.all))
    if len(rows) > n > 0:  # a partition is faster than sorting a long history
        rows = np.flatnonzero(events >= np.partition(events, len(rows) - n)[len(rows) - n])
    return asked.own.all[rows[np.argsort(-events[rows], kind="stable")[:n]]]


def item_to_item(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return items that are tied to the user's by cosine, weighted by what was done and when."""
    return _linked(stored, "cosine", asked.own, n)


def swing(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return items that are tied to the user's by swing, weighted by what was done and when."""
    return _linked(stored, "swing", asked.own, n)


def sketch(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return items whose vectors are nearest to the user's."""
    vector = asked.view.rows("user", "vectors", asked.user)[0]
    found = stored.sketch.nearest(vector, n + len(asked.own.latest))
    return _unknown(found, asked.own, n)


def unseen(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return items that the snapshot has no event of and whose vectors, which their content gives, are
    nearest to the user's. Only the newest `MOST_UNSEEN` are compared."""
    view, slot = asked.view, asked.view.overlay.item.slot
    vector = view.rows("user", "vectors", asked.user)[0]
    vectors, live = view.base["item"]["vectors"], view.overlay.item.vectors
    end = max(len(vectors), len(slot)) if vector.any() else 0
    start, most = max(view.snapshot.n_items, end - MOST_UNSEEN), n + len(asked.own.latest)
    items, near = np.empty(most, np.int32), np.empty(most, np.float32)
    size = _nearest_in_order(vector, vectors, slot, live, start, end, items, near)
    return _unknown(items[:size], asked.own, n)


def macro(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return the top items of the user's macro node, for each task in turn."""
    finest = len(asked.view.snapshot.resolutions) - 1
    [node] = asked.view.macro("user", finest, asked.user)
    lists = stored.lists.macro
    listed = lists[node] if 0 <= node < len(lists) else lists[:0].ravel()
    return _unknown(listed[listed >= 0], asked.own, n)


def recent(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return items with most events since the previous snapshot, and items whose first event is live."""
    return _unknown(recent_items(asked.view, stored.lists, n + len(asked.own.latest)), asked.own, n)


def popular(stored: Stored, asked: Asked, n: int) -> NDArray[np.int64]:
    """Return the items of the largest score."""
    return _unknown(stored.lists.popular, asked.own, n)


Generate = Callable[[Stored, Asked, int], NDArray[np.int64]]
GENERATORS: dict[str, Generate] = {
    one.__name__: one for one in (own, item_to_item, swing, sketch, unseen, macro, recent, popular)
}
"""By name, in the order in which they come first at equal places of the mix."""


def find_generators(quotas: Iterable[str]) -> dict[str, Generate]:
    """Return the built-in generators, and those of extensions that have a quota, by name.

    Raises:
        ConfigError: A name is unknown, or an extension cannot be imported.

    Example:
        >>> [*find_generators(["own"])][:3]
        ['own', 'item_to_item', 'swing']
    """
    return GENERATORS | {name: named("mgoe.generators", GENERATORS, name, Callable) for name in quotas}


def _unknown(items: NDArray[np.integer], own: OwnItems, n: int) -> NDArray[np.int64]:
    """Return the first n items that are not the user's."""
    return items[~is_among(items, own.all)][:n].astype(np.int64)


def _linked(stored: Stored, kind: Kind, own: OwnItems, n: int) -> NDArray[np.int64]:
    """Return the n items with the largest sum of links from the user's latest items; none of the user's.

    Items that the links do not know, because their first event is live, have none.
    """
    links = stored.links[kind]
    known = own.latest < len(links.indptr) - 1
    seeds, weights = own.latest[known], own.weight[known]
    most = int((links.indptr[seeds + 1] - links.indptr[seeds]).sum())
    items, totals = np.empty(min(n, most), np.int32), np.empty(min(n, most), np.float32)
    key = free_places(most, np.int32)
    size = _sum_links(links, stored.fresh, seeds, weights, own.all, key, items, totals)
    return items[:size].astype(np.int64)


@kernel("key", "items", "totals")
def _sum_links(links, fresh, seeds, weights, known, key, items, totals):  # pragma: no cover - compiled
    """Add up links in a hash table, and keep the best."""
    total = np.zeros(len(key), np.float32)
    for k in range(len(seeds)):
        for e in range(links.indptr[seeds[k]], links.indptr[seeds[k] + 1]):
            item = links.item[e]
            at = place_of(key, item)
            key[at] = item
            total[at] += weights[k] * links.weight[e]
    size = 0
    for at in range(len(key)):
        item = key[at]
        if item >= 0:
            place = np.searchsorted(known, item)
            if place == len(known) or known[place] != item:
                size = offer(items, totals, size, item, fresh[item] * total[at])
    sort(items, totals, size)
    return size


@kernel("items", "near", fastmath=SUMS)
def _nearest_in_order(vector, vectors, slot, live, start, end, items, near):  # pragma: no cover - compiled
    """Keep the items from `start` to `end` whose vectors are nearest, of those that have one."""
    size = 0
    for item in range(start, end):
        row = slot[item] if item < len(slot) else -1
        if row >= 0 or item < len(vectors):
            own = live[row] if row >= 0 else vectors[item]
            product, square = np.float32(0), np.float32(0)
            for d in range(len(vector)):
                product += own[d] * vector[d]
                square += own[d] * own[d]
            if square > 0:
                size = offer(items, near, size, np.int32(item), product / np.sqrt(square))
    sort(items, near, size)
    return size
