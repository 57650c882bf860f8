"""The best items among many, in compiled loops: a bounded heap whose root is the worst item that it holds.

An item is better if its weight is larger or, at the same weight, if its index is smaller. This order has no
ties, so what is kept does not depend on the order in which items are offered.
"""

import numpy as np

from mgoe._util.kernels import kernel

BITS = 20
"""Bits of a weight that are not looked at first: those that are leave steps of an eighth."""


@kernel(inline="always")
def is_worse(weight, item, than_weight, than_item):  # pragma: no cover - compiled
    """Tell whether the first item is worse than the second."""
    return weight < than_weight or (weight == than_weight and item > than_item)


@kernel("to_items", "to_weights")
def keep_best(items, weights, to_items, to_weights):  # pragma: no cover - compiled
    """Copy the best of some items, best first, as many as there is room for. Return their number.

    Weights are float32 and not negative, so that they are in the order of their bits. Items are counted by
    the first bits of their weight, and only those that may be among the best are offered.
    """
    first = weights.view(np.int32) >> BITS
    count = np.zeros(1 << (31 - BITS), np.int32)
    for k in range(len(items)):
        count[first[k]] += 1
    least, above = len(count) - 1, count[-1]
    while least > 0 and above < len(to_items):
        least -= 1
        above += count[least]
    size = 0
    for k in range(len(items)):
        if first[k] >= least:
            size = offer(to_items, to_weights, size, items[k], weights[k])
    sort(to_items, to_weights, size)
    return size


@kernel("items", "weights", inner=True)
def offer(items, weights, size, item, weight):  # pragma: no cover - compiled
    """Offer an item to a heap that holds `size` of at most `len(items)` items. Return its new size."""
    if size < len(items):
        at = size
        while at > 0 and is_worse(weight, item, weights[(at - 1) // 2], items[(at - 1) // 2]):
            items[at], weights[at] = items[(at - 1) // 2], weights[(at - 1) // 2]
            at = (at - 1) // 2
        items[at], weights[at] = item, weight
        return size + 1
    if size and is_worse(weights[0], items[0], weight, item):
        _sink(items, weights, size, item, weight)
    return size


@kernel("items", "weights", inner=True)
def sort(items, weights, size):  # pragma: no cover - compiled
    """Sort the items of a heap in place, best first."""
    for last in range(size - 1, 0, -1):
        item, weight = items[last], weights[last]
        items[last], weights[last] = items[0], weights[0]
        _sink(items, weights, last, item, weight)


@kernel("items", "weights", inner=True)
def _sink(items, weights, size, item, weight):  # pragma: no cover - compiled
    """Replace the root of a heap by another item."""
    at, child = 0, 1
    while child < size:
        if child + 1 < size and is_worse(weights[child + 1], items[child + 1], weights[child], items[child]):
            child += 1
        if not is_worse(weights[child], items[child], weight, item):
            break
        items[at], weights[at] = items[child], weights[child]
        at, child = child, 2 * child + 1
    items[at], weights[at] = item, weight
