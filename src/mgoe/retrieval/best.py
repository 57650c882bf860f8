"""The best items among many, in compiled loops: a bounded heap whose root is the worst item that it holds.

An item is better if its weight is larger or, at the same weight, if its index is smaller. This order has no
ties, so what is kept does not depend on the order in which items are offered.
"""

import numba


@numba.njit(cache=True, nogil=True, inline="always")
def is_worse(weight, item, than_weight, than_item):  # pragma: no cover - compiled
    """Tell whether the first item is worse than the second."""
    return weight < than_weight or (weight == than_weight and item > than_item)


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def sort(items, weights, size):  # pragma: no cover - compiled
    """Sort the items of a heap in place, best first."""
    for last in range(size - 1, 0, -1):
        item, weight = items[last], weights[last]
        items[last], weights[last] = items[0], weights[0]
        _sink(items, weights, last, item, weight)


@numba.njit(cache=True, nogil=True)
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
