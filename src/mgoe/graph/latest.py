"""The latest items of users, with what was done and when.

Of each user only the `LATEST` newest items count, so that a user with a hundred thousand events costs no more
than others, and does not tie everything to everything.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.pair_rows import starts

MINUTE = 60 * 1_000_000
DAY = 24 * 60 * MINUTE
"""In microseconds."""
LATEST = 100
"""Items of a user that count: the newest, at the same time those of the higher score, then of the smaller
index."""

PAIR = np.dtype([("other", np.int32), ("score", np.float32), ("minute", np.int32)], align=True)
"""A pair from one of its nodes: index of the other node, score of what was done, and minutes from 1970 to the
last event. What is read together lies together in memory."""


class Rows(NamedTuple):
    """Pairs as rows of one side.

    Attributes:
        indptr: Where each row starts. Shape (n + 1,).
        pairs: Of type `PAIR`, other nodes ascending within a row. Shape (E,).
    """

    indptr: NDArray[np.int64]
    pairs: NDArray[np.void]


class LatestPairs(NamedTuple):
    """The latest pairs of every user, by user and by item.

    Attributes:
        by_user: U rows.
        by_item: I rows.
    """

    by_user: Rows
    by_item: Rows

    @classmethod
    def of(cls, by_user: Rows, items: int) -> "LatestPairs":
        """Return the pairs of both sides from those of users."""
        indptr = starts(np.bincount(by_user.pairs["other"], minlength=items))
        by_item = Rows(indptr, np.empty(len(by_user.pairs), PAIR))
        _transpose(by_user, by_item.indptr[:-1].copy(), by_item)
        return cls(by_user, by_item)


def latest_rows(
    indptr: NDArray[np.int64],
    item: NDArray[np.integer],
    task_mask: NDArray[np.integer],
    time: NDArray[np.int64],
    scores: NDArray[np.floating],
    users: NDArray[np.int64] | None = None,
) -> Rows:
    """Return the latest pairs of users, by user. They take 12 bytes per pair.

    Args:
        indptr, item, task_mask, time: The pairs of all users, see `PairRows`.
        scores: Merging score of every task mask. Shape (2^T,).
        users: Take these, in their order; all by default.
    """
    users = np.arange(len(indptr) - 1) if users is None else users
    degree = np.asarray(indptr)[users + 1] - np.asarray(indptr)[users]
    to = starts(np.minimum(degree, LATEST))
    out = Rows(to, np.empty(to[-1], PAIR))
    _take_latest((indptr, item, task_mask, time), scores, users, out)
    return out


@kernel("out")
def _take_latest(pairs, scores, users, out):  # pragma: no cover - compiled
    indptr, item, task_mask, time = pairs
    for row in range(len(users)):
        first, last, at = indptr[users[row]], indptr[users[row] + 1], out.indptr[row]
        kept = np.ones(last - first, np.bool_)
        if last - first > LATEST:
            score = np.empty(last - first)
            for e in range(first, last):
                score[e - first] = -scores[task_mask[e]]
            order = np.argsort(score, kind="mergesort")
            order = order[np.argsort(-time[first:last][order], kind="mergesort")]
            kept[order[LATEST:]] = False
        for e in range(first, last):
            if kept[e - first]:
                pair = out.pairs[at]
                pair.other, pair.score, pair.minute = item[e], scores[task_mask[e]], time[e] // MINUTE
                at += 1


@kernel("at", "out")
def _transpose(rows, at, out):  # pragma: no cover - compiled
    for row in range(len(rows.indptr) - 1):
        for e in range(rows.indptr[row], rows.indptr[row + 1]):
            pair = rows.pairs[e]
            to = out.pairs[at[pair.other]]
            to.other, to.score, to.minute = row, pair.score, pair.minute
            at[pair.other] += 1
