"""Next items against a naive form: what each list may read, what counts as missed, and what is measured."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from mgoe.errors import DataError
from mgoe.topn import BASELINES, Budget, Events, NextItems, Scores, measure_lists
from mgoe.topn.lists import DAY

USERS, ITEMS, HOUR = 6, 9, DAY // 24
FITS = np.array([20, 23, 30]) * HOUR
PROFILED = [name for name, one in BASELINES.items() if one.by_profile and not one.learns_in_epochs]
Log = tuple[NDArray, ...]


def log_of(seed: int, size: int = 60) -> Log:
    """User, item, task and time of events, many of them at one time and some of two tasks."""
    rng = np.random.default_rng(seed)
    user, item, task = (rng.integers(0, high, size) for high in (USERS, ITEMS, 2))
    return user, item, task, rng.integers(0, 40, size) * HOUR


def asked_of(log: Log, hide: bool = False, tasks: tuple[int, ...] = (0, 1)) -> NextItems:
    wanted = (log[3] >= FITS[0]) & np.isin(log[2], tasks)
    return NextItems.of_log(np.stack(log), wanted, FITS, (USERS, ITEMS), 2, hide)


def fit(name: str, events: Events) -> Scores:
    if BASELINES[name].by_implicit:
        pytest.importorskip("implicit")
    return BASELINES[name].fit(events, BASELINES[name].start, 0, Budget())


def events_of(rows: list[tuple[int, int, int, int]], users: int, until: int) -> Events:
    user, item, task, time = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Events(user, item, task, (until - time) / DAY, (users, ITEMS), 2)


def naive(log: Log, hide: bool, tasks: tuple[int, ...]) -> dict[tuple[int, int, int], list[float]]:
    """Return, for each user, time and item that are asked for, decayed counts of the user's items until then,
    to which a thousandth of everybody's until the last fit is added; -inf for what may not be listed."""
    rows, found = list(zip(*(column.tolist() for column in log), strict=True)), {}
    for user, item, task, time in rows:
        own = [row for row in rows if row[0] == user and row[3] < time]
        if time < FITS[0] or task not in tasks or (hide and item in [row[1] for row in own]):
            continue
        fitted = max(one for one in FITS if one <= time)
        scores = [-np.inf] * ITEMS
        for one in {row[1] for row in rows if row[3] < time} - ({row[1] for row in own} if hide else set()):
            mine = sum(0.5 ** ((time - row[3]) / DAY) for row in own if row[1] == one)
            scores[one] = mine + 1e-3 * sum(row[1] == one and row[3] < fitted for row in rows)
        found[user, time, item] = scores
    return found


def decayed(events: Events) -> Scores:
    popular = 1e-3 * np.bincount(events.item, minlength=ITEMS)
    own = np.expm1(events.profiles.matrix(1.0).toarray().astype(float))
    return lambda rows: own[rows] + popular


@given(seed=st.integers(0, 999), hide=st.booleans(), tasks=st.sampled_from([(0,), (0, 1)]))
def test_lists_are_those_of_a_loop(seed: int, hide: bool, tasks: tuple[int, ...]):
    log = log_of(seed)
    asked, expected = asked_of(log, hide, tasks), naive(log, hide, tasks)
    lists = asked.lists(decayed, ITEMS)
    keys = [(*asked.log[[0, 3, 1], row].tolist(),) for row in asked.row]
    assert sorted(keys) == sorted(expected)
    for key, found in zip(keys, lists, strict=True):
        there = found[found >= 0]
        scores = np.array(expected[key])
        assert set(there) == set(np.flatnonzero(np.isfinite(scores)))
        assert (np.diff(scores[there]) < 1e-5).all()


@pytest.mark.parametrize("name", PROFILED)
def test_a_baseline_scores_a_history_as_it_scores_the_same_user_of_the_log(name: str):
    """Rows that hold the users' own events, asked for at the end of the log, get the lists of these users."""
    user, item, task, time = log_of(1)
    known = Events(user, item, task, (40 * HOUR - time) / DAY, (USERS, ITEMS), 2)
    asked = NextItems.of_log(np.stack([user, item, task, time]), time >= 0, FITS, (USERS, ITEMS), 2, False)
    _, _, part = next(asked.parts())
    assert part.asked is not None
    rows = part.asked._replace(events=known, user=np.arange(USERS))
    of_users, of_rows = fit(name, known), fit(name, replace(known, asked=rows))
    assert_allclose(of_rows(np.arange(USERS)), of_users(np.arange(USERS)), rtol=1e-6)


