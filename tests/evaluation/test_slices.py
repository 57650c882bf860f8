import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mgoe.evaluation import activity, history_age, known_before, make_slices, unseen


@st.composite
def logs(draw):
    """A history and examples over a few users, items and snapshots; -1 is a node that the log never had."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    events, rows, cuts = draw(st.integers(0, 60)), draw(st.integers(0, 40)), 4
    history = (
        rng.integers(0, 6, events),
        rng.integers(0, 5, events),
        rng.integers(0, cuts + 1, events).astype(np.int16),
    )
    examples = (
        rng.integers(-1, 8, rows),
        rng.integers(-1, 7, rows),
        rng.integers(0, cuts, rows).astype(np.int16),
    )
    return history, examples


@given(logs(), st.integers(1, 5))
def test_history_is_what_the_snapshot_holds(log, parts):
    """Whatever parts it comes in."""
    (hu, hi, hs), (users, items, snapshots) = log
    history = zip(*(np.array_split(column, parts) for column in (hu, hi, hs)), strict=True)
    counts, new = known_before(history, users, items, snapshots)
    assert len(counts) == len(new) == len(users)
    for n, (u, i, s) in enumerate(zip(users, items, snapshots, strict=True)):
        assert counts[n] == ((hu == u) & (hs <= s)).sum()
        assert new[n] == (not ((hu == u) & (hi == i) & (hs <= s)).any())


@given(logs(), st.integers(1, 5))
def test_history_is_what_is_read_up_to_a_moment(log, parts):
    """As many moments as rows: nothing is read that is later than a row's own."""
    (hu, hi, hs), (users, items, snapshots) = log
    moments = snapshots.astype(np.int64) * 10**15 + np.arange(len(users)) % 7
    times = hs.astype(np.int64) * 10**15 + np.arange(len(hu)) % 5
    history = zip(*(np.array_split(column, parts) for column in (hu, hi, times)), strict=True)
    counts, new = known_before(history, users, items, moments)
    for n, (u, i, m) in enumerate(zip(users, items, moments, strict=True)):
        assert counts[n] == ((hu == u) & (times <= m)).sum()
        assert new[n] == (not ((hu == u) & (hi == i) & (times <= m)).any())


@given(logs())
def test_activity_and_age_split_all_rows(log):
    (hu, hi, hs), (users, items, snapshots) = log
    cuts = np.array([3, 5, 9, 12])
    buckets = cuts[snapshots] + 1 + np.arange(len(users)) % 7
    masks = make_slices(
        users,
        items,
        buckets,
        snapshots,
        cuts=cuts,
        users_at=np.array([2, 3, 5, 6, 6]),
        items_at=np.array([1, 2, 3, 5, 5]),
        history=[(hu, hi, hs)],
    )
    for prefix in ("activity-", "age-"):
        assert (sum(mask.astype(int) for name, mask in masks.items() if name.startswith(prefix)) == 1).all()
    assert all(mask.shape == users.shape for mask in masks.values())
    assert {"new-pairs", "unseen-users", "unseen-items"} < masks.keys()


def test_unseen_nodes_lie_beyond_the_snapshot():
    mask = unseen(np.array([-1, 0, 1, 2, 2]), np.array([0, 0, 0, 0, 1]), np.array([2, 3]))
    assert mask.tolist() == [True, False, False, True, False]


def test_activity_has_the_stated_bounds():
    masks = activity(np.array([0, 1, 4, 5, 19, 20]))
    assert [m.nonzero()[0].tolist() for m in masks.values()] == [[0], [1, 2], [3, 4], [5]]


def test_near_holds_the_median_age():
    masks = history_age(np.array([11, 12, 13]), np.array([0, 0, 0]), np.array([10]))
    assert masks["age-near"].tolist() == [True, True, False]
