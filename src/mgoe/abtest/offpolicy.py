"""What another policy would have earned, estimated from answers that were logged with their propensities.

A place of a list is a step: the log shows the item with probability p given the items above it, the other
policy with q. The weight of a place is the product of q / p over it and the places above (McInerney et al.
2020), so estimates are unbiased if the log could show all that the policy shows. Doubly robust estimates add
the bundle's own predictions as a baseline (Kiyohara et al. 2022), which only lowers the variance.

Axes: `N` lists, `K` places; places that a list lacks have propensity NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgoe.errors import DataError

Array = NDArray[np.float64]
MIN_EFFECTIVE = 30.0
"""Lists that an estimate must be worth, or it is refused."""


@dataclass(frozen=True)
class Estimate:
    """The reward per list under the other policy, with its standard error."""

    ips: float
    ips_error: float
    self_normalised: float
    self_normalised_error: float
    doubly_robust: float
    doubly_robust_error: float
    logged: float
    """Reward per list as it was."""
    effective: float
    """Lists of the other policy that the log is worth."""


def estimate(
    rewards: Array,
    propensities: Array,
    policy: Array,
    predicted: Array,
    expected: Array,
    min_effective: float = MIN_EFFECTIVE,
) -> Estimate:
    """Return the reward of a policy per list.

    Args:
        rewards: What each shown item earned. Shape (N, K).
        propensities: Probability with which the log showed it, given the items above. Shape (N, K).
        policy: Probability with which the other policy does. Shape (N, K).
        predicted: Predicted reward of the shown item. Shape (N, K).
        expected: Predicted reward of what the other policy would draw at the place, given the items above.
            Shape (N, K).
        min_effective: Fewest lists that the log must be worth.

    Raises:
        DataError: A propensity is 0, above 1 or missing, or the log hardly shows what the policy shows.

    Example:
        >>> one = np.ones((100, 1))
        >>> estimate(one, 0.5 * one, 0.5 * one, one, one).doubly_robust
        1.0
    """
    there = ~np.isnan(rewards)
    bad = there & ~((propensities > 0) & (propensities <= 1))
    if bad.any():
        raise DataError(
            "propensities",
            f"must be above 0 and at most 1, found {propensities[bad][0]:g} in {int(bad.sum())} of "
            f"{int(there.sum())} places; log the arm's exploration",
        )
    ratios = np.divide(policy, propensities, out=np.ones_like(policy), where=there)
    weights = np.cumprod(ratios, 1) * there
    above = np.column_stack([np.ones(len(weights)), np.cumprod(ratios, 1)[:, :-1]]) * there
    rewards, predicted, expected = (np.where(there, part, 0) for part in (rewards, predicted, expected))
    last = np.cumprod(ratios, 1)[:, -1]
    effective = float(last.sum() ** 2 / max((last**2).sum(), 1e-300))
    if effective < min_effective:
        raise DataError(
            "propensities",
            f"must support the bundle's lists, found {len(last):,} lists that are worth "
            f"{effective:.1f} of its own; explore more, or estimate a policy with a higher temperature",
        )
    each = (weights * rewards).sum(1)
    scale = weights.mean(0) + (weights.sum(0) == 0)
    normalised = (weights * rewards / scale).sum(1)
    value = float(normalised.mean())
    centres = (weights * rewards).mean(0) / scale
    influence = ((weights * (rewards - centres)) / scale).sum(1)
    robust = (weights * (rewards - predicted) + above * expected).sum(1)
    root = np.sqrt(len(each))
    return Estimate(
        ips=float(each.mean()),
        ips_error=float(each.std(ddof=1) / root),
        self_normalised=value,
        self_normalised_error=float(influence.std(ddof=1) / root),
        doubly_robust=float(robust.mean()),
        doubly_robust_error=float(robust.std(ddof=1) / root),
        logged=float(rewards.sum(1).mean()),
        effective=effective,
    )
