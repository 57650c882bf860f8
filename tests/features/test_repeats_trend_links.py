"""Inputs of repeats, trends and links against the same in plain Python, one number at a time."""

import tempfile
from dataclasses import replace
from math import log, log1p
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe._util.arrays import take
from mgoe.features import GROUPS, Reader, View
from mgoe.features.links import FADING, MANY
from mgoe.features.repeats import MOST_DUE, PRIOR
from mgoe.features.trend import MINUTE, WINDOWS, YEAR
from mgoe.graph.counts import AGES, HOUR
from mgoe.serving.online.overlay import LiveView
from tests.effort import up_to
from tests.features.reading import gather
from tests.features.test_moments import later, moments_of, read_at
from tests.graph.histories import CUTS, event_lists
from tests.serving.online.worlds import BEHAVIORS, START, World

Row = tuple[int, int, int, int]


def fresh(age: float) -> float:
    return log1p(YEAR / (MINUTE + age))


def younger(times: list[int], end: int, age: int) -> float:
    """Of pairs whose last events were at times before the end, those that are younger than an age."""
    if age <= 0:
        return 0
    counts = [0, *(sum(end - time < limit for time in times) for limit in AGES)]
    limits = [0, *AGES.tolist()]
    k = int(np.searchsorted(limits, age, side="right"))
    if k == len(limits):
        return counts[-1]
    share = (age - limits[k - 1]) / (limits[k] - limits[k - 1])
    return counts[k - 1] + (counts[k] - counts[k - 1]) * share


def repeats_of(rows: list[Row], user: int, item: int, now: int) -> list[float]:
    times = sorted(time for u, i, time, _ in rows if (u, i) == (user, item))
    totals, again = [], []
    for side, node in ((0, user), (1, item)):
        mine = [row for row in rows if row[side] == node]
        totals.append(len(mine))
        again.append(len(mine) - len({row[:2] for row in mine}))
    out = [log1p(len(times)), len(times) / (totals[0] + 1), 0, 0, 0]
    if times:
        out[2] = fresh(now - times[-1])
    if len(times) > 1:
        mean = (times[-1] - times[0]) / (len(times) - 1)
        due = log((now - times[-1] + MINUTE) / (mean + MINUTE))
        out[3:] = fresh(mean), min(max(due, -MOST_DUE), MOST_DUE)
    return out + [a / (total + PRIOR) for a, total in zip(again, totals, strict=True)]


def trend_of(before: list[Row], coming: list[Row], side: int, node: int, now: int, end: int) -> list[float]:
    times = sorted(row[2] for row in before + coming if row[side] == node)
    last = {row[:2]: 0 for row in before if row[side] == node}
    for row in before:
        if row[side] == node:
            last[row[:2]] = max(last[row[:2]], row[2])
    out = [fresh(now - times[0]), fresh(now - times[-1])] if times else [0, 0]
    for window in WINDOWS.values():
        since = sum(row[2] >= now - window for row in coming if row[side] == node)
        out.append(log1p(since + younger([*last.values()], end, window - (now - end))))
    return out


