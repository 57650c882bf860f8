"""Random numbers without a state, and draws from a discrete distribution in constant time.

A uniform number is a hash of a key and a counter, so no draw depends on earlier ones. A distribution is drawn
from by an alias table (Walker 1977, Vose 1991).
"""

import numpy as np

from mgoe._util.kernels import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_FULL = 2.0**32


@kernel(inline="always")
def uniform(key, counter):
    """Return number `counter` of the SplitMix64 stream of `key`, in [0, 1)."""
    z = key + counter * _STEP
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 2.0**-53


@kernel()
def uniforms(key, counters):
    """Return `uniform` of each counter. Shape of the counters, which have two axes."""
    numbers = np.empty(counters.shape)
    for row in range(len(counters)):
        for column in range(counters.shape[1]):
            numbers[row, column] = uniform(key, counters[row, column])
    return numbers


@kernel(inline="always")
def pick(u, start, stop, table):
    """Return the entry of the group `start:stop` of an alias table that a uniform number u selects."""
    x = u * (stop - start)
    slot = int(x)
    entry = table[start + slot]
    other = np.int64(entry & _LOW)
    keeps = np.int64((x - slot) * _FULL) < np.int64(entry >> np.uint64(32))
    return start + other + keeps * (slot - other)  # no branch, so none is mispredicted


@kernel(inline="always")
def _entry(keep, other):
    return np.uint64(min(keep * _FULL, _FULL - 1)) << np.uint64(32) | np.uint64(other)


@kernel()
def alias_table(weights, offsets):
    """Return a table for `pick`, with one distribution per group of entries.

    Args:
        weights: Not negative. An entry of weight 0 is never drawn; a group of zeros must not be drawn from.
            float64, shape (n,).
        offsets: Group g is entries offsets[g]:offsets[g + 1]. int64, shape (groups + 1,).

    Returns:
        High 32 bits: share of its slot that an entry keeps. Low 32 bits: the entry that gets the rest,
        counted from the group's start. uint64, shape (n,).
    """
    table = np.zeros(len(weights), np.uint64)
    scaled = np.empty(len(weights))
    waiting = np.empty(len(weights), np.int64)  # light entries from the left, heavy ones from the right
    for g in range(len(offsets) - 1):
        start, n = offsets[g], offsets[g + 1] - offsets[g]
        total, heaviest = 0.0, 0  # by hand: expressions of arrays would take most of the time to compile
        for j in range(n):
            total += weights[start + j]
            heaviest = j if weights[start + j] > weights[start + heaviest] else heaviest
        if total == 0:
            continue
        small, large = 0, n
        for j in range(n):
            scaled[j] = weights[start + j] * (n / total)
            if scaled[j] < 1:
                waiting[small] = j
                small += 1
            else:
                large -= 1
                waiting[large] = j
        while small > 0 and large < n:
            small -= 1
            j, giver = waiting[small], waiting[large]
            table[start + j] = _entry(scaled[j], giver)
            scaled[giver] -= 1 - scaled[j]
            if scaled[giver] < 1:
                large += 1
                waiting[small] = giver
                small += 1
        for k in range(large, n):
            table[start + waiting[k]] = _entry(1.0, waiting[k])
        for k in range(small):  # left over by rounding: nearly full, or of weight 0
            j = waiting[k]
            table[start + j] = _entry(0.0, heaviest) if weights[start + j] == 0 else _entry(1.0, j)
    return table
