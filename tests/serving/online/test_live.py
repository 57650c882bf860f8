"""Live values against those of an update, a rebuild, and the equations."""

import tempfile
import threading
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.features import View
from mgoe.features import read as read_pairs
from mgoe.graph import MacroGraph, newcomers
from mgoe.graph.newcomers import Doings
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.retrieval import known_items
from mgoe.retrieval.popular import recent_items, shared_lists
from mgoe.serving.events.event import Event, SeenEvents
from mgoe.serving.online import cold_start
from mgoe.serving.online.base_values import BaseValues
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView, overlay_of
from mgoe.serving.online.touched import LivePairs, Nodes
from tests.effort import up_to
from tests.features.reading import gather
from tests.graph.histories import BUCKET, CUTS, event_lists
from tests.graph.placing import place
from tests.serving.online.worlds import (
    BEHAVIORS,
    GROUPS,
    NAMES,
    START,
    World,
    read,
    read_of,
    registered,
    streams,
)

MOVED = ["recent_items", "recent_items_task_mask", "recent_users", "recent_users_task_mask"]
KEPT = ["table_user", "table_item", "u2", "i2"]


def check_promised(live: LiveNodes, updated: MacroGraph, events: list[Event]):
    """What moves at once is as after an update, where newcomers are stands in `newcomers.place`, and the rest
    is as in the snapshot."""
    latest, tasks, before = updated.latest, 3, View.of(live.snapshot)
    users, items = latest.n_users, latest.n_items
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(users), np.arange(items)))
    found, wanted = read(live, users, items), read_pairs(View.of(latest), user, item, GROUPS)
    for name in (*MOVED, *(name for name in wanted if "placing" in name)):
        assert_array_equal(found[name], wanted[name], err_msg=name)
    kept = read_pairs(before, user, item, GROUPS)
    for name in KEPT:
        assert_array_equal(found[name], kept[name], err_msg=name)
    for side in SIDES:
        neighbors = f"recent_{side}s"
        macro = before.macro(side, live.snapshot.dense, found[neighbors], before.cold(side))
        assert_array_equal(found[f"{neighbors}_macro"], macro, err_msg=neighbors)
    assert_array_equal(found["pair"][:, :tasks], wanted["pair"][:, :tasks])
    half = 2 * tasks + 3
    counted = [*range(tasks + 2), *range(half, half + tasks + 2)]
    assert_array_equal(found["counts"][:, counted], wanted["counts"][:, counted])
    check_edges(live, events)
    # an update places newcomers by more of what they have done, so the edges of their neighbours differ
    new = {side: ~known(live, side, n) for side, n in (("user", users), ("item", items))}
    scores = matrices(live, events, users, items)[0]
    as_updated = (~(new["user"] | scores[:, new["item"]].any(axis=1)))[user]
    as_updated_item = (~(new["item"] | scores[new["user"]].any(axis=0)))[item]
    for name, rows in (
        ("user_macro", ~new["user"][user]), ("item_macro", ~new["item"][item]),
        ("u1", as_updated), ("i1", as_updated_item),
    ):  # fmt: skip
        assert_array_equal(found[name][rows], wanted[name][rows], err_msg=name)
    first = np.concatenate([np.array([0, 1, 3, 4]) + 15 * r for r in range(len(latest.resolutions))])
    both = as_updated & as_updated_item
    assert_array_equal(found["edges"][both][:, first], wanted["edges"][both][:, first])


def known(live: LiveNodes, side: Side, n: int) -> np.ndarray:
    """Whether each id has pairs in the snapshot."""
    arrays = live.snapshot.arrays
    nodes = np.arange(live.snapshot.n_users).repeat(np.diff(arrays["pairs.indptr"]))
    return np.bincount(nodes if side == "user" else arrays["pairs.item"], minlength=n)[:n] > 0