@pytest.mark.parametrize("name", PROFILED)
@given(seed=st.integers(0, 999))
def test_nothing_at_or_after_its_moment_changes_a_list(name: str, seed: int):
    log = log_of(seed)
    moment = int(np.random.default_rng(seed).choice(log[3][log[3] >= FITS[0]]))
    mine = (log[3] == moment).nonzero()[0][0]
    later = log[3] >= moment
    later[mine] = False
    other = log_of(seed + 1)
    changed = tuple(np.where(later, new, old) for old, new in zip(log, (*other[:3], log[3]), strict=True))
    target = tuple(int(column[mine]) for column in log)
    lists = []
    for one in (log, changed):
        asked = asked_of(one)
        columns = zip(asked.whose, asked.item, asked.log[3, asked.row], strict=True)
        query = [tuple(map(int, key)) for key in columns].index((target[0], target[1], target[3]))
        lists.append(asked.lists(partial(fit, name), 5)[query])
    assert_array_equal(*lists)


@given(seed=st.integers(0, 999))
def test_events_at_one_time_have_one_list_whatever_their_order(seed: int):
    log = log_of(seed)
    order = np.random.default_rng(seed).permutation(len(log[0]))
    mixed = tuple(column[order] for column in log)
    for name in ("sknn", "transitions", "frequent"):
        asked = asked_of(log)
        lists = asked.lists(partial(fit, name), 5)
        assert_array_equal(asked_of(mixed).lists(partial(fit, name), 5), lists)
        keys = list(zip(asked.whose, asked.log[3, asked.row], strict=True))
        for key, found in zip(keys, lists, strict=True):
            assert_array_equal(found, lists[keys.index(key)])


@given(seed=st.integers(0, 999))
def test_a_target_that_nobody_did_before_is_missed_and_counted(seed: int):
    log = log_of(seed, size=30)
    asked = asked_of(log)
    lists = asked.lists(decayed, ITEMS)
    found = measure_lists(lists, asked, [ITEMS])
    values = dict(zip(found.names, found.values, strict=True))
    seen = [(log[3][log[1] == i] < t).any() for i, t in asked.log[[1, 3]][:, asked.row].T]
    assert_array_equal(asked.unseen, ~np.array(seen))
    assert_allclose(values["all", f"hr@{ITEMS}"], np.mean(seen))  # a list holds every item that was ever done
    ranks = [np.flatnonzero(one == item) for one, item in zip(lists, asked.item, strict=True)]
    assert_allclose(values["all", f"mrr@{ITEMS}"], np.mean([1 / (r[0] + 1) if len(r) else 0 for r in ranks]))
    assert_allclose(
        values["all", f"ndcg@{ITEMS}"], np.mean([1 / np.log2(r[0] + 2) if len(r) else 0 for r in ranks])
    )


def test_the_influence_of_a_user_is_the_sum_over_its_events():
    rng = np.random.default_rng(0)
    log = (
        rng.integers(0, 60, 400),
        rng.integers(0, ITEMS, 400),
        np.zeros(400, int),
        rng.integers(0, 40, 400) * HOUR,
    )
    asked = NextItems.of_log(np.stack(log), log[3] >= FITS[0], FITS, (60, ITEMS), 1, False)
    lists = asked.lists(decayed, 3)
    found = measure_lists(lists, asked, [3])
    hit = (lists == asked.item[:, None]).any(axis=1)
    users = asked.whose
    expected = [(hit[users == user] - hit.mean()).sum() / len(hit) for user in np.unique(users)]
    assert_array_equal(found.users, np.unique(users))
    assert_allclose(found.parts[:, found.names.index(("all", "hr@3"))], expected, atol=1e-6)
    few = measure_lists(*_of_few(asked, lists), [3])
    assert np.isnan(few.parts).all()


def _of_few(asked: NextItems, lists: NDArray) -> tuple[NDArray, NextItems]:
    mine = asked.whose < 10
    each = np.arange(mine.sum())
    return lists[mine], replace(asked, users=each, user=each, item=asked.item[mine], row=asked.row[mine])


def test_a_sample_of_queries_keeps_their_lists():
    asked = asked_of(log_of(3))
    some = asked.sample(5, seed=0)
    assert len(some.row) == 5
    assert_array_equal(some.lists(decayed, 4), asked.lists(decayed, 4)[np.isin(asked.row, some.row)])


def test_nothing_to_be_found_is_refused():
    log = log_of(0)
    with pytest.raises(DataError, match="found none"):
        NextItems.of_log(np.stack(log), np.zeros(len(log[0]), bool), FITS, (USERS, ITEMS), 2, False)
