"""Item-to-item links: for each item the items that the same users act on, by cosine or by swing.

Both count the `LATEST` items of each user; `swing` counts the `USERS` users of an item with the newest
events. Weights know nothing of how active an item is of late: that is applied when links are read, by
`freshness`. So a link changes only with the pairs that it is computed from, and lists are updated exactly at
a cost that grows with what is new, see `changed_items`. Links take 8 bytes each and computing them, per
thread, 16 bytes per item.
"""

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph import Snapshot
from mgoe.graph.latest import MINUTE, LatestPairs, Rows
from mgoe.graph.links import ItemLinks, computed, cosine_links, lengths
from mgoe.graph.pair_rows import copy_rows, starts
from mgoe.retrieval.history import LEAST, end_of, median_age
from mgoe.retrieval.swing import swing_rows

Kind = Literal["cosine", "swing"]
ALPHA = 1.0
"""Added to the number of items that two users have in common."""
USERS = 100
"""Users of an item that `swing` counts."""
FRESH = 0.1
"""Time in which a user of an item counts half for how active it is of late: a share of the median age."""
FRESHNESS = 0.3
"""Power of how active it is."""


class Former(NamedTuple):
    """What an update of links starts from.

    Attributes:
        rows: The latest pairs by user that its links were computed from. New nodes follow theirs.
        links: Its links, of the same kind and of as many per item.
    """

    rows: Rows
    links: ItemLinks


def item_links(
    pairs: LatestPairs, kind: Kind, n: int, threads: int = 2, former: Former | None = None
) -> ItemLinks:
    """Return the best n links of every item. Ties go to the item of the smaller index.

    Args:
        pairs: Nothing else is read, so no link knows of later events.
        kind: How two items are compared.
        n: Most links of an item.
        threads: Each computes other items; the result does not depend on their number.
        former: Links to update: only those of items that something changed for are computed. The result does
            not depend on it.

    Example:
        >>> from mgoe.retrieval import latest_pairs
        >>> pairs = latest_pairs(bundle.view.snapshot)
        >>> links = item_links(pairs, "swing", n=5)
        >>> again = item_links(pairs, "swing", n=5, former=Former(pairs.by_user, links))
        >>> len(links.indptr) == bundle.size("item") + 1, np.array_equal(again.item, links.item)
        (True, True)
    """
    size = len(pairs.by_item.indptr) - 1
    items = np.arange(size, dtype=np.int32)
    if former is not None:
        items = changed_items(former.rows, pairs, kind)
    if kind == "cosine":
        links = cosine_links(pairs, n, threads, items)
    else:
        links = computed(partial(swing_rows, pairs, ALPHA, USERS, False), pairs.by_item, items, n, threads)
    return links if former is None else _replaced(former.links, items, links, size)


def freshness(pairs: LatestPairs, snapshot: Snapshot) -> NDArray[np.float32]:
    """Return how active each item is of late, by which links to it are multiplied when they are read (ours).

    Its users, halved for every `FRESH` of the median age since their event, to the power `FRESHNESS`. Shape
    (I,).
    """
    half_life = FRESH * median_age(snapshot) / MINUTE
    return _fresh(pairs.by_item, end_of(snapshot) // MINUTE, half_life) ** np.float32(FRESHNESS)


@kernel()
def _fresh(by_item, end, half_life):  # pragma: no cover - compiled
    fresh = np.zeros(len(by_item.indptr) - 1, np.float32)
    for item in range(len(fresh)):
        total = 0.0
        for k in range(by_item.indptr[item], by_item.indptr[item + 1]):
            age = max(end - by_item.pairs[k].minute, 0)
            total += max(2.0 ** (-age / half_life), LEAST)
        fresh[item] = total
    return fresh


def changed_items(before: Rows, pairs: LatestPairs, kind: Kind) -> NDArray[np.int32]:
    """Return the items whose links may have changed, rising.

    A user whose pairs changed touches the links of all items of the user, before and after. For a cosine, an
    item whose rounded length changed touches those of all items beside it.

    Args:
        before: The latest pairs by user, before the change.
        pairs: All of them after it. Former users and items keep their indices.
        kind: Of the links.
    """
    items = len(pairs.by_item.indptr) - 1
    touched = np.zeros(items, np.bool_)
    _touch_changed(before, pairs.by_user, touched)
    if kind == "cosine":
        _touch_beside(pairs, lengths(before, items) != lengths(pairs.by_user, items), touched)
    return np.flatnonzero(touched).astype(np.int32)


@kernel("touched")
def _touch_changed(before, after, touched):  # pragma: no cover - compiled
    for user in range(len(after.indptr) - 1):
        first, last = after.indptr[user], after.indptr[user + 1]
        old, old_last = 0, 0
        if user + 1 < len(before.indptr):
            old, old_last = before.indptr[user], before.indptr[user + 1]
        same = last - first == old_last - old
        for e in range(last - first if same else 0):
            a, b = after.pairs[first + e], before.pairs[old + e]
            same = same and a.other == b.other and a.score == b.score and a.minute == b.minute
        if not same:
            for pair in after.pairs[first:last]:
                touched[pair.other] = True
            for pair in before.pairs[old:old_last]:
                touched[pair.other] = True


@kernel("touched")
def _touch_beside(pairs, changed, touched):  # pragma: no cover - compiled
    by_user, by_item = pairs
    for item in np.flatnonzero(changed):
        for k in range(by_item.indptr[item], by_item.indptr[item + 1]):
            user = by_item.pairs[k].other
            for pair in by_user.pairs[by_user.indptr[user] : by_user.indptr[user + 1]]:
                touched[pair.other] = True


def _replaced(former: ItemLinks, items: NDArray[np.int32], links: ItemLinks, size: int) -> ItemLinks:
    """Return former links with those of some items replaced; `size` items are known now."""
    old = np.full(size, -1, np.int64)
    old[: len(former.indptr) - 1] = np.arange(len(former.indptr) - 1)
    old[items] = -1
    kept = old >= 0
    count = np.zeros(size, np.int64)
    count[kept], count[items] = np.diff(former.indptr)[old[kept]], np.diff(links.indptr)
    indptr = starts(count)
    item, weight = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    copy_rows(*former, old[kept], indptr[:-1][kept], item, weight)
    copy_rows(*links, np.arange(len(items)), indptr[items], item, weight)
    return ItemLinks(indptr, item, weight)