def check_edges(live: LiveNodes, events: list[Event]):
    """1st-order edges of touched nodes are sums over their pairs, by where the other nodes are now; and
    newcomers are where all their events place them."""
    n = {side: live.size(side) + 3 for side in SIDES}
    scores, placed = matrices(live, events, n["user"], n["item"])[0], None
    for side, other in OTHER.items():
        nodes, s = live.sides[side], scores if side == "user" else scores.T
        index = live.indices(side, np.arange(n[side]))
        slots = nodes.slots(index)
        ids, slots = np.flatnonzero(slots >= 0), slots[slots >= 0]
        macro = live.sides[other].macro_of(live.indices(other, np.arange(n[other])))
        for r, (start, end) in enumerate(pairwise(nodes.starts)):
            assert_array_equal(
                nodes.edges[slots, start:end], s[ids] @ np.eye(end - start, dtype=int)[macro[:, r]]
            )
        new = ~known(live, side, n[side])
        done = np.array(
            [
                (getattr(one, side), getattr(one, other), one.time, BEHAVIORS[one.behavior])
                for one in sorted(events, key=lambda one: (getattr(one, side), one.time))
                if new[getattr(one, side)]
            ],
            np.int64,
        ).reshape(-1, 4)
        placed = newcomers.place(Doings(*done.T), live.base.placements[side], live.snapshot, side, placed)
        rows = np.searchsorted(placed.node, np.unique(placed.node), side="right") - 1
        slots = nodes.slots(live.indices(side, placed.node[rows]))
        assert_array_equal(nodes.macro[slots], placed.macro[rows])
        own = (side == "user") | (nodes.index[slots] >= live.snapshot.n_items)
        assert_array_equal(nodes.vectors[slots[own]], placed.vectors[rows[own]])
        assert not nodes.fixed_second[slots].any()


def second_order(
    live: LiveNodes, side: str, macro: np.ndarray, r: int, matrix: np.ndarray, before: np.ndarray
) -> np.ndarray:
    """Dense edges over two steps by the equation, with other nodes as of the snapshot."""
    s, s0 = (m if side == "user" else m.T for m in (matrix, before))
    part = live.snapshot.resolutions[r]
    k = len(getattr(part, f"{side}_mass"))
    placed = getattr(part, f"{side}_macro")
    first = np.zeros((s.shape[1], k + 1), np.int64)
    for node in range(len(placed)):
        first[:, placed[node]] += s0[node]
    out = s @ first[:, :k]
    for node in range(len(s)):
        if macro[node] < k:
            out[node, macro[node]] -= (s[node] * s0[node]).sum()
    return out


