"""Negatives at the moment of their positive: what other users did next, of the same bucket.

What is known of an item alone must not distinguish a draw from its positive. Think of two events, `(u, i)` at
`t` and `(v, j)` soon after. If choices ignored user and pair, `(u, j)` and `(v, i)` would have been as
likely. So `j` is a negative of `u` at `t` under conditions that hold for both ways round: neither did `u` do
`j` in the bucket, nor `v` do `i`, and both items are known at the moment. A positive is kept in the share of
its draws that are, or what is popular, and so is dropped more often as a draw, would be among the positives
too often.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts
from mgoe._util.kernels import kernel
from mgoe.config import NegativeSettings

NEXT = 20
"""Events of other users that draws are from, besides those at the same moment: with so few, items age little
between a positive and its draws (ours)."""
ALIKE = 4 * NEXT
"""Of more events at one moment, a draw may be any, the user's own ones included, which are dropped."""


def sample_at_moments(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    bucket: NDArray[np.int64],
    moment: NDArray[np.int64],
    known: NDArray[np.int64],
    settings: NegativeSettings,
    uniforms: Callable[[int, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw for each positive among the next events of others.

    Args:
        user, item, bucket: Of all positives of some buckets, distinct and sorted by bucket, user, item. Shape
            (n,) each.
        moment: What each positive reads strictly before, less the lag. Shape (n,).
        known: First event of the item of each. Shape (n,).
        settings: Ratio and seed.
        uniforms: Numbers in [0, 1), each a function of seed, bucket and number alone.

    Returns:
        The positives that are kept, rising (m,); and for each negative the row of its positive and its item.
            Shape (k,) each.
    """
    n, ratio = len(user), settings.ratio
    order = np.lexsort((item, user, moment, bucket))
    first = np.flatnonzero(run_starts(bucket))
    start = np.repeat(first, np.diff(np.r_[first, n]))
    number = (np.arange(n) - start)[:, None] * (ratio + 1) + np.arange(ratio + 1)
    draws = uniforms(settings.seed, np.repeat(bucket, ratio + 1), number.ravel()).reshape(n, ratio + 1)
    drawn = np.full((n, ratio), -1, np.int64)
    _draw(user, item, start, moment, known, order, draws, drawn)
    kept = drawn >= 0
    done = np.flatnonzero(draws[:, ratio] < kept.mean(axis=1))
    source, place = np.nonzero(kept)
    return done, source, item[drawn[source, place]]


@kernel("drawn")
def _draw(user, item, start, moment, known, order, draws, drawn):  # pragma: no cover - compiled
    """Write the row of the event that each draw is of, -1 where it is dropped."""
    n = len(user)
    pool, tie, alike = np.empty(ALIKE + NEXT, np.int64), 0, 0
    for place in range(n):
        row = order[place]
        bucket = start[row]
        previous = order[place - 1] if place else row
        if not place or start[previous] != bucket or moment[previous] != moment[row]:
            tie = place
            alike = tie
            while alike < n and start[order[alike]] == bucket and moment[order[alike]] == moment[row]:
                alike += 1
        if known[row] >= moment[row]:
            continue
        size, at = 0, tie
        if alike - tie <= ALIKE:
            while at < n and start[order[at]] == bucket and (at < alike or size < NEXT):
                if user[order[at]] != user[row]:
                    pool[size] = order[at]
                    size += 1
                at += 1
            if size == 0:
                continue
        for k in range(drawn.shape[1]):
            if alike - tie <= ALIKE:
                other = pool[np.int64(draws[row, k] * size)]
            else:
                other = order[tie + np.int64(draws[row, k] * (alike - tie))]
            if user[other] == user[row] or known[other] >= moment[row]:
                continue
            if _did(user, item, start, bucket, user[row], item[other]):
                continue
            if not _did(user, item, start, bucket, user[other], item[row]):
                drawn[row, k] = other


@kernel(inner=True)
def _did(user, item, start, bucket, one, what):  # pragma: no cover - compiled
    """Whether a user has done an item in a bucket, of rows that are sorted by bucket, user, item."""
    low, high = bucket, len(user)
    while low < high:
        half = (low + high) // 2
        before = start[half] == bucket and (user[half] < one or (user[half] == one and item[half] < what))
        if before:
            low = half + 1
        else:
            high = half
    return low < len(user) and start[low] == bucket and user[low] == one and item[low] == what
