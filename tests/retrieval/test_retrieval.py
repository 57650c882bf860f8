"""Candidates of a view: from before its cut, and live ones as after an update."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.config import RetrievalSettings
from mgoe.errors import BundleError
from mgoe.features import View
from mgoe.retrieval import Retrieval, generators, popular
from mgoe.retrieval.popular import shared_lists
from mgoe.serving.events.event import Event
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.online.session import Done, Session
from tests.effort import up_to
from tests.graph.histories import event_lists, history, planted
from tests.serving.online.worlds import START, World, registered, streams

SETTINGS = RetrievalSettings(candidates=12, neighbors=5)
ALIKE = ("own", "item_to_item", "swing", "macro", "popular")
"""Generators whose live items are as after an update. Vectors wait for it, and `recent` starts with new
items. Those of `macro` are of where newcomers are now."""


def ids_of(live: LiveNodes, items: np.ndarray) -> list[int]:
    return live.ids("item", items)


@up_to(3)
@given(events=event_lists(1, 40), data=st.data())
def test_live_candidates_are_as_after_an_update(events, data):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, (), resolutions=[(2, 3), (3, 4)])
        stream, live = data.draw(streams(world), "stream"), world.live()
        base = View.of(world.graph.latest)
        found = Retrieval.build(base, Path(folder) / "retrieval", SETTINGS)
        live.apply(stream)
        updated = World.updated(world, stream).latest
        recent = shared_lists(updated).recent.tolist()
        with LiveView(base, live).reading() as view:
            for id in range(world.users + 3):
                [user] = live.indices("user", [id])
                before, after = found.generate(view, user, 9), found.generate(View.of(updated), id, 9)
                slot = int(live.sides["user"].slots(np.array([user]))[0])
                if slot >= 0 and live.sides["user"].new[slot]:
                    lists, node = found.stored.lists.macro, live.sides["user"].macro[slot, -1]
                    listed = lists[node].ravel() if node < len(lists) else lists[:0].ravel()
                    after["macro"] = listed[(listed >= 0) & ~np.isin(listed, after["own"])]
                for name in ALIKE:
                    assert live.ids("item", before[name]) == after[name].tolist(), name
                known = [i for i in found.generate(view, user, 99)["recent"] if i < world.items]
                own = {*after["own"].tolist()}
                assert known == [i for i in recent if i < world.items and i not in own]


@up_to(3)
@given(events=event_lists(1, 40, users=5, items=12), data=st.data())
def test_no_item_from_after_the_snapshot_is_retrieved(events, data):
    with tempfile.TemporaryDirectory() as folder:
        log = history(START + events)
        graph = log.build(Path(folder) / "graph")
        number = data.draw(st.sampled_from(range(len(graph.snapshots))))
        view = View.of(graph.snapshots[number])
        found = Retrieval.build(view, Path(folder) / "retrieval", SETTINGS)
        there = {*log.until(number)["item"].tolist()}
        for user in (-1, *range(view.snapshot.n_users), 10**9):
            assert {*found.candidates(view, user, 99).tolist()} <= there


@up_to(2)
@given(events=event_lists(1, 30))
def test_registered_items_are_found_as_from_a_graph_built_with_them(events):
    """In memory, live, and after an update that keeps the groups: the same items, in the same order."""
    with tempfile.TemporaryDirectory() as folder:
        built, world, content, new, memory, live = registered(Path(folder), events)
        updated = View.of(world.updated([], {"item": content}).latest)
        view = View.of(built.graph.latest)
        found = Retrieval.build(view, Path(folder) / "retrieval", SETTINGS)
        vectors = view.base["item"]["vectors"]
        with LiveView(View.of(world.graph.latest), live).reading() as now:
            for user in (-1, *range(world.users)):
                lists = [found.generate(one, user, 9)["unseen"] for one in (view, memory, now, updated)]
                own = view.rows("user", "vectors", view.known("user", np.array([user])))[0]
                near = vectors @ own / np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
                assert {*lists[0].tolist()} == ({*new.tolist()} if own.any() else set())
                assert (np.diff(near[lists[0]]) < 1e-6).all(), "the nearest first"
                for items in lists[1:]:
                    assert_array_equal(items, lists[0])


def test_the_newest_unseen_items_are_compared_and_have_a_quota_where_content_places_items(
    tmp_path, monkeypatch
):
    rows = [(k % 7, k % 5, k, k % 3) for k in range(40)]
    told, other = (
        World(Path(tempfile.mkdtemp(dir=tmp_path)), rows, content=about) for about in (True, False)
    )
    views = [View.of(one.graph.latest) for one in (told, other)]
    found, without = (
        Retrieval.build(view, tmp_path / f"retrieval{k}", SETTINGS) for k, view in enumerate(views)
    )
    assert found.quotas["unseen"]
    assert "unseen" not in without.quotas
    first, last = told.items - 2, told.items - 1
    user = next(user for user in range(7) if views[0].base["user"]["vectors"][user].any())
    assert {*found.generate(views[0], user, 9)["unseen"].tolist()} == {first, last}
    assert {first, last} <= {*found.candidates(views[0], user, 99).tolist()}
    assert {first, last}.isdisjoint(found.candidates(views[0], user, 99, np.array([first, last])).tolist())
    monkeypatch.setattr(generators, "MOST_UNSEEN", 1)
    assert found.generate(views[0], user, 9)["unseen"].tolist() == [last]
    assert without.generate(views[1], user, 9)["unseen"].size == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("retrieval"), planted(users=40, items=32, events=400))


@pytest.fixture(scope="module")
def retrieval(world: World) -> Retrieval:
    return Retrieval.build(View.of(world.graph.latest), world.folder / "retrieval", SETTINGS)


def test_an_item_whose_first_event_is_live_is_recent_for_everyone(world, retrieval):
    live, view = world.live(), View.of(world.graph.latest)
    live.apply([Event(3, world.items + 5, "click", 999, "e1"), Event(4, world.items + 7, "click", 999, "e2")])
    with LiveView(view, live).reading() as now:
        for user in (0, 5, -1):
            recent = live.ids("item", retrieval.generate(now, user, 5)["recent"])
            assert recent[0:3:2] == [
                world.items + 7,
                world.items + 5,
            ]  # the newest first
            assert world.items + 7 in live.ids("item", retrieval.candidates(now, user))
        assert world.items + 5 not in live.ids(
            "item", retrieval.generate(now, 3, 9)["recent"]
        )  # it is theirs
    assert max(retrieval.candidates(view, 0)) < world.items


def test_items_outside_the_list_rise_by_live_events(world, tmp_path, monkeypatch):
    monkeypatch.setattr(popular, "LISTED", 4)
    view, live = View.of(world.graph.latest), world.live()
    lists = shared_lists(view.snapshot)
    assert_array_equal(popular.recent_items(view, lists, 4), lists.recent)  # nothing is live
    rng = np.random.default_rng(0)
    live.apply([
        Event(world.users + k, int(rng.integers(20, 26)), "click", 900 + k, f"e{k}") for k in range(60)
    ])  # fmt: skip
    with LiveView(view, live).reading() as now:
        events = now.rows("item", "counts", np.arange(world.items))[:, 4]
        assert_array_equal(popular.recent_items(now, lists, 4), np.argsort(-events, kind="stable")[:4])
    assert not np.isin(lists.recent, popular.recent_items(now, lists, 4)).all()


def test_many_new_items_do_not_hide_what_is_in_demand(world, retrieval):
    live, view, users = world.live(), View.of(world.graph.latest), world.users
    wanted, n = world.items + 50, 8
    live.apply([Event(users + k, wanted, "click", 900 + k, f"e{k}") for k in range(60)])
    live.apply([Event(users, wanted + 1 + k, "click", 990 + k, f"f{k}") for k in range(30)])
    with LiveView(view, live).reading() as now:
        recent = live.ids("item", popular.recent_items(now, retrieval.stored.lists, n))
        assert recent[0] == wanted + 30, "the newest"
        assert recent[1] == wanted, "most events"
        assert len({*recent} & {*range(world.items)}) == n // 2 - 1


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=30), n=st.integers(1, 12), data=st.data())
def test_the_best_items_are_the_start_of_a_full_sort(values: list[int], n: int, data):
    items = np.array(data.draw(st.permutations(range(len(values)))))
    best = sorted((-value, item) for value, item in zip(values, items.tolist(), strict=True) if value)
    assert popular._best(items, np.array(values, np.float32), n).tolist() == [item for _, item in best[:n]]


def test_lists_come_in_turn():
    lists = np.array([5, 3, 9]), np.array([3]), np.array([7, 5, 1, 2])
    assert popular.in_turn(*lists).tolist() == [5, 3, 7, 9, 1, 2]


@pytest.mark.parametrize("listed", [4, 1000])
def test_the_items_of_a_session_are_no_more_recent_than_before(world, monkeypatch, listed: int):
    monkeypatch.setattr(popular, "LISTED", listed)
    view, live = View.of(world.graph.latest), world.live()
    lists = shared_lists(view.snapshot)
    live.apply([Event(world.users, item, "click", 900, f"e{item}") for item in (2, 20, 21, 99)])
    [new] = live.indices("item", [99])
    with LiveView(view, live).reading() as now:
        session = Session.of(live, [Done(item, 0b1, 950) for item in (2, 5, new)])
        recent = popular.recent_items(session.over(now), lists, 12)
        assert_array_equal(recent, popular.recent_items(now, lists, 12))
    assert recent[0] == new


def test_a_live_event_moves_item_to_item_candidates_at_once(world, retrieval):
    live, base = world.live(), View.of(world.graph.latest)
    links = retrieval.stored.links["cosine"]
    item = int(np.argmax(np.diff(links.indptr)))
    live.apply([Event(world.users + 2, item, "click", 999, "e1")])
    user = live.size("user") - 1
    with LiveView(base, live).reading() as view:
        found = retrieval.generate(view, user, 9)
    fresh, row = retrieval.stored.fresh, slice(*links.indptr[item : item + 2])
    order = np.lexsort((links.item[row], -fresh[links.item[row]] * links.weight[row]))
    assert_array_equal(found["item_to_item"], links.item[row][order][:9])
    assert_array_equal(found["own"], [item])


def test_an_unknown_user_gets_popular_and_recent_items_alone(world, retrieval):
    view = View.of(world.graph.latest)
    for user in (-1, world.users, 10**9):
        lists = retrieval.generate(view, user, 5)
        assert [name for name, items in lists.items() if len(items)] == ["recent", "popular"]
        assert len(retrieval.candidates(view, user)) == SETTINGS.candidates


def test_generators_but_own_leave_out_known_items(world, retrieval):
    view = View.of(world.graph.latest)
    for user in range(world.users):
        lists, known = retrieval.generate(view, user, 40), view.snapshot.known_items(user)
        assert {*lists.pop("own").tolist()} == {*known.tolist()}
        for name, items in lists.items():
            assert len({*items.tolist()}) == len(items), name
            assert not np.isin(items, known).any(), name


def test_the_quota_of_items_that_are_left_out_goes_to_other_generators(world, retrieval):
    """Lists are long enough here that every quota is filled."""
    view, quotas = View.of(world.graph.latest), {"own": 6, "item_to_item": 3, "recent": 3}
    mixed = replace(retrieval, quotas=quotas)
    for user in range(world.users):
        known = view.snapshot.known_items(user)
        found, whole = mixed.candidates(view, user, without=known), mixed.candidates(view, user)
        assert not np.isin(found, known).any()
        assert len(found) == len(whole) == 12
        assert np.isin(whole, known).any()
        lists = {name: mixed.generate(view, user, 12)[name] for name in ("item_to_item", "recent")}
        for items in lists.values():
            assert np.isin(items[: min(3, len(items))], found).all()


def test_the_sketch_finds_the_nearest_items(world, retrieval):
    """Few items are all in cells that are read, so that only eight bits per number are approximate."""
    view = View.of(world.graph.latest)
    vectors = view.snapshot.arrays["item_vectors"]
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
    for user in range(world.users):
        cosine = vectors @ view.snapshot.arrays["user_vectors"][user] / length
        new = np.setdiff1d(np.flatnonzero(vectors.any(axis=1)), view.snapshot.known_items(user))
        found = retrieval.generate(view, user, 3)["sketch"]
        assert cosine[found].min() >= np.sort(cosine[new])[::-1][: len(found)].min() - 0.02 * np.ptp(cosine)


def test_a_second_build_is_equal(world, retrieval, tmp_path):
    again = Retrieval.build(View.of(world.graph.latest), tmp_path / "again", SETTINGS)
    files = sorted(file.name for file in again.path.iterdir())
    assert files == sorted(file.name for file in retrieval.path.iterdir())
    for file in files:
        assert (again.path / file).read_bytes() == (retrieval.path / file).read_bytes(), file


def test_a_damaged_folder_is_reported(world, retrieval, tmp_path):
    own = Path(shutil.copytree(retrieval.path, tmp_path / "own"))
    (own / "cosine.item.npy").unlink()
    with pytest.raises(BundleError, match=r"cannot be read .*write the bundle again"):
        Retrieval.open(own)
    (own / "retrieval.json").write_text('{"format": 0, "quotas": {}}')
    with pytest.raises(BundleError, match="reads retrieval format 3, found 0"):
        Retrieval.open(own)