def matrices(live: LiveNodes, events: list[Event], users: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Fixed-point scores of all pairs by id, with the events and before."""
    arrays, codes = live.snapshot.arrays, np.zeros((users, items), np.int64)
    user = np.repeat(np.arange(live.snapshot.n_users), np.diff(arrays["pairs.indptr"]))
    codes[user, arrays["pairs.item"]] = arrays["pairs.task_mask"]
    before = live.base.scores[codes]
    for event in events:
        codes[event.user, event.item] |= BEHAVIORS[event.behavior]
    return live.base.scores[codes], before


@up_to(3)
@given(
    events=event_lists(1, 30), cuts=st.sampled_from([CUTS, (5,), ()]), data=st.data(),
    settings=st.sampled_from([
        {}, {"sample": 2}, {"normalize": "none", "scale": 0.5, "beta": 0.5},
        {"resolutions": [(2, 2), (3, 4)]},
    ]),
)  # fmt: skip
def test_live_values_equal_those_after_an_update(events, cuts, settings, data):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, cuts, **settings)
        stream, live = data.draw(streams(world), "stream"), world.live()
        for event in stream:
            live.apply([event])
        updated = world.updated(stream)
        check_promised(live, updated, stream)


@up_to(3)
@given(events=event_lists(1, 30), data=st.data())
def test_content_reads_the_same_live_in_a_bundle_and_in_a_graph_with_more_events(events, data):
    """Nodes without events, and those whose events come live; the kernel of edges agrees with what is
    stored."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, (), content=True, resolutions=[(2, 2), (3, 4)])
        stream, live = data.draw(streams(world), "stream"), world.live()
        known, before = {"user": world.users, "item": world.items}, View.of(world.graph.latest)
        live.apply(stream)
        updated = world.updated(stream)
        check_promised(live, updated, stream)
        after = View.of(updated.latest)
        with LiveView(before, live).reading() as now:
            for side, n in known.items():
                done = {getattr(event, side) for event in stream}
                for node in (np.array([one]) for one in (n - 2, n - 1) if one not in done):
                    for name in ("sum", "kappa", "vectors", "log_first"):
                        found = [view.rows(side, name, node) for view in (before, now, after)]
                        assert found[0].any()
                        for other in found[1:]:
                            assert_array_equal(found[0], other, err_msg=name)
                    for r in range(2):
                        [macro] = {view.macro(side, r, node).item() for view in (before, now, after)}
                        assert 0 <= macro < len(getattr(before.snapshot.resolutions[r], f"{side}_mass"))
            users, items = (grid.ravel() for grid in np.meshgrid(*map(np.arange, known.values())))
            for view in (before, now, after):
                at = read_pairs(view, users, items, ["edges", "aggregates"])
                for column, own, macro in ((15, "u1", "item_macro"), (18, "i1", "user_macro")):
                    there = at[macro] < at[own].shape[1]
                    stored = np.take_along_axis(at[own], np.where(there, at[macro], 0)[:, None], 1)[:, 0]
                    assert_allclose(at["edges"][there, column], stored[there], rtol=2e-3, atol=1e-3)


@up_to(3)
@given(events=event_lists(1, 30), data=st.data())
def test_a_registered_item_reads_as_one_of_the_side_table(events, data):
    """As in a graph that was built with what it is about: in memory, live, and after an update that keeps the
    groups. Its events then count live as after an update."""
    with tempfile.TemporaryDirectory() as folder:
        built, world, content, new, memory, live = registered(Path(folder), events)
        updated = world.updated([], {"item": content})
        users, items = (grid.ravel() for grid in np.meshgrid(np.arange(world.users), new))
        with LiveView(View.of(world.graph.latest), live).reading() as now:
            views = [View.of(built.graph.latest), memory, now, View.of(updated.latest)]
            first, *others = [read_pairs(view, users, items, GROUPS) for view in views]
            recent = recent_items(now, shared_lists(now.snapshot), 9)
        assert not np.isin(new, recent).any(), "nobody has done anything with them"
        assert first["item_placing"].any(axis=1).all()
        assert (first["item_macro"] < built.graph.latest.macro_items).all()
        for found in others:
            for name, values in first.items():
                assert_array_equal(found[name], values, err_msg=name)
        live.apply(stream := data.draw(streams(world), "stream"))
        check_promised(live, world.updated(stream, {"item": content}), stream)


@up_to(6)
@given(events=event_lists(1, 30), data=st.data())
def test_second_order_moves_by_the_counterparts_edges_of_the_snapshot(events, data):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, (), resolutions=[(2, 3), (3, 4)], dense=1)
        stream, live = data.draw(streams(world), "stream"), world.live()
        live.apply(stream)
        users, items = world.users + 3, world.items + 3
        after, before = matrices(live, stream, users, items)
        found = {side: live.sides[side] for side in ("user", "item")}
        for side, n, sums in (("user", users, before.sum(axis=0)), ("item", items, before.sum(axis=1))):
            nodes = found[side]
            codes = live.indices(side, np.arange(n))
            slots = np.where(codes >= 0, nodes.slot[codes], -1)
            ids = np.flatnonzero(slots >= 0)
            slots = slots[ids]
            s, s0 = (m if side == "user" else m.T for m in (after, before))
            assert_array_equal(nodes.fixed_second_sum[slots], (s @ sums - (s * s0).sum(axis=1))[ids])
            for r in range(2):
                macro = np.full(n, 99)
                macro[ids] = nodes.macro[slots, r]
                dense = second_order(live, side, macro, r, after, before)
                there = known(live, side, n)[ids]
                own = dense[ids[there], nodes.macro[slots[there], r]]
                assert_array_equal(nodes.fixed_second[slots[there], r], own)
                assert not nodes.fixed_second[slots[~there], r].any(), "newcomers have none"


@up_to(6)
@given(events=event_lists(1, 30), data=st.data())
def test_the_order_of_arrival_changes_nothing(events, data):
    """Any permutation, in any parts, some of them twice, also behind the last placement of a newcomer."""
    powers = data.draw(st.sampled_from([newcomers.POWERS, 2]), "powers")
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(newcomers, "POWERS", powers):
        world = World(Path(folder), START + events, ())
        stream = data.draw(streams(world), "stream")
        one, other = world.live(), world.live()
        for event in stream:
            one.apply([event])
        again = data.draw(st.permutations(stream + stream[:4]), "again")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(again)), max_size=4), "cuts"))
        for low, high in zip([0, *cuts], [*cuts, len(again)], strict=True):
            other.apply(again[low:high])
        a, b = (read(live, world.users + 3, world.items + 3) for live in (one, other))
        assert a.keys() == b.keys()
        for name in a:
            assert_array_equal(a[name], b[name], err_msg=name)
        assert one.stats["events"] == other.stats["events"]
        check_edges(one, stream)


