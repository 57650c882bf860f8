"""The blend: what it reads of links, live and after an update, and what is fitted."""

import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.config import RetrievalSettings
from mgoe.features import View
from mgoe.graph import Snapshot
from mgoe.graph.latest import DAY
from mgoe.retrieval import Asked, Blend, Retrieval, generators, item_links, latest_pairs
from mgoe.retrieval.blend import FEWEST, FLOOR, RIDGE, link_signals, repeat_signals
from mgoe.retrieval.history import LEAST, Done, OwnItems, own_items
from mgoe.retrieval.links import freshness
from mgoe.retrieval.popular import REPEATED
from mgoe.serving.online.overlay import LiveView
from tests.effort import up_to
from tests.graph.histories import event_lists
from tests.retrieval.naive import snapshots
from tests.serving.online.worlds import START, World, streams

NAMES = ("item", "total", "time")


def pairs_of(snapshot: Snapshot) -> Any:
    """A view of pairs alone."""
    return SimpleNamespace(snapshot=snapshot)


def summed(links, fresh: np.ndarray, own: OwnItems, days: float) -> dict[int, float]:
    """Sum links one by one, from items of the user's last days."""
    out = defaultdict[int, float](float)
    for item, weight, age in zip(own.latest.tolist(), own.weight.tolist(), own.age.tolist(), strict=True):
        if item < len(links.indptr) - 1 and age < days * DAY:
            for e in range(links.indptr[item], links.indptr[item + 1]):
                other = int(links.item[e])
                out[other] += weight * float(links.weight[e]) * float(fresh[other])
    return out


@given(snapshot=snapshots, data=st.data())
def test_signals_of_links_equal_sums_one_by_one(snapshot, data):
    pairs = latest_pairs(snapshot)
    links, fresh = item_links(pairs, "cosine", n=4), freshness(pairs, snapshot)
    user = data.draw(st.integers(-1, snapshot.n_users))
    items = np.array(sorted(data.draw(st.sets(st.integers(0, snapshot.n_items + 2)))), np.int64)
    own = own_items(pairs_of(snapshot), user, 9 * DAY, Done(*[np.empty(0, np.int64)] * 4))
    found = link_signals(links, fresh, own, items)
    for column, days in enumerate((np.inf, 1)):
        sums = summed(links, fresh, own, days)
        assert_allclose(found[:, column], [np.log(FLOOR + sums[item]) for item in items.tolist()], rtol=1e-5)


@given(snapshot=snapshots, data=st.data())
def test_signals_of_repeats_equal_counts_one_by_one(snapshot, data):
    """What the user did later adds to the events before."""
    user, half_life = data.draw(st.integers(-1, snapshot.n_users)), 9 * DAY
    new = np.array(sorted(data.draw(st.sets(st.integers(0, snapshot.n_items + 2)))), np.int64)
    later = Done(new, np.ones_like(new), np.full(len(new), 100 * DAY), new + 2)
    count, last = dict[int, int](), dict[int, int]()
    if 0 <= user < snapshot.n_users:
        row = slice(*snapshot.arrays["pairs.indptr"][user : user + 2])
        keys, totals, times = (snapshot.arrays[f"pairs.{name}"][row].tolist() for name in NAMES)
        count, last = dict(zip(keys, totals, strict=True)), dict(zip(keys, times, strict=True))
    for item in new.tolist():
        count[item], last[item] = count.get(item, 0) + item + 2, 100 * DAY
    repeated = np.linspace(0.1, 0.9, snapshot.n_items).astype(np.float32)
    items = np.arange(snapshot.n_items + 4)
    own = own_items(pairs_of(snapshot), user, half_life, later)
    found = repeat_signals(repeated, own, items)
    ages = {item: (max(last.values()) - time) / half_life for item, time in last.items()}
    decayed = {item: count[item] * max(2 ** -ages[item], LEAST) for item in count}
    assert_allclose(found[:, 0], [np.log1p(count.get(item, 0)) for item in items.tolist()])
    assert_allclose(found[:, 1], [np.log1p(decayed.get(item, 0)) for item in items.tolist()])
    assert_allclose(found[:, 2], np.log(np.append(repeated, [REPEATED] * 4)))
    nothing: Any = None
    best = generators.own(nothing, Asked(nothing, np.array([user]), own), 3).tolist()
    assert_allclose([decayed[item] for item in best], sorted(decayed.values(), reverse=True)[:3])


