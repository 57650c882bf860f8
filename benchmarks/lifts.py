"""Five metrics of a shop, their true lifts, and how well an experiment estimates them.

A true lift compares two policies that each had all users to themselves, in one world with common random
numbers, so each user is compared with the same user. An experiment shows one policy to each user.

Axes: `U` users, `M` metrics, `S` sums of what a user did, `E` experiments.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from mgoe.abtest.effects import Effect, compare, fixed, sequential, sum_units

Array = NDArray[np.float64]
METRICS = {
    "pctr": ("clicks", "shown"),
    "uctr": ("clicked_days", "days"),
    "cvr": ("buys", "clicks"),
    "gmv": ("value", None),
    "stay": ("stay", None),
}
"""Numerator and denominator of each metric; no denominator is one per user."""
PRIMARY = "pctr"
FIRST_PAGE = "-0"
"""How requests for the first page of a session end."""
LOOKS_PER_DECADE = 20
"""Looks at the lists of an experiment, evenly by the logarithm of their number."""
SUMS = ("shown", "days", "clicked_days", "clicks", "buys", "value", "stay")
_OF_USERS = """
SELECT user_id, count(*), count(DISTINCT {time}::DATE), count(DISTINCT {time}::DATE) FILTER (WHERE click > 0),
    sum(click), sum(buy), sum({value}), sum(coalesce(stay, 0))
FROM read_parquet({files}) WHERE {where} GROUP BY user_id ORDER BY user_id
"""


class Lift(NamedTuple):
    """Relative differences of metrics: the treated policy over the control, less one. Shape (M,) each."""

    value: Array
    low: Array
    high: Array


class Hits(NamedTuple):
    """In which share of experiments intervals hold the true lift, or exclude zero. Shape (M,) each."""

    fixed: Array
    sequential: Array
    excludes_zero: Array


def sums_of(files: Sequence[Path], where: str = "true", logged: bool = False) -> tuple[NDArray, Array]:
    """Return the users who were shown something, and what each did.

    Args:
        files: Outcomes of days of a world, or the log before.
        where: Which rows count, in SQL.
        logged: Whether it is the log, which holds no prices: each purchase counts as one.

    Returns:
        Ids of shape (U,), and sums of shape (U, S).
    """
    names = "time", "value"
    columns = dict(zip(names, ("timestamp", "buy") if logged else names, strict=True))
    query = _OF_USERS.format(files=[str(file) for file in files], where=where, **columns)
    rows = duckdb.execute(query).fetchnumpy()
    users, *sums = rows.values()
    return np.asarray(users), np.stack([np.asarray(one, float) for one in sums], axis=1)


def aligned(users: NDArray, own: NDArray, sums: Array) -> Array:
    """Return sums in the order of `users`, who must hold all of `own`; zero for the others. Shape (U, S)."""
    found = np.zeros((len(users), sums.shape[1]))
    found[np.searchsorted(users, own)] = sums
    return found


def values_of(sums: Array, before: Array | None = None) -> Array:
    """Return numerator, denominator and covariate of each metric and user. Shape (M, U, 3).

    The covariate is what the user did before: of a ratio, the numerator beyond what the ratio of all users
    gives.

    Args:
        sums: What users did. Shape (U, S).
        before: What they did before; no covariate varies if it is left out.
    """
    columns = []
    for above, below in METRICS.values():
        numerator, denominator = _column(sums, above), _column(sums, below)
        covariate = np.zeros(len(sums))
        if before is not None:
            done, base = _column(before, above), _column(before, below)
            covariate = done - (done.sum() / max(base.sum(), 1) * base if below else 0)
        columns.append(np.stack([numerator, denominator, covariate], axis=-1))
    return np.stack(columns)


def _column(sums: Array, name: str | None) -> Array:
    return np.ones(len(sums)) if name is None else sums[:, SUMS.index(name)]


def true_lift(control: Array, treated: Array) -> Lift:
    """Return the lifts of a policy over another, both shown to all users of one world.

    The value is exact for these users. The interval is over users, whose outcomes are paired.

    Args:
        control, treated: As of `values_of`, of the same users in the same order.

    Example:
        >>> one = np.ones((5, 3, 3))
        >>> true_lift(one, 2 * one).value.tolist()  # a mean per user counts users, who stay as many
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        totals = [arm[..., :2].sum(1) for arm in (control, treated)]  # (M, 2)
        base, value = (total[:, 0] / total[:, 1] for total in totals)
        slopes = [
            (arm[..., 0] - ratio[:, None] * arm[..., 1]) / total[:, 1:]
            for arm, ratio, total in zip((control, treated), (base, value), totals, strict=True)
        ]  # what each user adds to a ratio, (M, U)
        moved = (slopes[1] - (value / base)[:, None] * slopes[0]) / base[:, None]
        users = control.shape[1]
        variance = (moved**2).sum(1) * users / max(users - 1, 1)
    lift = value / base - 1
    return Lift(lift, *fixed(lift, variance))


