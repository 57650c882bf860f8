"""Cosine links: two items compared by the scores `x` of their users (Sarwar et al., 2001). What a user did
within a short time counts most, and `SHRINK` keeps links of few users low:

    w(i, j) = sum_u x_ui x_uj near_u(i, j) / (|x_i| |x_j| + SHRINK)
    near_u(i, j) = 1 / (1 + days between the user's events / NEAR)

Lengths |x| are rounded to powers of 2^(1/4). So few new events change a length, and with it the links of all
items beside it.

Axes: `I` items, `R` rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import exp, log
from mgoe.graph.best import keep_best
from mgoe.graph.latest import DAY, MINUTE, LatestPairs, Rows
from mgoe.graph.pair_rows import block_bounds, starts

NEAR = 2.0
"""Days between two events of a user at which they count half."""
SHRINK = 2.0
"""Added to the product of the lengths of two items, in squares of a score."""
_NEAR = np.float32(NEAR * DAY / MINUTE)
_SHRINK = np.float32(SHRINK)
_TOTAL, _LENGTH = 0, 1
MOST_LINKS = 50
"""Links of an item that a snapshot holds for models."""
PARTS = 256
"""Parts of the items, about; threads take one after the other."""
PART_ITEMS = 1 << 14
"""Most items of a part."""


class ItemLinks(NamedTuple):
    """Links from items to items, rows of the source items, best first.

    Attributes:
        indptr: Where the links of each item start. Shape (I + 1,).
        item, weight: The other item, and how strongly it is tied. Shape (L,) each.

    Example:
        >>> from mgoe.retrieval import item_links, latest_pairs
        >>> links = item_links(latest_pairs(bundle.view.snapshot), "cosine", n=5)
        >>> int(np.diff(links.indptr).max())
        5
    """

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    weight: NDArray[np.float32]

    def by_item(self) -> ItemLinks:
        """Return the same links, the other items of each rising."""
        order = np.lexsort((self.item, np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))))
        return ItemLinks(self.indptr, self.item[order], self.weight[order])


def computed(
    compute: Callable[..., None], by_item: Rows, items: NDArray[np.int32], n: int, threads: int = 2
) -> ItemLinks:
    """Compute the links of some items, rows in their order, in parts on threads.

    Args:
        compute: Takes items, and fills (R, n) other items, (R, n) weights, and the number of links, (R,).
        by_item: The users of all items; parts of the items have as many of these.
        items: Indices. Shape (R,).
        n: Most links of an item.
        threads: Number of threads.
    """

    def part(bounds: tuple[int, int]) -> tuple[NDArray, NDArray, NDArray]:
        some = items[slice(*bounds)]
        item, weight = np.empty((len(some), n), np.int32), np.empty((len(some), n), np.float32)
        count = np.zeros(len(some), np.int64)
        compute(some, item, weight, count)
        there = np.arange(n) < count[:, None]
        return count, item[there], weight[there]

    work = starts(np.diff(by_item.indptr)[items])
    most = len(items) * n  # memory is taken as it is filled
    item, weight = np.empty(most, np.int32), np.empty(most, np.float32)
    counts, end = [np.empty(0, np.int64)], 0
    with ThreadPoolExecutor(threads) as pool:
        for count, some, tied in pool.map(part, block_bounds(work, max(1, work[-1] // PARTS), PART_ITEMS)):
            counts.append(count)
            item[end : end + len(some)], weight[end : end + len(some)] = some, tied
            end += len(some)
    return ItemLinks(starts(np.concatenate(counts)), item[:end], weight[:end])


def cosine_links(
    pairs: LatestPairs, n: int, threads: int, items: NDArray[np.int32] | None = None
) -> ItemLinks:
    """Return the best n links of some items by their cosine, of all by default; other arguments as for
    `computed`."""
    size = len(pairs.by_item.indptr) - 1
    compute = partial(cosine_rows, pairs, lengths(pairs.by_user, size))
    return computed(
        compute, pairs.by_item, np.arange(size, dtype=np.int32) if items is None else items, n, threads
    )


def lengths(by_user: Rows, items: int) -> NDArray[np.float32]:
    """Return the rounded length of each item, 0 without users. Shape (I,)."""
    square = _squares(by_user, items)
    steps = np.round(2 / np.log(2) * log(np.maximum(square, 1e-30)))
    return np.where(square > 0, exp(np.log(2) / 4 * steps), 0).astype(np.float32)


@kernel()
def _squares(by_user, items):  # pragma: no cover - compiled
    square = np.zeros(items)
    for pair in by_user.pairs:
        square[pair.other] += pair.score**2
    return square


@kernel("to_item", "to_weight", "count")
def cosine_rows(pairs, length, items, to_item, to_weight, count):  # pragma: no cover - compiled
    """Compute the links of some items: the best first, (R, n) each, and how many there are, (R,)."""
    by_user, by_item = pairs
    user_indptr, user_pairs = by_user
    # what is read of an item lies together, since most of the time goes into waiting for memory
    state = np.zeros((len(length), 2), np.float32)
    state[:, _LENGTH] = length
    touched, tied = np.empty(len(length), np.int32), np.empty(len(length), np.float32)
    for row in range(len(items)):
        i, n, others = items[row], 0, 0
        for k in range(by_item.indptr[i], by_item.indptr[i + 1]):
            own = by_item.pairs[k]
            score, minute = own.score, np.int64(own.minute)
            for e in range(user_indptr[own.other], user_indptr[own.other + 1]):
                pair = user_pairs[e]
                j = pair.other
                if state[j, _TOTAL] == 0:
                    touched[n] = j
                    n += 1
                apart = np.float32(abs(minute - pair.minute))
                state[j, _TOTAL] += score * pair.score * (_NEAR / (_NEAR + apart))
        for k in range(n):
            j = touched[k]
            if j != i:
                touched[others] = j
                tied[others] = state[j, _TOTAL] / (length[i] * state[j, _LENGTH] + _SHRINK)
                others += 1
            state[j, _TOTAL] = 0
        if others:
            count[row] = keep_best(touched[:others], tied[:others], to_item[row], to_weight[row])
