"""Recommendations over HTTP: as the bundle's, with live events, and for sessions."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import mgoe
from mgoe.bundle import seal
from mgoe.config import FeatureSettings, RetrievalSettings
from mgoe.data import FeatureEncoders, SideFeatures, Vocabulary
from mgoe.evaluation import read_rows
from mgoe.retrieval import Blend, Retrieval, popular
from mgoe.serving import LiveBundle, open_log
from tests.serving.served import Served, answered, served, timeless

VISITOR, ARRIVAL = 10**9, 10**9 + 5
SHELVES = ["left", "middle", "right"]


@pytest.fixture(scope="module")
def shop(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that retrieves 20 of its 99 items, each of which is on a shelf."""
    return shop_of(finished, tmp_path_factory.mktemp("shop") / "bundle", RetrievalSettings(candidates=20))


def shop_of(finished: Path, path: Path, how: RetrievalSettings) -> Path:
    """Copy a bundle, with shelves and with what it retrieves from."""
    shutil.copytree(finished / "bundle", path)
    bundle = mgoe.load(path)
    blend = Blend(log_odds=-0.2, sampling=-0.4, linked=0.5, session=0.8)
    Retrieval.build(bundle.view, path / "retrieval", how, blend=blend)
    encoders = FeatureEncoders((FeatureSettings(name="shelf"),), {"shelf": Vocabulary(pa.array(SHELVES))})
    shelf = np.random.default_rng(0).integers(0, 4, bundle.size("item"))
    shutil.rmtree(path / "item_side")
    (path / "bundle.json").unlink()
    SideFeatures(encoders, {"shelf": shelf}).save(path / "item_side")
    seal(path, bundle.manifest, bundle.settings, read_rows(path / "metrics.json"))
    return path


