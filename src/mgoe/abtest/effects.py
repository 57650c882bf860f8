"""Effects of a treated arm against the control: differences, relative lifts, intervals and p values.

A metric of an arm is a ratio of sums over units, R = sum of numerators / sum of denominators. A mean per unit
has the denominator 1. Units are independent, rows of one unit are not, so variances come from units by the
delta method (Deng et al. 2018, "Applying the delta method in metric analytics"):

    var R = g' S g / n,    g = (1, -R, -theta) / (mean denominator, mean denominator, 1)

with S the covariance of (numerator, denominator, covariate) over the n units. CUPED (Deng et al. 2013)
subtracts theta * (mean covariate of the arm - mean covariate of all), where the covariate is what the unit
did before the experiment. One theta serves both arms. The relative lift divides by the control's *adjusted*
mean, and its variance has the covariance of both adjusted means, which share the mean of all.

Intervals that hold at every look at once are confidence sequences: the normal mixture boundary of Robbins
(1970), asymptotic for means of any law (Waudby-Smith et al. 2021).

Axes: `...` experiments, looks or metrics that are computed at once; the last axes hold the three columns.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]
ALPHA = 0.05
"""Two-sided error of all intervals."""
NUMERATOR, DENOMINATOR, COVARIATE = range(3)


class Sums(NamedTuple):
    """What the units of one arm add up to; sums of disjoint sets of units may be added.

    Example:
        >>> one = sum_units(np.array([[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]))
        >>> one.n, one.mean.tolist()
        (array(2.), [0.5, 2.0, 0.5])
    """

    n: Array
    """Units. Shape (...)."""
    total: Array
    """Sums of numerators, denominators and covariates. Shape (..., 3)."""
    product: Array
    """Sums of their products. Shape (..., 3, 3)."""

    @property
    def mean(self) -> Array:
        """Means over units. Shape (..., 3)."""
        return self.total / np.maximum(self.n, 1)[..., None]

    @property
    def covariance(self) -> Array:
        """Covariances over units. Shape (..., 3, 3)."""
        centred = self.product - self.total[..., :, None] * self.mean[..., None, :]
        found = centred / np.maximum(self.n - 1, 1)[..., None, None]
        diagonal = np.einsum("...ii->...i", found)
        np.maximum(diagonal, 0, out=diagonal)  # a constant column may round below zero
        return found


@dataclass(frozen=True)
class Effect:
    """A treated arm against the control, each array of shape (...)."""

    control: Array
    """Value of the control, adjusted if CUPED is used."""
    treated: Array
    difference: Array
    variance: Array
    """Of the difference."""
    lift: Array
    """The difference as a share of the control's value."""
    lift_variance: Array
    removed: Array
    """Share of the difference's variance that CUPED removed."""


def sum_units(values: Array, axis: int = -2) -> Sums:
    """Return the sums over units.

    Args:
        values: Numerator, denominator and covariate of each unit. Shape (..., units, 3).
        axis: That of the units.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, -2)
    n = np.full(values.shape[:-2], float(values.shape[-2]))
    return Sums(n, values.sum(-2), np.swapaxes(values, -1, -2) @ values)


def compare(control: Sums, treated: Sums, cuped: bool = False) -> Effect:
    """Return the effect of a treated arm.

    Values that do not exist, such as a ratio without denominators, are NaN.

    Args:
        control: Sums of the control.
        treated: Sums of the treated arm, of the same shape.
        cuped: Adjust both by the covariate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> arms = [np.stack([rng.poisson(3, 500), np.ones(500), np.zeros(500)], 1) for _ in range(2)]
        >>> found = compare(*map(sum_units, arms))
        >>> bool(abs(found.difference) < 3 * found.variance**0.5)
        True
    """
    arms = (control, treated)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [arm.total[..., NUMERATOR] / arm.total[..., DENOMINATOR] for arm in arms]
        slopes = [_slopes(arm, ratio) for arm, ratio in zip(arms, ratios, strict=True)]  # (..., 3)
        scaled = [arm.covariance / np.maximum(arm.n, 1)[..., None, None] for arm in arms]
        theta = _theta(slopes, scaled) if cuped else np.zeros_like(ratios[0])
        weights = [arm.n / (control.n + treated.n) for arm in arms]
        covariates = [arm.mean[..., COVARIATE] for arm in arms]
        everyone = weights[0] * covariates[0] + weights[1] * covariates[1]
        base, value = (r - theta * (x - everyone) for r, x in zip(ratios, covariates, strict=True))
        # Slopes of each arm's adjusted value by the means of each arm; the mean of all has both.
        moved = [
            [slopes[b] * (a == b) - theta[..., None] * _column((a == b) - weights[b]) for b in range(2)]
            for a in range(2)
        ]
        share = (value / base)[..., None]
        variances = [_quadratic(moved[1][b] - moved[0][b], scaled[b]) for b in range(2)]
        of_lift = [
            _quadratic((moved[1][b] - share * moved[0][b]) / base[..., None], scaled[b]) for b in range(2)
        ]
        plain = _quadratic(slopes[0], scaled[0]) + _quadratic(slopes[1], scaled[1])
        variance = variances[0] + variances[1]
        removed = np.clip(1 - variance / plain, 0, 1)
        return Effect(base, value, value - base, variance, value / base - 1, of_lift[0] + of_lift[1], removed)


def fixed(value: Array | float, variance: Array | float, alpha: float = ALPHA) -> tuple[Array, Array]:
    """Return the interval that holds at one look, chosen in advance."""
    return _around(value, variance, float(norm.ppf(1 - alpha / 2)))


def fixed_p(value: Array | float, variance: Array | float) -> Array:
    """Return the two-sided p value of no effect at one look, chosen in advance."""
    return np.asarray(2 * norm.sf(np.abs(_scores(value, variance))))


def sequential(
    value: Array | float, variance: Array | float, share: Array | float, alpha: float = ALPHA
) -> tuple[Array, Array]:
    """Return the interval of a confidence sequence: all looks hold the effect, with probability 1 - alpha.

    Args:
        value: Estimate of the effect.
        variance: Of the estimate.
        share: Part of the planned experiment that has been seen, in (0, inf). The interval is narrowest,
            compared with the fixed one, at 1.
        alpha: Error over all looks together.

    Example:
        >>> low, high = sequential(0.0, 1.0, share=1.0)
        >>> float(high.round(2))
        3.04
    """
    return _around(value, variance, sequential_width(share, alpha))


def sequential_p(value: Array | float, variance: Array | float, share: Array | float) -> Array:
    """Return the always-valid p value of no effect: the inverse of the mixture's likelihood ratio."""
    a = _seen(share, ALPHA)
    return np.minimum(np.sqrt(a + 1) * np.exp(-(_scores(value, variance) ** 2) * a / (2 * (a + 1))), 1)


def sequential_width(share: Array | float, alpha: float = ALPHA) -> Array:
    """Return half of the width of a confidence sequence, in standard errors."""
    a = _seen(share, alpha)
    return np.sqrt((a + 1) / a * np.log((a + 1) / alpha**2))


def _seen(share: Array | float, alpha: float) -> Array:
    """Return the information of a look in units of the mixture's prior, best at share 1 (the paper's rho)."""
    best = -2 * np.log(alpha)
    return np.maximum(np.asarray(share, np.float64), 1e-6) * (best + np.log(best + 1))


def _scores(value: Array | float, variance: Array | float) -> Array:
    """Return the estimates in standard errors; 0 where neither varies."""
    value, deviation = np.asarray(value, np.float64), np.asarray(np.sqrt(variance))
    scores = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    return np.divide(value, deviation, out=scores, where=deviation > 0)


def _around(value: Array | float, variance: Array | float, width: Array | float) -> tuple[Array, Array]:
    half = width * np.sqrt(variance)
    return np.asarray(value - half), np.asarray(value + half)


def _column(values: Array | float) -> Array:
    """Return slopes by the covariate alone. Shape (..., 3)."""
    values = np.asarray(values, np.float64)
    return np.stack([np.zeros_like(values), np.zeros_like(values), values], -1)


def _slopes(arm: Sums, ratio: Array) -> Array:
    """Return the slope of the ratio by the means of an arm. Shape (..., 3)."""
    inverse = 1 / arm.mean[..., DENOMINATOR]
    return np.stack([inverse, -ratio * inverse, np.zeros_like(ratio)], -1)


def _theta(slopes: list[Array], scaled: list[Array]) -> Array:
    """Return the theta with which the difference varies least; 0 where the covariate does not vary."""
    shared = np.asarray(
        sum((g[..., None, :] @ s)[..., 0, COVARIATE] for g, s in zip(slopes, scaled, strict=True))
    )
    spread = np.asarray(sum(s[..., COVARIATE, COVARIATE] for s in scaled))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)


def _quadratic(slope: Array, covariance: Array) -> Array:
    return np.maximum(np.einsum("...i,...ij,...j->...", slope, covariance, slope), 0)