def estimated(control: Array, treated: Array) -> Effect:
    """Return what an experiment finds, adjusted by covariates.

    Args:
        control, treated: As of `values_of`, of the users of each arm.
    """
    return compare(sum_units(control), sum_units(treated), cuped=True)


def experiments_on(
    control: Array, treated: Array, count: int, rng: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Yield the arms of experiments whose users are drawn with replacement, each for one arm by a coin.

    Args:
        control, treated: What all users do under each policy, see `values_of`.
        count: Number of experiments.
        rng: Draws.
    """
    users = control.shape[1]
    for _ in range(count):
        drawn, is_treated = rng.integers(users, size=users), rng.random(users) < 0.5
        yield control[:, drawn[~is_treated]], treated[:, drawn[is_treated]]


def coverage(control: Array, treated: Array, count: int, rng: np.random.Generator) -> Hits:
    """Return how often intervals of drawn experiments hold the lift over all users, and exclude zero."""
    lift = true_lift(control, treated).value
    found = []
    for arms in experiments_on(control, treated, count, rng):
        effect = estimated(*arms)
        low, high = fixed(effect.lift, effect.lift_variance)
        wide = sequential(effect.lift, effect.lift_variance, 1.0)
        holds = (low <= lift) & (lift <= high)
        found.append((holds, (wide[0] <= lift) & (lift <= wide[1]), (low > 0) | (high < 0)))
    return Hits(*np.mean(found, axis=0))


def decided(low: float, high: float, lift: float) -> int:
    """Return 1 if an interval tells the sign of the true lift, -1 if it tells the other, 0 if it tells none.

    Example:
        >>> decided(0.01, 0.03, lift=0.02), decided(-0.01, 0.03, lift=0.02), decided(-0.03, -0.01, lift=0.02)
        (1, 0, -1)
    """
    if low <= 0 <= high:
        return 0
    return 1 if (low > 0) == (lift > 0) else -1


def spread(files: Sequence[Path], alive: int) -> tuple[float, float]:
    """Return the share of the catalogue that was shown, and the Gini coefficient of how often.

    Args:
        files: Outcomes of days.
        alive: Items that could be shown.
    """
    query = f"SELECT count(*) AS n FROM read_parquet({[str(file) for file in files]}) GROUP BY item_id"
    shown = np.sort(np.asarray(duckdb.execute(query).fetchnumpy()["n"], float))
    counts = np.pad(shown, (max(alive - len(shown), 0), 0))
    places = np.arange(1, len(counts) + 1)
    return len(shown) / alive, float((2 * places - len(counts) - 1) @ counts / (len(counts) * counts.sum()))


def lists_of(files: Sequence[Path], column: str) -> dict[str, list[Any]]:
    """Return a column of outcomes as one list per page, by its request."""
    query = f"""SELECT request, list({column} ORDER BY position) AS every
        FROM read_parquet({[str(file) for file in files]}) GROUP BY 1"""
    found = duckdb.execute(query).fetchall()
    return dict(found)


class Look(NamedTuple):
    """What is known after some lists.

    Attributes:
        lists, users: How many there were.
        time: Microseconds since the epoch.
        value: Of the treated arm: its share of the votes less one half, or its lift.
        low, high: Its 95 % interval at one look.
    """

    lists: int
    users: int
    time: int
    value: float
    low: float
    high: float


def looks_at(answers: Any, measure: Callable[[int], tuple[float, float, float]]) -> list[Look]:
    """Return what is known after 10 answers, after ever more, and after all.

    Args:
        answers: As of `read_answers`.
        measure: Returns a value and its interval, of what happened up to a time.
    """
    answers = answers.sort_values("time", kind="stable")
    times, units = answers["time"].to_numpy(), answers["unit"].to_numpy()
    steps = np.arange(LOOKS_PER_DECADE, LOOKS_PER_DECADE * np.log10(len(times)))
    numbers = [*np.round(10 ** (steps / LOOKS_PER_DECADE)).astype(int).tolist(), len(times)]
    return [
        Look(n, len({*units[:n]}), int(times[n - 1]), *measure(int(times[n - 1]))) for n in numbers
    ]  # fmt: skip


def settled(looks: Sequence[Look]) -> int:
    """Return the number of the first look that excludes zero, as all do that follow.

    Example:
        >>> settled([Look(1, 1, 0, 1.0, low, 2.0) for low in (-1.0, 0.5, -0.5, 0.5, 0.6)])
        3
    """
    includes = [number for number, one in enumerate(looks) if not (one.low > 0 or one.high < 0)]
    return max(includes, default=-1) + 1