@up_to(3)
@given(events=event_lists(1, 30))
def test_without_events_live_values_are_the_snapshots(events):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, ())
        live = world.live()
        user, item = (
            grid.ravel()
            for grid in np.meshgrid(np.arange(-1, world.users + 1), np.arange(-1, world.items + 1))
        )
        found, wanted = (
            read_pairs(View.of(live.snapshot).over(overlay_of(live)), user, item, GROUPS),
            read_pairs(View.of(live.snapshot), user, item, GROUPS),
        )
        assert found.keys() == wanted.keys()
        for name in found:
            assert found[name].dtype == wanted[name].dtype
            assert_array_equal(found[name], wanted[name], err_msg=name)


def test_pairs_that_no_event_concerns_read_as_the_snapshot(large: World):
    """Rows of touched nodes among them change nothing, whether a user has one row or many."""
    live = large.live()
    moved = sorted(large.there)[:2]
    live.apply([Event(u, i, "buy", time + 10**9) for u, i, time, _ in moved])
    arrays = live.snapshot.arrays
    touched = {side: live.touched(side) for side in ("user", "item")}
    concerned = {
        "user": np.isin(arrays["recent_items"], touched["item"]).any(1),
        "item": np.isin(arrays["recent_users"], touched["user"]).any(1),
    }
    for side, nodes in touched.items():
        concerned[side][nodes] = True
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, large.users, 2000), rng.integers(0, large.items, 2000)
    user[:1000] = np.repeat(user[:50], 20)
    found = gather(live, user, item, GROUPS)
    wanted = gather(live.snapshot, user, item, GROUPS, moment=live.state.now)
    plain = ~(concerned["user"][user] | concerned["item"][item])
    assert 100 < plain.sum() < 1900
    for name in wanted:
        assert_array_equal(found[name][plain], wanted[name][plain], err_msg=name)
        assert found[name].dtype == wanted[name].dtype


def test_a_view_that_was_read_before_an_event_reads_it_afterwards(large: World):
    """What groups gather once for a view does not outlive it."""
    live = large.live()
    kept, (user, item) = LiveView(View.of(live.snapshot), live), np.indices((20, 20)).reshape(2, -1)

    def edges(source: LiveView) -> np.ndarray:
        with source.reading() as view:
            return read_pairs(view, user, item, ["edges"])["edges"]

    before = edges(kept)
    for step in range(1, 4):
        live.apply([Event(step, 20 - step, "buy", (10 + step) * BUCKET)])
        after = edges(kept)
        assert_array_equal(after, edges(LiveView(View.of(live.snapshot), live)))
        assert (after != before).any()
        before = after


def test_touched_nodes_without_change_read_as_the_snapshot(large: World):
    """An event that repeats a known interaction changes only counts, when it was, and recent neighbours."""
    live, latest = large.live(), large.graph.latest
    known = sorted(large.there)[::7]
    past = [Event(u, i, NAMES[t], time - 1) for u, i, time, t in known]
    live.apply(past)
    user, item = np.array([(u, i) for u, i, _, _ in known]).T
    found, wanted = gather(live, user, item, GROUPS), read_pairs(View.of(latest), user, item, GROUPS)
    for name in set(found) - {"counts", "repeats", "user_trend", "item_trend"}:
        assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.parametrize("side", ["user", "item"])
def test_newcomers_are_placed_as_by_place(large: World, side: Side):
    live, rng = large.live(), np.random.default_rng(0)
    for k in range(20):
        others, codes = rng.choice(50, 5, replace=False), rng.integers(1, 8, 5)
        who, bits = (
            10_000 + k,
            [(int(o), NAMES[t]) for o, c in zip(others, codes, strict=True) for t in range(3) if c >> t & 1],
        )
        live.apply(
            [
                Event(who, o, n, 10 * BUCKET) if side == "user" else Event(o, who, n, 10 * BUCKET)
                for o, n in bits
            ]
        )
        wanted, nodes = place(large.graph, side, others, codes), live.sides[side]
        slot = nodes.slot[live.indices(side, [who])[0]]
        assert nodes.macro[slot].tolist() == list(wanted.macro)
        assert_allclose(nodes.vectors[slot], wanted.vector, rtol=1e-5, atol=1e-8)


