"""Swing links: two items are tied by pairs of users who agree on both and on little else (Yang et al., 2020,
arXiv 2010.05525), here with the scores of all four pairs:

    w(i, j) = sum_(u < v) g_u g_v / (alpha + |I_u & I_v|),   g_u = sqrt(x_ui x_uj) / sqrt(|I_u|)

Axes: `R` rows.
"""

import numpy as np

from mgoe._util.kernels import kernel
from mgoe.graph.best import keep_best, offer, sort


@kernel("to_item", "to_weight", "count")
def swing_rows(pairs, alpha, users, itself, items, to_item, to_weight, count):  # pragma: no cover - compiled
    """Compute the links of some items: the best first, (R, n) each, and how many there are, (R,).

    Of an item the `users` of the newest events count, at the same time those of the smaller index. A link to
    the item itself is among its links if `itself` is true.
    """
    by_user, by_item = pairs
    users = max(1, min(users, (by_item.indptr[1:] - by_item.indptr[:-1]).max()))
    head = np.full(len(by_item.indptr) - 1, -1, np.int32)
    touched, tied = np.empty_like(head), np.empty(len(head), np.float32)
    # an entry is an item of a user: `number` of the user, and the entry of the next user of the same item
    number, following = np.empty(0, np.int32), np.empty(0, np.int32)
    tie = np.empty(0, np.float32)
    common = np.empty((users, users), np.int32)
    newest, minute = np.empty(users, np.int32), np.empty(users, np.int32)
    for row in range(len(items)):
        i, n, entries, size = items[row], 0, 0, 0
        first = by_item.indptr[i]
        for k in range(first, by_item.indptr[i + 1]):
            size = offer(newest, minute, size, np.int32(k - first), by_item.pairs[k].minute)
        sort(newest, minute, size)
        held = 0
        for k in range(size):
            user = by_item.pairs[first + newest[k]].other
            held += by_user.indptr[user + 1] - by_user.indptr[user]
        if held > len(number):
            number, following = np.empty(2 * held, np.int32), np.empty(2 * held, np.int32)
            tie = np.empty(2 * held, np.float32)
        common[:size, :size] = 0
        for k in range(size):
            own = by_item.pairs[first + newest[k]]
            start, end = by_user.indptr[own.other], by_user.indptr[own.other + 1]
            for e in range(start, end):
                pair = by_user.pairs[e]
                j = pair.other
                if head[j] < 0:
                    touched[n] = j
                    n += 1
                number[entries], following[entries] = k, head[j]
                tie[entries] = np.sqrt(own.score * pair.score / np.float32(end - start))
                head[j] = entries
                entries += 1
        for t in range(n):
            a = head[touched[t]]
            while a >= 0:
                b = following[a]
                while b >= 0:
                    common[number[a], number[b]] += 1
                    b = following[b]
                a = following[a]
        others = 0
        for t in range(n):
            j, total = touched[t], 0.0
            a = head[j]
            while a >= 0 and (itself or j != i):
                b = following[a]
                while b >= 0:
                    total += tie[a] * tie[b] / (alpha + common[number[a], number[b]])
                    b = following[b]
                a = following[a]
            head[j] = -1
            if total > 0:
                touched[others], tied[others] = j, total
                others += 1
        if others:
            count[row] = keep_best(touched[:others], tied[:others], to_item[row], to_weight[row])
