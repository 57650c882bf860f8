"""How often a user is expected to do something with each item in a stretch of time: the best order of a list.

On a day of the stretch, a user gets a part of the day's exposures, an exposure shows an item as the policy
says, and the user does something with it as the funnel says. Exposures are drawn independently of each other,
so with the expected number m, an item is done at all with a probability of nearly 1 - exp(-m), whatever
happens to other items. No order of items has a higher expected NDCG or HR than that of m.

Axes: `B` users, `I` items, `n` items of a place, `T` behaviours, `D` devices.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from mgoe._util.kernels import kernel
from mgoe.simulation.chance import looks, page_shares, position_losses
from mgoe.simulation.settings import DEVICE_SHARES
from mgoe.simulation.truth import Truth

_POINTS = 4096
"""Points of a table of probabilities over logits, between which it is linear."""


class _Place(NamedTuple):
    """Exposures whose positions follow one distribution.

    Attributes:
        items: Items that are shown there, by column. Shape (n,).
        shown: Probability that an exposure of a user community shows an item there. Shape (user communities,
            n).
        positions: Probability of each position. Shape (positions,).
    """

    items: NDArray[np.int64]
    shown: NDArray[np.float64]
    positions: NDArray[np.float64]


class _Funnel(NamedTuple):
    """What decides whether one of the wanted behaviours follows a first one.

    Attributes:
        parents: See `WorldSettings`. Shape (T,).
        wanted: Whether a behaviour is wanted. Shape (T,).
        device: Effect of a device, in logits. Shape (T, D).
    """

    parents: NDArray[np.int64]
    wanted: NDArray[np.bool_]
    device: NDArray[np.float64]


class _Clicks(NamedTuple):
    """The first behaviour at a place, as tables over its logit, each multiplied by the share of its device.

    Attributes:
        low, step: First logit, and the distance to the next.
        tables: Of all devices together if the first behaviour is wanted, otherwise of each. Shape (D or 1,
            points).
    """

    low: float
    step: float
    tables: NDArray[np.float64]


def expected_actions(
    truth: Truth,
    users: ArrayLike,
    items: ArrayLike,
    behaviors: Sequence[str],
    start: np.datetime64,
    end: np.datetime64,
) -> NDArray[np.float64]:
    """Return how many exposures of each item, on which a user does any of some behaviours, are expected.

    Args:
        truth: The world.
        users: User ids. Shape (B,).
        items: Item ids. Shape (I,).
        behaviors: Names of behaviours.
        start, end: The stretch of time, without its end.

    Returns:
        Shape (B, I).

    Raises:
        DataError: An id is not of this world.
    """
    user, item = truth.indices(users, items)
    pairs = (
        truth.users.community[user],
        truth.items.community[item],
        truth.users.bias[user],
        truth.items.bias[item],
    )
    wanted = np.isin(truth.settings.names, behaviors)
    funnel = _Funnel(np.array(truth.settings.parents), wanted, truth.device)
    total = np.zeros((len(user), len(item)))
    for day, part in _days(truth, start, end):
        here = truth.activity * (truth.users.arrival <= day)
        exposures = part * truth.day_rows[day] * here[user] / here.sum(dtype=np.float64)
        for place in _places(truth, day, item):
            clicks = _clicks(truth, day, place.positions, bool(funnel.wanted[0]))
            for share, logits in zip(truth.settings.scenario_shares, truth.logits(day), strict=True):
                _add(total, share * exposures, pairs, logits, place, clicks, funnel)
    return total


def _days(truth: Truth, start: np.datetime64, end: np.datetime64) -> Iterator[tuple[int, float]]:
    """Yield the days of a stretch of time, and the part of each that is in it."""
    first, day = np.datetime64(truth.settings.start, "us"), np.timedelta64(1, "D")
    edges = first + np.arange(truth.settings.days + 1) * day
    inside = (np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)) / day
    for number in np.flatnonzero(inside > 0):
        yield int(number), float(inside[number])


def _places(truth: Truth, day: int, item: NDArray[np.int64]) -> list[_Place]:
    """Return where items are shown on a day: anywhere, or popular ones at the first positions."""
    s, popularity = truth.settings, truth.popularity(day)
    community = truth.items.community
    share = popularity / np.maximum(np.bincount(community, popularity)[community], 1e-300)  # of its community
    by_policy = (1 - s.uniform) * truth.aim(day, popularity).take(community[item], 1) * share[item]
    at_random = s.uniform * (popularity[item] > 0) / np.count_nonzero(popularity)
    anywhere, everything = np.full(s.positions, 1 / s.positions), np.arange(len(item))
    if not s.popular_first:
        return [_Place(everything, by_policy + at_random, anywhere)]
    places = [_Place(everything, np.tile(at_random, (len(by_policy), 1)), anywhere)] if s.uniform else []
    for position, part in enumerate(page_shares(truth, popularity, item).T):
        there = np.flatnonzero(part)
        places.append(_Place(there, by_policy.take(there, 1) * part[there], np.eye(s.positions)[position]))
    return places


def _clicks(truth: Truth, day: int, positions: NDArray[np.float64], merged: bool) -> _Clicks:
    """Return the tables of a place, of all devices together if they are `merged`."""
    logits = truth.logits(day)[..., 0]
    sides = [nodes.bias[:, 0] for nodes in (truth.users, truth.items)]
    low, high = (float(end(logits) + sum(end(side) for side in sides)) for end in (np.min, np.max))
    xs = np.linspace(low, high, _POINTS)
    shifted = xs[:, None] + truth.device[0][:, None, None] - position_losses(truth)  # (D, points, positions)
    tables = np.array(DEVICE_SHARES)[:, None] * (expit(shifted) @ (positions * looks(truth)))
    return _Clicks(
        low, max((high - low) / (_POINTS - 1), 1e-12), tables.sum(0, keepdims=True) if merged else tables
    )


@kernel("total")
def _add(total, exposures, pairs, logits, place, clicks, funnel):
    """Add what is expected at a place on a day."""
    communities, item_communities, user_bias, item_bias = pairs
    low, step, tables = clicks
    x, last = np.empty(logits.shape[2]), tables.shape[1] - 2
    none = np.empty(len(funnel.parents))
    for u in range(len(exposures)):
        c = communities[u]
        for column in range(len(place.items)):
            i = place.items[column]
            for t in range(1 if funnel.wanted[0] else len(none)):
                x[t] = logits[c, item_communities[i], t] + user_bias[u, t] + item_bias[i, t]
            at = (x[0] - low) / step
            below = min(max(int(at), 0), last)
            chance = 0.0
            for d in range(len(tables)):
                clicked = tables[d, below] + (at - below) * (tables[d, below + 1] - tables[d, below])
                chance += clicked * (1.0 if funnel.wanted[0] else _follows(x, d, funnel, none))
            total[u, i] += exposures[u] * place.shown[c, column] * chance


@kernel("none", inner=True)
def _follows(x, device, funnel, none):
    """Return the probability that something wanted happens once the first behaviour has, on a device.

    `none` holds, for each behaviour, the probability that nothing wanted follows it.
    """
    none[:] = 1.0
    for t in range(len(none) - 1, 0, -1):
        here = 0.0 if funnel.wanted[t] else none[t]
        if here < 1:
            none[funnel.parents[t]] *= 1 - (1 - here) / (1 + np.exp(-x[t] - funnel.device[t, device]))
    return 1 - none[0]
