"""What a user wants at a moment: the course of a session, items that are due again, trends, and new items.

Each effect takes a set share of the exposures from the policy, in this order, from what is left. What all
users want alike tells no positive from a negative at its moment. So the kind of a user, the number of the
community modulo 4, decides about the last two: kinds 1 and 3 want what is new, kinds 2 and 3 follow trends.
The probability of an item is a short sum at every moment, and known if what users did before is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.simulation.truth import Truth

STEP, LIFE, GAP = 6 * 3_600_000, 48 * 3_600_000, 1_800_000
"""Milliseconds after which trends may change (6 hours), an item is wanted e times less (2 days), and a
session ends (half an hour)."""
PERIODS = (2, 8, 56)
"""Steps that trends last: 12 hours, 2 days, 2 weeks."""
FEW, REMEMBERED, NEWEST = 3, 16, 32
"""How many items follow an item in a session, or are a trend of each period; how many of the last items of a
user may be wanted again; and how many of the newest are."""
NOW = FEW + REMEMBERED
WANTED = NOW + FEW * len(PERIODS) + NEWEST
"""Items that a user may want besides what the policy shows; those from `NOW` on do not depend on the user."""


class Moments(NamedTuple):
    """The effects of a world, and what its users did last. Times are milliseconds since the epoch.

    Attributes:
        repeats, sessions: Share of exposures of these effects.
        first: Number of the first step, since the epoch.
        interval: Time after which an item is wanted again. Shape (I,).
        following: Items that follow an item in a session. Shape (I, FEW).
        now: Trends of each step, and items that are new. Shape (steps, WANTED - NOW).
        share: Share of exposures of each, by kind of user. Shape (4, steps, WANTED - NOW).
        item: Items that each user did last, in any order. Shape (U, REMEMBERED).
        time: When; long ago for none. Shape (U, REMEMBERED).
    """

    repeats: float
    sessions: float
    first: int
    interval: NDArray[np.int64]
    following: NDArray[np.int64]
    now: NDArray[np.int64]
    share: NDArray[np.float64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]


def make_moments(truth: Truth) -> Moments | None:
    """Return the effects of a world before its first event; None if it has none."""
    s, arrival = truth.settings, truth.items.arrival
    if not s.at_moments:
        return None
    rng = [np.random.default_rng([s.seed, 9, part]) for part in range(3)]
    known, periods = np.argsort(arrival, kind="stable"), np.repeat(PERIODS, FEW)
    day = np.arange(s.days * 4)[:, None] / 4
    first = (day * 4 // periods * periods).astype(np.int64)  # step of each trend
    there = np.searchsorted(arrival[known], np.arange(s.days), "right")  # number of items on each day
    trends = known[
        (rng[1].random(first.shape)[first, np.arange(len(periods))] * there[first // 4]).astype(int)
    ]
    # An item is wanted for being new alone until the day from which the policy shows it.
    born = arrival - rng[0].random(s.items) * np.where(arrival == 0, s.days, 1)
    by_birth = np.argsort(born, kind="stable")
    rank = np.searchsorted(born[by_birth], day) - 1 - np.arange(NEWEST)
    new = by_birth[np.maximum(rank, 0)]
    fresh = np.where(rank >= 0, np.exp((born[new] - day) * 4 * STEP / LIFE), 0)
    # Kinds 2 and 3 follow trends; of what is left, kinds 1 and 3 want what is new.
    follows = s.trends * np.array([0, 0, 1, 1])[:, None, None]
    return Moments(
        *(s.repeats, s.sessions, int(np.datetime64(s.start, "ms").astype(np.int64)) // STEP),
        LIFE * 2 ** (truth.items.community.astype(np.int64) % 3),
        known[(rng[2].random((s.items, FEW)) * there[np.maximum(arrival - 1, 0)][:, None]).astype(int)],
        np.concatenate([trends, new], 1),
        np.concatenate(
            [
                follows / len(periods) * np.ones_like(trends),
                np.array([0, s.lives, 0, s.lives])[:, None, None]
                * (1 - follows)
                * (fresh / np.maximum(fresh.sum(1, keepdims=True), 1e-300)),
            ],
            2,
        ),
        np.zeros((s.users, REMEMBERED), np.int64),
        np.full((s.users, REMEMBERED), -(2**62)),
    )


@kernel("moments", "items", "weights", inner=True)
def want(moments, user, kind, time, items, weights):  # pragma: no cover - compiled
    """Write items that a user wants at a moment, an item perhaps twice, and the probability of each.

    Returns:
        The probability of what the policy shows.
    """
    m, last = moments, np.argmax(moments.time[user])
    going = m.sessions / FEW if time - m.time[user, last] <= GAP else 0.0
    items[:FEW], weights[:FEW] = m.following[m.item[user, last]], going
    due = np.exp(-8 * np.log(np.maximum(time - m.time[user], 1) / m.interval[m.item[user]]) ** 2)
    due *= (1 - FEW * going) * m.repeats / (due.sum() + 0.2)  # with a weight of 0.2 that nothing is due
    items[FEW:NOW], weights[FEW:NOW] = m.item[user], due
    step, rest = min(max(time // STEP - m.first, 0), len(m.now) - 1), 1 - weights[:NOW].sum()
    items[NOW:], weights[NOW:] = m.now[step], rest * m.share[kind % 4, step]
    return 1 - weights.sum()


@kernel("moments", inner=True)
def remember(moments, user, item, time):  # pragma: no cover - compiled
    """Note what a user did, in place of the oldest of the items that it did last."""
    place = np.argmin(np.where(moments.item[user] == item, -(2**62), moments.time[user]))
    moments.item[user, place], moments.time[user, place] = item, time


@kernel("moments", "found", "clicked")
def follow(moments, events, order, community, clicks, found, clicked):  # pragma: no cover - compiled
    """Follow users through a day, and note what they want at each moment.

    Args:
        moments: The world before the day; after it on return.
        events: User, item and time of exposures and of rows, and whether the first behaviour happened.
        order: Numbers of these by time.
        community: Of each user.
        clicks: Probability of the first behaviour. Shape (user communities, I).
        found: Gets the probability of what the policy shows; of the item, as one that the user wants; and of
            the first behaviour with any that the user wants. Shape (N, 3).
        clicked: Gets the sum of the last one over users, of each item. Shape (steps of a day, I).
    """
    items, weights = np.empty(WANTED, np.int64), np.empty(WANTED)
    for n in order:
        user, item, time = events[0][n], events[1][n], events[2][n]
        found[n, 0] = want(moments, user, community[user], time, items, weights)
        for k in range(WANTED):
            click = weights[k] * clicks[community[user], items[k]]
            found[n, 1] += weights[k] * (items[k] == item)
            found[n, 2] += click
            clicked[time // STEP % len(clicked), items[k]] += click
        if events[3][n]:
            remember(moments, user, item, time)
