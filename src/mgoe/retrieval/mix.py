"""The mix of several generators' lists by quotas, and the quotas that find most."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Name = TypeVar("Name", bound=str)
STEPS = 50
"""Parts of the candidates in which quotas are chosen."""


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
        >>> mixed({"a": np.array([5, 6, 7]), "b": np.array([8, 5])}, {"a": 2, "b": 1}, n=3)
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


def is_among(items: NDArray[np.integer], some: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell which items are among some others, which rise. Shape (n,)."""
    at = np.searchsorted(some, items)
    return some[np.minimum(at, len(some) - 1)] == items if len(some) else np.zeros(len(items), bool)


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


def best_quotas(
    places: Mapping[Name, NDArray[np.int64]], weight: NDArray[np.floating], n: int
) -> dict[Name, int]:
    """Return quotas with the sum n by which the lists find most of some wanted items.

    The list whose next items find most per item is extended, by as many as give the best ratio, until n are
    taken; a list alone is better where it finds more (the greedy rule of budgeted coverage, Khuller, Moss and
    Naor, 1999). If nothing is found, every list has the same quota.

    Args:
        places: Of each generator, the place from 0 of every wanted item in its list, n or more if it is not
            there. Shape (P,) each.
        weight: What each wanted item counts. Shape (P,).
        n: Sum of the quotas.

    Example:
        >>> places = {"a": np.array([0, 1, 90]), "b": np.array([90, 90, 0])}
        >>> best_quotas(places, np.ones(3), n=6)
        {'a': 4, 'b': 2}
    """

    def found(quotas: Mapping[Name, int]) -> float:
        return weight[np.any([places[name] < quota for name, quota in quotas.items()], axis=0)].sum()

    alone = [{name: n * (name == one) for name in places} for one in places]
    return max(_extended(places, weight, n), *alone, key=found)


def _extended(
    places: Mapping[Name, NDArray[np.int64]], weight: NDArray[np.floating], n: int
) -> dict[Name, int]:
    step = -(-n // STEPS)
    parts = {name: np.minimum(place // step, STEPS) for name, place in places.items()}
    taken, left, missing = dict.fromkeys(parts, 0), n // step, np.ones(len(weight), bool)
    while left:
        ratios = dict[Name, NDArray[np.floating]]()
        for name, part in parts.items():
            gain = np.bincount(part[missing], weight[missing], STEPS + 1)[taken[name] : STEPS][:left]
            ratios[name] = np.append(np.cumsum(gain) / np.arange(1, len(gain) + 1), 0)
        best = max(ratios, key=lambda name: ratios[name].max())
        if not ratios[best].any():
            break
        more = int(ratios[best].argmax()) + 1
        taken[best], left = taken[best] + more, left - more
        missing &= parts[best] >= taken[best]
    return apportioned(taken if any(taken.values()) else dict.fromkeys(taken, 1), n)
