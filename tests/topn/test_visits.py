"""What comes next, by counting: transitions and session kNN against naive forms on small random logs."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from mgoe.topn import BASELINES, Budget, Events
from mgoe.topn.baselines.visits import REACH, Visits

USERS, ITEMS = 6, 7


@st.composite
def logs(draw: st.DrawFn) -> Events:
    """Events of which many are at one time, some twice by two tasks; the last user did nothing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 40))
    user, item, task = (rng.integers(0, high, size) for high in (USERS - 1, ITEMS, 2))
    return Events(user, item, task, rng.integers(0, 12, size) / 4, (USERS, ITEMS), 2)


def visits_of(events: Events, gap: float) -> dict[int, list[tuple[float, set[int]]]]:
    """Return the visits of each user, by the age of their last event, in the order of time."""
    found: dict[int, list[tuple[float, set[int]]]] = defaultdict(list)
    before = dict[int, float]()
    for user, age, item in sorted(zip(events.user, -events.age, events.item, strict=True)):
        if user in before and age - before[user] <= gap:
            found[user][-1] = (-age, found[user][-1][1] | {item})
        else:
            found[user].append((-age, {item}))
        before[user] = age
    return found


def scores_of(name: str, events: Events, **settings: object) -> NDArray:
    fitted = BASELINES[name].fit(events, {**BASELINES[name].start, **settings}, 0, Budget())
    return fitted(np.arange(events.shape[0]))


@given(events=logs(), gap=st.sampled_from([0.0, 0.25, 0.6, 99.0]))
def test_visits_are_those_of_a_loop(events: Events, gap: float):
    visits, expected = Visits.of(events, gap), visits_of(events, gap)
    flat = [(user, *one) for user in sorted(expected) for one in expected[user]]
    assert_array_equal(visits.user, [user for user, _, _ in flat])
    assert_allclose(visits.age, [age for _, age, _ in flat])
    for row, (_, _, items) in zip(visits.items.toarray(), flat, strict=True):
        assert_array_equal(np.flatnonzero(row), sorted(items))
    assert_array_equal(visits.place, [p for u in sorted(expected) for p in range(len(expected[u]))[::-1]])


@given(events=logs(), decay=st.floats(0.05, 1), half_life=st.floats(0.1, 50), own=st.sampled_from([0.0, 0.3]))
def test_transitions_are_shares_of_what_followed(events: Events, decay: float, half_life: float, own: float):
    followed = np.zeros((ITEMS, ITEMS))
    steps = visits_of(events, 0)
    for mine in steps.values():
        for later, (age, items) in enumerate(mine):
            for earlier in range(max(0, later - REACH), later):
                for i in mine[earlier][1]:
                    for j in items:
                        followed[i, j] += decay ** (later - earlier - 1) * 0.5 ** (age / half_life)
    shares = followed / np.where(followed.any(axis=1), followed.sum(axis=1), 1)[:, None]
    expected = np.zeros((USERS, ITEMS))
    for user, mine in steps.items():
        for back, (_, items) in enumerate(mine[::-1][:REACH]):
            expected[user] += decay**back * shares[sorted(items)].sum(axis=0)
            expected[user, sorted(items)] += decay**back * own
    found = scores_of("transitions", events, decay=decay, half_life=half_life, own=own)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@given(
    events=logs(),
    gap=st.sampled_from([0.0, 0.25, 0.6, 99.0]),
    timed=st.booleans(),
    neighbors=st.integers(1, 4),
    sample=st.integers(1, 6),
    own=st.sampled_from([0.0, 0.3]),
)
def test_session_knn_is_that_of_a_loop(
    events: Events, gap: float, timed: bool, neighbors: int, sample: int, own: float
):
    decay, half_life = 0.6, 1.7
    visits, steps = visits_of(events, gap), visits_of(events, 0)
    everybody = [(age, user, n, items) for user in visits for n, (age, items) in enumerate(visits[user])]
    expected = np.zeros((USERS, ITEMS))
    for user in visits:
        weight = np.zeros(ITEMS)
        if timed:
            for back, (_, items) in enumerate(steps[user][::-1][:REACH]):
                weight[sorted(items)] += decay**back
        else:
            weight[sorted(visits[user][-1][1])] = 1
        similar = []
        for age, other, n, items in sorted(everybody):  # of equal age the smaller user
            like = (
                weight[sorted(items)].sum() / len(items) ** 0.5 * (0.5 ** (age / half_life) if timed else 1)
            )
            if like and (other, n) != (user, len(visits[user]) - 1):
                similar.append((np.float32(like), items))
        nearest = sorted(similar[:sample], key=lambda one: -one[0])[:neighbors]
        for like, items in nearest:
            expected[user, sorted(items)] += like / sum(weight for weight, _ in nearest)
        expected[user] += own * weight
    settings = {
        "own": own,
        "gap": gap,
        "neighbors": neighbors,
        "sample": sample,
        "decay": decay,
        "half_life": half_life,
    }
    found = scores_of("sknn", events, weighting="time" if timed else "set", **settings)
    assert_allclose(found, expected, rtol=1e-5)


@given(events=logs(), seed=st.integers(0, 99))
def test_the_order_of_rows_at_one_time_is_not_read(events: Events, seed: int):
    order = np.random.default_rng(seed).permutation(len(events.user))
    columns = (column[order] for column in (events.user, events.item, events.task, events.age))
    mixed = Events(*columns, events.shape, events.tasks)
    for name in ("transitions", "sknn"):
        assert_allclose(scores_of(name, mixed), scores_of(name, events), rtol=1e-5)
