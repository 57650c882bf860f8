"""Compiled loops over the rows of one request's items: added to its user's row, or mixed with it by gates.

A row is fetched into the cache before it is read. Rows are floats of 32 bits, or the upper 16 of these
(bfloat16), given as words: `word << shift` are the 32 bits.

Axes: `B` items of a request, `U` users, `F` floats per row, `S` experts, `T` towers, `W` width of a tower's
first layer.
"""

import numba
import numpy as np

from mgoe.graph.memory_hints import prefetch_far

AHEAD = 4
"""Items between fetching a row and reading it: rows have some kilobytes."""


@numba.njit(cache=True, nogil=True)
def take(words, items, shift, users, own, ends):  # pragma: no cover - compiled
    """Return rows of items, with those of their users added, from rows (U, F) and each item's user, (B,),
    piece by piece. Shape (B F,): of each piece, which ends at the next of `ends` in a row, (B, floats of the
    piece)."""
    n, length = len(items), words.shape[1]
    bits, flat = np.empty(n * length, np.uint32), words.reshape(-1)
    floats = bits.view(np.float32)
    for b in range(n):
        if b + AHEAD < n:
            prefetch_far(flat, items[b + AHEAD] * length, length)
        row, user, start = words[items[b]], users[own[b]], 0
        for end in ends:
            at = n * start + b * (end - start)
            place = slice(at, at + end - start)
            held, sums, out, added = row[start:end], floats[place], bits[place], user[start:end]
            for k in range(len(out)):  # over slices, the loops run on vectors
                out[k] = np.uint32(held[k]) << shift
            for k in range(len(out)):
                sums[k] += added[k]
            start = end
    return floats


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def mix(words, items, shift, users, own, experts, tasks, gates):  # pragma: no cover - compiled
    """Return what `Folded.rest` gives its towers. Shape (T, B, W).

    With [first (S, T, W), scores (gates, S)] the sum of an item's row and its user's, `h_t = sum_s
    softmax(scores_t)_s first_st`.
    """
    n, length = len(items), words.shape[1]
    width = (length - gates * experts) // (experts * tasks)
    begin = experts * tasks * width
    out, flat = np.zeros((tasks, n, width), np.float32), words.reshape(-1)
    bits, weights = np.empty(length, np.uint32), np.ones(experts, np.float32)
    row = bits.view(np.float32)
    for b in range(n):
        if b + AHEAD < n:
            prefetch_far(flat, items[b + AHEAD] * length, length)
        held, user = words[items[b]], users[own[b]]
        for k in range(length):
            bits[k] = np.uint32(held[k]) << shift
        for k in range(length):
            row[k] += user[k]
        for t in range(tasks):
            if t < gates:
                start, most, total = begin + t * experts, np.float32(-np.inf), np.float32(0)
                for s in range(experts):
                    most = max(most, row[start + s])
                for s in range(experts):
                    weights[s] = np.exp(row[start + s] - most)
                    total += weights[s]
                for s in range(experts):
                    weights[s] /= total
            h = out[t, b]
            for s in range(experts):
                first, weight = (s * tasks + t) * width, weights[s]
                for w in range(width):
                    h[w] += weight * row[first + w]
    return out
