"""What another policy would have earned, estimated from lists that were logged with their propensities.

A place of a list is a step: the log shows the item with probability p given the items above it, the other
policy with q. The weight of a place is the product of q / p over it and the places above (McInerney et al.
2020), so estimates are unbiased if the log could show all that the policy shows. Doubly robust estimates add
the bundle's own predictions as a baseline (Kiyohara et al. 2022). Lists of one user depend on each other, so
errors come from sums per user.

Axes: `N` lists, `K` places, of which a list may lack the last ones.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.abtest.effects import fixed
from mgoe.errors import DataError

Array = NDArray[np.float64]
MIN_EFFECTIVE = 30.0
"""Lists that an estimate must be worth, or it is refused."""
MIN_SUPPORT = 0.95
"""Share of the policy's lists that the log must be able to show, or no estimate is unbiased."""
Z_SUPPORT = 3.29
"""Standard errors within which that share is taken for larger (p = .001)."""


class Weights(NamedTuple):
    """How much each place of the log counts for another policy.

    Attributes:
        through: Product of q / p over a place and those above, 0 where there is no place. Shape (N, K).
        above: Product over those above alone. Shape (N, K).
        there: Whether there is a place. Shape (N, K).
        users: Number of each list's user. Shape (N,).
        effective: Lists of the other policy that the log is worth.
        support: Mean weight of a list: 1 within chance if the log can show all that the policy shows.
    """

    through: Array
    above: Array
    there: NDArray[np.bool_]
    users: NDArray[np.int64]
    effective: float
    support: float


@dataclass(frozen=True)
class Estimate:
    """What a task came to per list, by one method."""

    task: str
    method: str
    value: float
    interval: tuple[float, float]


def weigh(
    propensities: Array,
    policy: Array,
    there: NDArray[np.bool_],
    users: Any,
    min_effective: float = MIN_EFFECTIVE,
) -> Weights:
    """Return the weights of logged places.

    Args:
        propensities: Probability with which the log showed the item, given those above. Shape (N, K).
        policy: Probability with which the other policy does. Shape (N, K).
        there: Whether there is a place. Shape (N, K).
        users: Number of each list's user. Shape (N,).
        min_effective: Fewest lists that the log must be worth.

    Raises:
        DataError: A propensity is 0, above 1 or missing (NaN), or the log hardly shows what the policy shows.
    """
    bad = there & ~((propensities > 0) & (propensities <= 1))
    if bad.any():
        raise DataError(
            "propensities",
            f"must be above 0 and at most 1, found {propensities[bad][0]:g} in {int(bad.sum()):,} of "
            f"{int(there.sum()):,} places; export the answers of a service that explores",
        )
    ratios = np.divide(policy, propensities, out=np.ones(policy.shape), where=there)
    products: Array = np.cumprod(ratios, axis=1, dtype=np.float64)
    lists, total = products[:, -1], products[:, -1].sum()
    effective, support = float(total**2 / max((lists**2).sum(), 1e-300)), float(lists.mean())
    if effective < min_effective:
        raise DataError(
            "propensities",
            f"must support the lists of the bundle, found {len(lists):,} lists that are worth "
            f"{effective:.1f} of its own; explore more or longer, or estimate it with a higher temperature",
        )
    highest = support + Z_SUPPORT * _error(lists, users)
    if highest < MIN_SUPPORT:
        raise DataError(
            "propensities",
            f"must be above 0 for all that the bundle would show, found at most {highest:.0%} of its lists "
            "to be possible; explore all places, or compare bundles that choose among the same items",
        )
    above = np.column_stack([np.ones(len(products)), products[:, :-1]])
    return Weights(
        np.where(there, products, 0.0), np.where(there, above, 0.0), there, users, effective, support
    )


def estimate(
    task: str, weights: Weights, rewards: Array, predicted: Array, expected: Array
) -> list[Estimate]:
    """Return what a task came to per list as logged, and would have by the other policy.

    Args:
        task: Its name.
        weights: Of the places.
        rewards: What each shown item earned. Shape (N, K).
        predicted: Predicted reward of the shown item. Shape (N, K).
        expected: Predicted reward of what the other policy would draw at the place, given the items above.
            Shape (N, K).

    Returns:
        The methods `logged`, `IPS`, `self-normalised` and `doubly robust`, and `gain`: the last minus the
        first.

    Example:
        >>> one = np.ones((100, 1))
        >>> found = estimate("click", weigh(0.5 * one, 0.5 * one, one > 0, np.arange(100)), one, one, one)
        >>> found[3].method, found[3].value
        ('doubly robust', 1.0)
    """
    through, above, there, users = weights[:4]
    rewards, predicted, expected = (np.where(there, part, 0.0) for part in (rewards, predicted, expected))
    total = through.sum(0)
    mean = np.divide((through * rewards).sum(0), total, out=np.zeros_like(total), where=total > 0)
    share = np.divide(there.sum(0), total, out=np.zeros_like(total), where=total > 0)
    logged, robust = rewards.sum(1), (through * (rewards - predicted) + above * expected).sum(1)
    methods = {
        "logged": logged,
        "IPS": (through * rewards).sum(1),
        "self-normalised": (through * (rewards - mean) * share + mean * there).sum(1),
        "doubly robust": robust,
        "gain": robust - logged,
    }
    estimates = []
    for method, values in methods.items():
        low, high = fixed(values.mean(), _error(values, users) ** 2)
        estimates.append(Estimate(task, method, float(values.mean()), (float(low), float(high))))
    return estimates


def _error(values: Array, users: NDArray[np.int64]) -> float:
    """Return the standard error of the mean of lists, of which those of one user go together."""
    sums = np.bincount(users, values - values.mean())
    n = np.count_nonzero(np.bincount(users))
    return float(np.sqrt((sums**2).sum() * n / max(n - 1, 1)) / len(values))