def test_a_newcomer_with_a_power_of_two_of_neighbors_is_where_an_update_puts_it(large: World):
    live = large.live()
    stream = [Event(large.users, i, "buy", 10 * BUCKET + i) for i in range(0, 24, 3)]
    live.apply(stream)
    updated, nodes = large.updated(stream).latest, live.sides["user"]
    slot = nodes.slot[large.users]
    placed = nodes.vectors[slot].copy(), nodes.macro[slot].copy()
    assert_allclose(placed[0], updated.arrays["user_vectors"][large.users], rtol=1e-6)
    assert placed[1].tolist() == [part.user_macro[large.users] for part in updated.resolutions]
    for k in range(30, 37):  # until the next power
        live.apply([Event(large.users, k, "buy", 10 * BUCKET + k)])
        assert_array_equal(nodes.vectors[slot], placed[0])
    live.apply([Event(large.users, 40, "buy", 10 * BUCKET + 40)])
    assert (nodes.vectors[slot] != placed[0]).any()


def test_the_order_of_time_places_a_newcomer_at_powers_of_two_alone(
    large: World, monkeypatch: pytest.MonkeyPatch
):
    """Whoever else is new: what a newcomer costs does not grow with what it has done. Behind the last power
    its events are not kept."""
    monkeypatch.setattr(newcomers, "POWERS", 5)
    live, placed = large.live(), []
    inner = newcomers.place
    monkeypatch.setattr(cold_start, "place", lambda *given: placed.append(given) or inner(*given))
    events = [Event(large.users + k, large.items, "click", 10 * BUCKET + k) for k in range(60)]
    for event in events:
        live.apply([event])
    assert len(placed) == 60 + 5, "each user once, the item at 1, 2, 4, 8, and 16"
    assert live.state.cold_start.doings["item"].size == 16
    late = [Event(user, large.items, "buy", 10 * BUCKET) for user in range(3)]
    live.apply(late)
    check_edges(live, [*events, *late])


def test_readers_see_all_of_a_batch_or_none(large: World):
    """Every batch has two events; a reader always finds an even number of them, and edges to match."""
    live, seen, done = large.live(), [], threading.Event()
    user = 10_000

    def look() -> None:
        while not done.is_set():
            out = gather(live, live.indices("user", [user]), np.array([0]), ["counts", "aggregates"])
            edges = np.expm1(out["u1"][0].astype(np.float64)).sum()
            seen.append((round(float(np.expm1(out["counts"][0, 3]))), edges / np.log1p(1.0)))

    reader = threading.Thread(target=look)
    reader.start()
    for k in range(0, 80, 2):
        live.apply([Event(user, k, "click", 10 * BUCKET), Event(user, k + 1, "click", 10 * BUCKET)])
    done.set()
    reader.join()
    assert {pairs % 2 for pairs, _ in seen} == {0}
    assert_allclose([edges for _, edges in seen], [pairs for pairs, _ in seen], rtol=5e-3)


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_newcomer_becomes_known_with_its_events(large: World, side: Side, monkeypatch: pytest.MonkeyPatch):
    live, seen = large.live(), []
    before = live.sides[side].base_values
    size, read_before = live.size(side), type(before).read

    def look(self: BaseValues, indices: np.ndarray) -> dict[str, np.ndarray]:
        seen.append((live.indices(side, [10_000]).tolist(), live.size(side), live.stats[f"new {side}s"]))
        return read_before(self, indices)

    monkeypatch.setattr(BaseValues, "read", look)
    live.apply([Event(10_000, 10_000, "click", 10 * BUCKET)])
    assert seen == [([-1], size, 0)] * 2
    assert (live.indices(side, [10_000]).tolist(), live.size(side), live.stats[f"new {side}s"]) == (
        [size],
        size + 1,
        1,
    )


@given(
    ids=st.lists(
        st.one_of(st.integers(-5, 10_010), st.integers(), st.text("0123456789-x", max_size=6)), max_size=9
    )
)
def test_ids_as_json_has_them_are_looked_up_without_an_index_of_texts(
    large_and_newcomers: LiveNodes, ids: list[int | str]
):
    live, text = large_and_newcomers, [str(one) for one in ids]
    assert live.look_up("user", ids).tolist() == live.look_up("user", text).tolist()
    assert "_by_string" not in vars(live.vocabularies["user"])
    other = LiveNodes(live.base)  # by a vocabulary of its own, which may have one
    other.vocabularies, other.state = {side: copy(one) for side, one in live.vocabularies.items()}, live.state
    assert live.look_up("user", ids).tolist() == other.indices("user", text).tolist()


