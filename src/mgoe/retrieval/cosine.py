"""Cosine links: two items compared by the scores `x` of their users (Sarwar et al., 2001). What a user did
within a short time counts most, and `SHRINK` keeps links of few users low:

    w(i, j) = sum_u x_ui x_uj near_u(i, j) / (|x_i| |x_j| + SHRINK)
    near_u(i, j) = 1 / (1 + days between the user's events / NEAR)

Lengths |x| are rounded to powers of 2^(1/4). So few new events change a length, and with it the links of all
items beside it.

Axes: `I` items, `R` rows.
"""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.retrieval.best import keep_best
from mgoe.retrieval.history import DAY, MINUTE, Rows

NEAR = 2.0
"""Days between two events of a user at which they count half."""
SHRINK = 2.0
"""Added to the product of the lengths of two items, in squares of a score."""
_NEAR = np.float32(NEAR * DAY / MINUTE)
_SHRINK = np.float32(SHRINK)
_TOTAL, _LENGTH = 0, 1


def lengths(by_user: Rows, items: int) -> NDArray[np.float32]:
    """Return the rounded length of each item, 0 without users. Shape (I,)."""
    square = _squares(by_user, items)
    exact = np.log2(square, where=square > 0, out=np.zeros_like(square)) / 2
    return np.where(square > 0, np.exp2(np.round(4 * exact) / 4), 0).astype(np.float32)


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
