"""The mix of several generators' lists, by quotas."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Name = TypeVar("Name", bound=str)


def mixed(lists: Mapping[str, NDArray[np.int64]], quotas: Mapping[str, int], n: int) -> NDArray[np.int64]:
    """Return n distinct items of several lists, or fewer if they hold fewer.

    An item's place is its rank in a list divided by the quota of that list; the smallest place counts. So
    every list gives as many items as its quota says, or the same multiple of all quotas if n is another
    number, lists overlap, or some are short.

    Args:
        lists: Items by generator, best first.
        quotas: Items to take of each; at the same place the generator that is named first comes first.
        n: Number of items.

    Returns:
        In the order of their places. Shape (at most n,).

    Example:
        >>> mixed({"a": np.array([5, 6, 7]), "b": np.array([5, 8])}, {"a": 2, "b": 1}, n=3)
        array([5, 6, 8])
    """
    asked = [name for name, quota in quotas.items() if quota and len(lists.get(name, ()))]
    if not asked:
        return np.empty(0, np.int64)
    items = np.concatenate([lists[name] for name in asked])
    place = np.concatenate([np.arange(1, len(lists[name]) + 1) / quotas[name] for name in asked])
    items = items[np.argsort(place, kind="stable")]
    _, first = np.unique(items, return_index=True)
    return items[np.sort(first)[:n]]


def apportioned(weights: Mapping[Name, float], n: int) -> dict[Name, int]:
    """Return whole numbers in the proportion of some weights whose sum is n, by largest remainders.

    Example:
        >>> apportioned({"a": 2, "b": 1}, n=10)
        {'a': 7, 'b': 3}
    """
    exact = np.array([*weights.values()], np.float64) * n / sum(weights.values())
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: n - whole.sum()]] += 1
    return dict(zip(weights, whole.tolist(), strict=True))
