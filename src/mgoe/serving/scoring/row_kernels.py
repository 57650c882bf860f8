"""Compiled loops over the rows of one request's items, added to its user's row.

A row is fetched into the cache before it is read. Rows are floats of 32 bits, or the upper 16 of these
(bfloat16), given as words: `word << shift` are the 32 bits.

Axes: `B` items of a request, `U` users, `F` floats per row.
"""

import numpy as np

from mgoe._util.kernels import kernel
from mgoe.graph.memory_hints import prefetch_far

AHEAD = 4
"""Items between fetching a row and reading it: rows have some kilobytes."""


@kernel()
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