@up_to(3)
@given(events=event_lists(1, 40), data=st.data())
def test_live_signals_are_as_after_an_update(events, data):
    """Links stay those of the snapshot until a refresh; what the user did is read at once."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, (), resolutions=[(2, 3), (3, 4)])
        stream, live = data.draw(streams(world), "stream"), world.live()
        base = View.of(world.graph.latest)
        found = Retrieval.build(base, Path(folder) / "retrieval", RetrievalSettings(candidates=12))
        live.apply(stream)
        updated = View.of(World.updated(world, stream).latest)
        items, none = np.arange(world.items), np.zeros(world.items)
        with LiveView(base, live).reading() as view:
            for id in range(world.users + 3):
                [user] = live.indices("user", [id])
                now = found.signals(found.own_items(view, user), items, none, none)
                assert_allclose(
                    now, found.signals(found.own_items(updated, id), items, none, none), rtol=1e-5
                )


@given(snapshot=snapshots, data=st.data())
def test_what_is_done_later_replaces_what_was_done_before(snapshot, data):
    user = data.draw(st.integers(0, snapshot.n_users - 1))
    items = np.array(sorted(data.draw(st.sets(st.integers(0, snapshot.n_items - 1), min_size=1))), np.int64)
    later = Done(items, np.ones(len(items), np.int64), np.full(len(items), 100 * DAY), items + 1)
    own = own_items(pairs_of(snapshot), user, 9 * DAY, later)
    assert own.all.tolist() == sorted({*items.tolist(), *snapshot.known_items(user).tolist()})
    assert own.latest[: len(items)].tolist() == items.tolist()
    assert (own.age == 0).sum() == len(items)


@up_to(15)
@given(weights=st.tuples(*[st.floats(-1, 1)] * 7), seed=st.integers(0, 2**32 - 1))
def test_weights_are_those_of_which_wanted_items_are_draws(weights: tuple[float, ...], seed: int):
    rng, truth = np.random.default_rng(seed), Blend(*weights)
    signals = [rng.normal(size=(8, 7)) for _ in range(3000)]
    scores = [one[:, 0] + truth.added(one) + rng.gumbel(size=8) for one in signals]
    found = Blend.fit(signals, [one == one.max() for one in scores])
    assert found is not None
    assert_allclose(found, truth, atol=0.25)


@up_to(15)
@given(seed=st.integers(0, 2**32 - 1), several=st.integers(1, 5))
def test_no_other_weights_draw_a_wanted_item_more_often(seed: int, several: int):
    """However many items are wanted, it is the first draw that counts."""
    rng = np.random.default_rng(seed)
    signals = [rng.normal(size=(8, 7)) for _ in range(200)]
    wanted = [np.argsort(one[:, 1] + rng.gumbel(size=8)) >= 8 - several for one in signals]

    def worth(weights: np.ndarray) -> float:
        found = []
        for one, done in zip(signals, wanted, strict=True):
            chance = np.exp(one[:, 0] + one @ weights)
            found.append(np.log(chance[done].sum() / chance.sum()))
        return float(np.mean(found) - RIDGE * weights @ weights)

    blend = Blend.fit(signals, wanted)
    assert blend is not None
    best = worth(np.array(blend))
    for step in 0.05 * np.concatenate([np.eye(7), -np.eye(7)]):
        assert worth(np.array(blend) + step) < best + 1e-6


def test_few_queries_fit_no_blend():
    signals = [np.ones((3, 7))] * FEWEST
    wanted = [np.array([True, False, False])] * (FEWEST - 1) + [np.zeros(3, bool)]
    assert Blend.fit(signals, wanted) is None
    assert Blend.fit([], []) is None