@pytest.fixture(scope="module")
def large_and_newcomers(large: World) -> LiveNodes:
    live = large.live()
    live.apply([Event(user, 0, "buy", 10 * BUCKET) for user in (10_000, 10_002, -3)])
    return live


def test_stats_count_events_and_nodes(large: World):
    live = large.live()
    newest = large.graph.manifest.last
    one, late = Event(0, 0, "buy", newest + 1, "a"), Event(1, 1, "click", 3, "b")
    assert live.apply([one, late, one, Event(0, 0, "wave", newest + 1)]) == 2
    assert live.apply([one, replace(one, id=None)]) == 0
    assert live.apply([Event(10_000, 10_000, "click", newest + 2)]) == 1
    stats = live.stats
    assert stats["events"] == 3
    assert stats["duplicates"] == 3
    assert stats["unknown"] == 1
    assert stats["late"] == 1
    assert (stats["new users"], stats["new items"], stats["touched users"], stats["touched items"]) == (
        1,
        1,
        3,
        3,
    )
    with LiveView(View.of(live.snapshot), live).reading() as view:
        assert known_items(view, int(live.indices("user", [10_000])[0])).tolist() == [large.items]
    assert live.ids("item", [large.items, 0, -1]) == [10_000, 0, None]
    assert live.changes("user", int(live.indices("user", [10_000])[0]))["pairs"] == (0, 1)
    assert live.changes("user", 2) == {}
    assert set(live.touched("item").tolist()) == {0, 1, large.items}
    assert live.touched("item", live.version - 1).tolist() == [large.items]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (BaseValues, "read"),
        (Nodes, "add_newcomers"),
        (Nodes, "touch"),
        (LivePairs, "add"),
        (SeenEvents, "add"),
    ],
)
def test_a_batch_that_failed_is_tried_again_as_if_it_had_not(
    large: World, where: type, name: str, monkeypatch: pytest.MonkeyPatch
):
    """With a repeated id, one without, a behaviour of no task, and newcomers."""
    click = Event(0, 1, "click", 10 * BUCKET, "a")
    newcomers, unknown = (
        replace(click, id="c", user=10_000, item=10_001),
        replace(click, id="b", behavior="wave"),
    )
    batch = [click, click, replace(click, id=None), unknown, newcomers]
    live, other = large.live(), large.live()
    for one in (live, other):
        one.apply([replace(click, id="d", item=2)])
    with monkeypatch.context() as patch:
        patch.setattr(where, name, lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            live.apply(batch)
    assert live.apply(batch) == other.apply(batch) == 2
    assert live.stats == other.stats
    found, wanted = (read_of(one, [0, 1, 2, 10_000, 10_001]) for one in (live, other))
    for key in wanted:
        assert_array_equal(found[key], wanted[key], err_msg=key)


def test_an_interaction_of_the_snapshot_does_not_count_again_under_another_behaviour(large: World):
    """Behaviours share tasks: of a behaviour that does more, the rest counts."""
    moment, live = 10 * BUCKET, large.live()
    live.skip([Event(0, 5, "click", moment)])
    both = Event(0, 5, "click and buy", moment)
    assert live.apply([Event(0, 5, "click", moment, "a")]) == 0
    assert live.apply([both]) == 1
    assert live.apply([Event(0, 5, "buy", moment), Event(0, 5, "click", moment)]) == 0
    buy = large.live()
    buy.apply([Event(0, 5, "buy", moment)])
    assert live.changes("user", 0)["events"] == buy.changes("user", 0)["events"]


def test_another_state_on_the_same_snapshot_knows_nothing_of_this_one(large: World):
    live, event = large.live(), Event(0, 10_000, "buy", large.graph.manifest.last + 1, "a")
    live.apply([event])
    other = LiveNodes(live.base)
    assert (other.stats["events"], other.size("item")) == (0, large.items)
    assert other.apply([event, replace(event, user=1, id="b")]) == 2
    assert live.stats["events"] == 1
    assert live.changes("user", 1) == {}
    for found, mine in zip(live.changes("user", 0)["edges"], other.changes("user", 0)["edges"], strict=True):
        assert_array_equal(found, mine)