@pytest.fixture(scope="module")
def store(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of it, to which tests add no events."""
    with served(shop, tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"k": 50},
        {"exclude_known": True, "objective": "click * buy^2"},
        {"where": {"shelf": ["left", "right"]}, "max_per": {"shelf": 2}},
        {"where": {"shelf": "middle"}, "at_least": {"click": 0.001}},
    ],
)
def test_recommendations_are_those_of_the_bundle(store: Served, shop: Path, asked: dict):
    bundle = mgoe.load(shop)
    for user in (*bundle.ids("user", np.arange(4)), "nobody"):
        found, expected = store.recommend(user=user, **asked), bundle.recommend(user, **asked)
        assert_allclose(found["tasks"]["click"], expected["click"], rtol=1e-4)
        assert set(found["items"]) == set(expected["item"])
        assert found["unseen_user"] == (user == "nobody")
        assert found["ranked"] <= max(20, asked.get("k", 0))
        ranked = store.rank(user=user, **asked)
        assert {name: ranked[name] for name in timeless(found)} == timeless(found)


def test_an_answer_says_whether_everything_was_ranked(store: Served, service: Served):
    assert [store.recommend(user=1, k=k)["exact"] for k in (5, 98, 99)] == [False, False, True]
    assert service.recommend(user=1)["exact"]  # a bundle without retrieval
    assert service.recommend(user=1)["ranked"] == store.recommend(user=1, k=10_000)["ranked"]
    items = store.recommend(user=1, k=99)["items"]
    assert [store.recommend(user=1, exclude=items[:n])["exact"] for n in (78, 79)] == [False, True]
    nothing = store.recommend(user=1, where={"shelf": "no shelf"})
    assert (nothing["items"], nothing["ranked"], nothing["exact"]) == ([], 0, True)
    assert store.rank(user=1, candidates=["new"])["exact"]


def test_a_request_that_leaves_no_item_is_answered_without_items(store: Served, service: Served):
    """A bundle has at least two items, since a log with fewer is refused; requests may leave none of them."""
    everything = store.recommend(user=1, k=99)["items"]
    for exclude in ({"exclude": everything}, {"at_least": {"click": 1.1}}):
        for visitor in (
            {"user": 1},
            {"user": "nobody"},
            {"events": [{"item": everything[0], "behavior": "buy"}]},
        ):
            for asked in (store, service):
                answer = asked.recommend(**visitor, **exclude)
                assert (answer["items"], answer["scores"]) == ([], [])
                assert answer["tasks"] == {"click": [], "buy": []}
    ranked = store.rank(user=1, candidates=everything[:3], exclude=everything[:3])
    assert (ranked["items"], ranked["ranked"]) == ([], 0)


def test_events_move_candidates_at_once_and_new_items_are_found(shop: Path, tmp_path: Path):
    bundle = mgoe.load(shop)
    items = bundle.ids("item", np.arange(bundle.size("item")))
    with served(shop, tmp_path) as live:
        before = live.recommend(user=VISITOR, k=20)
        last = next(item for item in reversed(items) if item not in before["items"])
        live.add(
            {"user": VISITOR, "item": last, "behavior": "buy"},
            *({"user": VISITOR + 1, "item": ARRIVAL - k, "behavior": "click"} for k in range(25, -1, -1)),
        )
        after = live.recommend(user=VISITOR, k=20)
        assert after["unseen_user"] is False
        assert {last, ARRIVAL} <= {*after["items"]}
        assert last not in live.recommend(user=VISITOR, k=20, exclude_known=True)["items"]
        assert ARRIVAL not in live.recommend(user=VISITOR, where={"shelf": SHELVES}, k=50)["items"]
        with live.reloader.engine.scorer.reading() as view:
            user = live.reloader.engine.live.look_up("user", [VISITOR])[0]
            retrieved = bundle.retrieval.candidates(view, int(user))
        assert {*live.reloader.engine.live.ids("item", retrieved)} == {*after["items"]}
        found = LiveBundle(bundle, open_log(str(tmp_path), make=False)).recommend(VISITOR, k=20)
        assert {*found["item"]} == {*after["items"]}


def test_a_session_is_ranked_as_a_user_and_stored_nowhere(shop: Path, tmp_path: Path):
    bundle = mgoe.load(shop)
    seen = bundle.ids("item", np.array([3, 7]))
    session = [
        {"item": seen[0], "behavior": "buy", "time": "2026-05-01T12:00:00Z"},
        {"item": str(seen[1]), "behavior": "click"},
        {"item": ARRIVAL, "behavior": "click"},
    ]
    with served(shop, tmp_path) as live:
        stats = live.reloader.engine.consumer.stats
        found = live.recommend(events=session, k=99)
        assert (found["user"], found["unseen_user"], found["exact"]) == (None, False, True)
        assert {*seen} <= {*found["items"]}
        assert not {*seen} & {*live.recommend(events=session, k=99, exclude_known=True)["items"]}
        assert live.reloader.engine.consumer.stats == stats
        nobody = live.recommend(user="nobody", k=99)
        assert found["scores"] != nobody["scores"]
        for unseen in (session[2:], []):
            assert timeless(live.recommend(events=unseen, k=99)) == timeless(nobody) | {"user": None}
        live.add(*({"user": VISITOR, **event} for event in session[:2]))
        after = live.recommend(user=VISITOR, k=99)  # the items of the events have changed since
        scores = dict(zip(after["items"], after["scores"], strict=True))
        other = [item for item in found["items"] if item not in seen]
        own = dict(zip(found["items"], found["scores"], strict=True))
        assert_allclose([own[item] for item in other], [scores[item] for item in other], rtol=0.05)
        assert np.median([abs(own[item] / scores[item] - 1) for item in other]) < 1e-3


def test_a_session_retrieves_among_live_events(shop: Path, tmp_path: Path):
    bundle = mgoe.load(shop)
    first, second, other = bundle.ids("item", np.array([3, 7, 11]))
    events = [{"item": item, "behavior": "click"} for item in (first, second, ARRIVAL)]
    with served(shop, tmp_path) as live:
        live.add({"user": VISITOR, "item": ARRIVAL, "behavior": "buy"})
        live.add(*({"user": VISITOR + k, "item": other, "behavior": "click"} for k in range(1, 9)))
        found = live.recommend(events=events, k=5, exclude_known=True)
        assert (found["exact"], found["ranked"]) == (False, 20)
        assert not {first, second, ARRIVAL} & {*found["items"]}
        with live.reloader.engine.scorer.reading() as view:
            recent = popular.recent_items(view, bundle.retrieval.stored.lists, 20)
        first_of_all, *others = live.reloader.engine.live.ids("item", recent)
        assert first_of_all == ARRIVAL
        assert other in others


def test_newcomers_that_were_not_ranked_are_not_all_that_a_request_allows(finished: Path, tmp_path: Path):
    how = RetrievalSettings(candidates=20, quotas={"popular": 20})
    shop = shop_of(finished, tmp_path / "bundle", how)
    n = mgoe.load(shop).size("item")
    with served(shop, tmp_path / "state") as live:
        live.add(*({"user": VISITOR, "item": ARRIVAL + k, "behavior": "click"} for k in range(50)))
        found = live.recommend(user=VISITOR + 1, k=n + 20)
        assert found["ranked"] < n + 50
        assert found["exact"] is False
        assert live.recommend(user=VISITOR + 1, k=n + 50)["exact"] is True


@pytest.mark.parametrize(
    ("request_", "place", "message"),
    [
        ({}, "user", "the events of a session instead, found none"),
        ({"user": 1, "events": []}, "user", "found both"),
        ({"events": [{"item": 1, "behavior": "by"}]}, "events.0.behavior", "must be one of click, buy"),
        ({"events": [{"item": 1, "behavior": "buy", "user": 2}]}, "events.0.user", "item, behavior, time"),
        ({"events": [{"behavior": "buy"}]}, "events.0.item", "must be an id"),
        ({"events": [{}] * 1001}, "events", "1,000 at most"),
        ({"user": 1, "candidates": [2]}, "candidates", "not permitted"),
        ({"user": 1, "k": 10_001}, "k", "less than or equal to 10000"),
        ({"user": 1, "where": {"shelves": "left"}}, "where.shelves", "did you mean 'shelf'"),
        ({"user": 1, "where": {"shelf": None}}, "where.shelf", "must be a text, a number"),
        ({"user": 1, "where": {"shelf": []}}, "where.shelf", "at least one value"),
        ({"user": 1, "max_per": {"shelf": 0}}, "max_per.shelf", "greater than or equal to 1"),
        ({"user": 1, "max_per": {"price": 2}}, "max_per.price", "not an item feature"),
    ],
)
def test_a_request_that_cannot_be_met_fails(store: Served, request_: dict, place: str, message: str):
    response = store.client.post("/v1/recommend", json=request_)
    problem = response.json()
    assert (response.status_code, problem["place"]) == (422, place), problem
    assert message in problem["error"]


def test_about_names_what_filters_may_name(store: Served, service: Served):
    assert answered(store.client.get("/v1/about"))["item_features"] == ["shelf"]
    assert answered(service.client.get("/v1/about"))["item_features"] == []