@up_to(4)
@given(
    events=event_lists(1, 30),
    data=st.data(),
    scale=st.sampled_from([1, HOUR // 20, 3 * HOUR]),
)
def test_inputs_are_those_of_the_history_until_the_moment(events, data, scale):
    """Times are stretched, so that they reach over all windows."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, CUTS, scale=scale)
        coming = [replace(one, time=one.time * scale) for one in data.draw(later(world), "coming")]
        moment = data.draw(st.sampled_from([one.time for one in coming] + [coming[-1].time + 1]))
        found = read_at(world, moments_of(world, coming), moment)
    known = {
        (one.user, one.item, one.time, task)
        for one in coming
        for task in range(3)
        if one.time < moment and BEHAVIORS[one.behavior] >> task & 1
    }
    before, after, end = sorted(world.there), sorted(known), world.graph.latest.end
    user, item = (n.ravel() for n in np.meshgrid(np.arange(world.users + 3), np.arange(world.items + 3)))
    for row, pair in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        assert_allclose(
            found["repeats"][row], repeats_of(before + after, *pair, moment), rtol=1e-5, atol=1e-6
        )
        for side, name in enumerate(("user_trend", "item_trend")):
            wanted = trend_of(before, after, side, pair[side], moment, end)
            assert_allclose(found[name][row], wanted, rtol=1e-5, atol=1e-6, err_msg=f"{name} {pair}")


@up_to(4)
@given(events=event_lists(20, 60))
def test_links_are_read_from_the_recent_items(events):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), [*START, (0, 1, 1, 0), *events], CUTS)
        at = world.graph.latest
        links = at.links
        weight = {
            (item, int(links.item[k])): float(links.weight[k])
            for item in range(at.n_items)
            for k in range(links.indptr[item], links.indptr[item + 1])
        }
        user, item = (n.ravel() for n in np.meshgrid(np.arange(at.n_users), np.arange(at.n_items)))
        found = gather(at, user, item, ["links"])["links"]
        runs = np.repeat(np.argsort(user), MANY)  # long ones of one user, for which links are collected
        in_runs = gather(at, user[runs], item[runs], ["links"])["links"]
        recent = np.asarray(at.arrays["recent_items"])
    assert weight
    assert_array_equal(in_runs, found[runs])
    for row, (u, i) in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        own = [weight.get((one, i), 0.0) for one in recent[u].tolist() if one >= 0]
        wanted = sum(FADING**k * one for k, one in enumerate(own)), max(own, default=0), own[0] if own else 0
        assert_allclose(found[row], wanted, rtol=1e-5, atol=1e-7)
        assert not own or found[row, 1] >= found[row, 2]


def tagged(codes: np.ndarray) -> Any:
    """A side table with one category."""
    encoders = SimpleNamespace(sizes={"tag": 4})
    return SimpleNamespace(
        arrays={"tag": codes},
        encoders=encoders,
        is_extended=False,
        column=lambda _, items: take(codes, items, 0),
    )


@up_to(4)
@given(
    events=event_lists(1, 30),
    codes=st.lists(st.integers(0, 3), min_size=20, max_size=20).map(np.array),
    data=st.data(),
)
def test_a_category_says_when_the_user_last_did_anything_of_it(events, codes, data):
    """In training, in a service, and in plain Python. What is new has no category."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, CUTS, scale=HOUR // 20)
        coming = [replace(one, time=one.time * HOUR // 20) for one in data.draw(later(world), "coming")]
        moment = data.draw(st.sampled_from([one.time for one in coming] + [coming[-1].time + 1]))
        codes[world.items :] = 0
        view = View.of(world.graph.latest, None, tagged(codes))
        user, item = (n.ravel() for n in np.meshgrid(np.arange(world.users + 3), np.arange(world.items)))
        read, moments = Reader(["categories"]), np.full(len(user), moment)
        found = read(replace(view, moments=moments_of(world, coming)), user, item, {}, moments)
        live = world.live()
        live.apply([one for one in coming if one.time < moment][::-1])
        index = live.indices("user", user), live.indices("item", item)
        with LiveView(view, live).reading() as now:
            served = read(now, *index, {}, moments)
        known = [(*row[:2], row[2]) for row in world.there]
    known += [(one.user, one.item, one.time) for one in coming if one.time < moment and one.item < 20]
    last: dict[tuple[int, int], int] = {}
    for u, i, time in sorted(known, key=lambda row: row[2]):
        last[u, int(codes[i])] = time
    wanted = [
        fresh(moment - last[u, codes[i]]) if codes[i] and (u, codes[i]) in last else 0
        for u, i in zip(user.tolist(), item.tolist(), strict=True)
    ]
    assert_allclose(found["categories"][:, 0], wanted, rtol=1e-6)
    assert_array_equal(served["categories"], found["categories"])


def test_groups_name_every_column():
    world = {"repeats": 7, "user_trend": 6, "item_trend": 6, "links": 3}
    with tempfile.TemporaryDirectory() as folder:
        at = World(Path(folder), START, ()).graph.latest
    names = {
        key: one for group in ("repeats", "trend", "links") for key, one in GROUPS[group].names(at).items()
    }
    assert {key: len(one) for key, one in names.items()} == world
