"""Baselines of what comes next: what others did after a user's last items (transitions), or in visits with
such items (session kNN).

What a user does at one time has no order: it is one step of the user's sequence, however many items it has.

Axes: `U` users, `I` items, `V` visits, `B` users that are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import NEIGHBORS, Baseline, Budget, by_similarity
from mgoe.topn.baselines.cascading import scaled_rows
from mgoe.topn.baselines.linear import OWN
from mgoe.topn.baselines.popularity import RECENCY
from mgoe.topn.lists import Events, Scores

REACH = 8
"""Steps that are looked back at most."""
DECAY = RangeSettings(low=0.05, high=1.0)
"""Weight of a step, relative to the one after it."""


@dataclass(frozen=True)
class Visits:
    """Events as visits, in the order of users and time.

    Attributes:
        items: Which items a visit has. Shape (V, I), float32, 0 or 1.
        user: Whose it is. Shape (V,).
        age: Days between its last event and the latest one of all. Shape (V,).
        place: Number of later visits of the same user. Shape (V,).

    Example:
        >>> user, item, age = np.zeros(3, int), np.array([0, 1, 2]), np.array([9.0, 1.0, 1.0])
        >>> visits = Visits.of(Events(user, item, user, age, shape=(1, 3), tasks=1))
        >>> visits.items.toarray().tolist(), visits.place.tolist()
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [1, 0])
    """

    items: sp.csr_array
    user: NDArray[np.int64]
    age: NDArray[np.float64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, events: Events, gap: float = 0.0) -> Self:
        """Begin a visit where a user did nothing for more than `gap` days; by default at every new time."""
        order = np.lexsort((-events.age, events.user))
        user, age = events.user[order], events.age[order]
        ends = np.append((np.diff(user) != 0) | (-np.diff(age) > gap), True)[: len(user)]
        number, count = np.cumsum(ends) - ends, np.count_nonzero(ends)
        ones, shape = np.ones(len(user), np.float32), (count, events.shape[1])
        items = sp.coo_array((ones, (number, events.item[order])), shape).tocsr()
        items.data[:] = 1
        user, age = user[ends], age[ends]
        return cls(items, user, age, np.searchsorted(user, user, side="right") - 1 - np.arange(count))

    def latest(self, users: int, decay: float) -> sp.csr_array:
        """Return the items of the last `REACH` visits of each user, weighted decay^place. Shape (U, I)."""
        kept = np.flatnonzero((self.place < REACH) & ((self.place == 0) | (decay > 0)))
        weight = (decay ** self.place[kept]).astype(np.float32)
        return sp.csr_array(
            sp.csr_array((weight, (self.user[kept], kept)), (users, len(self.user))) @ self.items
        )


def fit_transitions(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Score what users did next after a user's last items.

    From item i to j there is the share of what followed i that was j: the sum of decay^(d - 1) over all steps
    with j that come d <= `REACH` steps after one with i, each of which counts 2^(-age / half_life). It is
    read at the items of a user's last steps, d - 1 steps back with decay^(d - 1). These items themselves are
    added with the weight `own`.
    """
    steps, decay = Visits.of(events), settings["decay"]
    to = sp.csr_array(
        sp.diags_array(np.exp2(-steps.age / settings["half_life"]).astype(np.float32)) @ steps.items
    )
    followed = sp.csr_array((events.shape[1],) * 2, dtype=np.float32)
    for distance in range(1, REACH + 1):
        start = np.flatnonzero(steps.place >= distance)
        followed += decay ** (distance - 1) * (steps.items[start].T @ to[start + distance])
    latest = Visits.of(events.profiles).latest(events.profiles.shape[0], decay)
    own = sp.diags_array(np.full(events.shape[1], settings["own"], np.float32))
    return by_similarity(latest, sp.csr_array(scaled_rows(sp.csr_array(followed)) + own))


def fit_sknn(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Session kNN (Jannach & Ludewig 2017): score items of the visits that are most like a user's last one.

    A visit ends where a user does nothing for `gap` days. Of the visits with an item of the user's, the
    `sample` most recent ones are compared by the cosine of item sets. An item scores by the share of the
    `neighbors` nearest ones that have it, weighted by the cosine; the user's items are added with the weight
    `own`. With the weighting `time`, as in V-SKNN and STAN (Garg et al. 2019), the user's last steps count
    decay^place, whatever their visit, and a neighbour 2^(-age / half_life). The user's own last visit is no
    neighbour.
    """
    timed, profiles = settings["weighting"] == "time", events.profiles
    visits = Visits.of(events, settings["gap"])
    newest = np.argsort(visits.age, kind="stable")
    items, own = visits.items[newest], np.full(events.shape[0], -1)
    of_last = np.flatnonzero(visits.place[newest] == 0)
    own[visits.user[newest[of_last]]] = of_last
    worth = np.exp2(-visits.age[newest] / settings["half_life"]) if timed else np.ones(len(newest))
    compare = sp.diags_array((worth / np.diff(items.indptr) ** 0.5).astype(np.float32)) @ items
    own = own if events.asked is None else own[events.asked.user]
    steps = Visits.of(profiles, 0.0 if timed else settings["gap"])
    mine = steps.latest(profiles.shape[0], settings["decay"] if timed else 0.0)

    def scores(asked: NDArray[np.int64]) -> NDArray[np.float32]:
        near = sp.csr_array(mine[asked] @ compare.T)
        near.data[near.indices == np.repeat(own[asked], np.diff(near.indptr))] = 0
        near.eliminate_zeros()
        recent = largest_of_rows(near, -near.indices, settings["sample"])
        nearest = scaled_rows(largest_of_rows(recent, recent.data, settings["neighbors"]))
        return (nearest @ items + settings["own"] * mine[asked]).toarray()

    return scores


def largest_of_rows(matrix: sp.csr_array, keys: NDArray, n: int) -> sp.csr_array:
    """Return the entries of each row with its `n` largest keys, one for each entry; of equal keys the first.

    Example:
        >>> largest_of_rows(sp.csr_array([[3, 0, 1, 2]]), np.array([3, 1, 2]), 2).toarray().tolist()
        [[3, 0, 0, 2]]
    """
    row = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    order = np.lexsort((-keys, row))
    kept = order[np.arange(len(order)) - matrix.indptr[row] < n]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), matrix.shape)


TRANSITIONS = Baseline(
    fit_transitions,
    {"decay": 0.5, "half_life": 30.0, "own": 0.1},
    {"decay": DECAY, "half_life": RECENCY, "own": OWN},
    by_profile=True,
)
SKNN = Baseline(
    fit_sknn,
    {
        "neighbors": 200,
        "sample": 2000,
        "gap": 0.25,
        "weighting": "time",
        "decay": 0.7,
        "half_life": 30.0,
        "own": 0.1,
    },
    {
        "neighbors": NEIGHBORS,
        "sample": [500, 2000, 10_000],
        "gap": [0.02, 0.25, 1.0, 7.0, 1000.0],
        "weighting": ["set", "time"],
        "decay": DECAY,
        "half_life": RECENCY,
        "own": OWN,
    },
    by_profile=True,
)
