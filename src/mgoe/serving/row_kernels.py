"""Rows of the items of one request, compiled: copied, or mixed by gates without a copy. Each row is asked for before it is read."""

from __future__ import annotations

import numba
import numpy as np

from mgoe.graph.prefetch import prefetch_row

AHEAD = 3
"""Items between asking for a row and reading it: rows have some kilobytes."""


@numba.njit(cache=True, nogil=True)
def take(kept, items):  # pragma: no cover - compiled
    """Rows of items. Shape (B, F)."""
    n, width = len(items), kept.shape[1]
    out, flat = np.empty((n, width), kept.dtype), kept.reshape(-1)
    for b in range(n):
        if b + AHEAD < n:
            prefetch_row(flat, items[b + AHEAD], width)
        out[b] = kept[items[b]]
    return out


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def mix(kept, items, user, experts, tasks, gates):  # pragma: no cover - compiled
    """What `Folded.rest` gives its towers: with [begun (S, T, W), scores (gates, S)] the sum of an item's row and the user's,
    `h_t = sum_s softmax(scores_t)_s begun_st`. Shape (T, B, W).
    """
    n, length = len(items), kept.shape[1]
    width = (length - gates * experts) // (experts * tasks)
    begin = experts * tasks * width
    out, flat = np.zeros((tasks, n, width), np.float32), kept.reshape(-1)
    weights = np.ones(experts, np.float32)
    for b in range(n):
        if b + AHEAD < n:
            prefetch_row(flat, items[b + AHEAD], length)
        row = kept[items[b]]
        for t in range(tasks):
            if t < gates:
                start, most, total = begin + t * experts, np.float32(-np.inf), np.float32(0)
                for s in range(experts):
                    weights[s] = row[start + s] + user[start + s]
                    most = max(most, weights[s])
                for s in range(experts):
                    weights[s] = np.exp(weights[s] - most)
                    total += weights[s]
                for s in range(experts):
                    weights[s] /= total
            h = out[t, b]
            for s in range(experts):
                first, weight = (s * tasks + t) * width, weights[s]
                for w in range(width):
                    h[w] += weight * (row[first + w] + user[first + w])
    return out
