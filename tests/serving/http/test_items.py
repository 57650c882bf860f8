"""Items that are registered and withdrawn while a service runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mgoe
from mgoe.bundle import Bundle
from mgoe.config import RetrievalSettings
from mgoe.serving import LiveBundle, open_log
from tests.serving.served import Served, answered, served
from tests.serving.stocked import BLUE, RED, stocked

NEW, OTHER, LAST = 10**9, 10**9 + 1, 10**9 + 2


@pytest.fixture(scope="module")
def shop(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stocked(finished / "bundle", tmp_path_factory.mktemp("shop") / "bundle")


@pytest.fixture(scope="module")
def store(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(shop, tmp_path_factory.mktemp("state")) as found:
        yield found


def register(store: Served, *items: dict[str, Any]) -> list[str | None]:
    """Send items, and return what is wrong with each."""
    found = answered(store.client.post("/v1/items", json={"items": [*items]}))
    return [one["error"] for one in found["outcomes"]]


def extended(shop: Path) -> Bundle:
    """The bundle, told of the same items in Python."""
    bundle = mgoe.load(shop)
    bundle.add_items(pd.DataFrame([{"item_id": NEW, **RED}, {"item_id": OTHER, **BLUE}]))
    return bundle


def test_a_registered_item_is_ranked_and_recommended_by_its_features(store: Served, shop: Path):
    known, ask = mgoe.load(shop), {"user": 1, "k": 200}
    assert register(store, {"item": NEW, "features": RED, "name": "Red"}) == [None]
    assert register(store, {"item": OTHER, "features": BLUE}) == [None]
    found = store.score(users=[1], items=[NEW, OTHER, LAST])["tasks"]
    expected = extended(shop).predict(1, [NEW, OTHER, LAST])
    for task in known.tasks:
        assert_allclose(found[task], expected[task], rtol=1e-5)
        assert np.ptp(found[task]) > 1e-4 * max(found[task]), "each is scored by what it is"
    assert {NEW, OTHER} <= {*store.recommend(**ask)["items"]}
    middle = store.recommend(**ask, where={"shelf": "middle"})["items"]
    assert NEW in middle
    assert OTHER not in middle
    named = answered(store.client.post("/v1/names", json={"items": [NEW, OTHER]}))
    assert named["items"] == ["Red", None]


def test_events_of_a_registered_item_count_as_those_of_any_newcomer(shop: Path, tmp_path: Path):
    bought = {"user": 1, "item": NEW, "behavior": "buy", "time": "2026-05-01T12:00:00Z"}
    with served(shop, tmp_path) as store:
        register(store, {"item": OTHER}, {"item": NEW, "features": RED})
        assert store.add(bought)["accepted"] == 1
        found = store.score(users=[1, 2], items=[NEW, NEW])["tasks"]
    live = LiveBundle(mgoe.load(shop), open_log(tmp_path, make=False))
    for task, values in live.predict([1, 2], NEW)[[*found]].items():
        assert_allclose(found[task], values, rtol=1e-5)


def test_a_retry_is_harmless_and_other_content_is_refused(store: Served, shop: Path):
    red = {"item": NEW, "features": RED, "name": "Red"}
    held = mgoe.load(shop).ids("item", np.array([0, 1]))
    before = len(store.reloader.log.read())
    assert register(store, red, red, red | {"features": {**RED, "price": "12"}})[:2] == [None, None]
    changed = [red | {"features": BLUE}, red | {"name": "Blue"}, {"item": held[1], "features": RED}]
    for one, error in zip(changed, register(store, *changed), strict=True):
        assert (
            error
            == f"item: {one['item']} has other features or another name already, which stay; leave it out"
        )
    assert register(store, {"item": held[0], "features": RED}) == [None], "it had none"
    twice = [{"item": LAST, "features": RED}, {"item": LAST, "features": BLUE}]
    assert [error is None for error in register(store, *twice)] == [True, False]
    assert len(store.reloader.log.read()) == before + 3, (
        "what is refused at once or says nothing is not written"
    )


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({"features": RED}, "item: must be an id"),
        ({"item": "seven"}, "item: ids of items are whole numbers of 64 bits, found 'seven'"),
        ({"item": 5, "feature": RED}, "feature: is no field of an item; did you mean 'features'?"),
        ({"item": 5, "features": {"shelv": "left"}}, "features.shelv: is no feature of items"),
        ({"item": 5, "features": {"price": "dear"}}, "features.price: must be a number"),
        ({"item": 5, "features": {"tags": 3}}, "features.tags: takes a list"),
        (
            {"item": 5, "features": {"look": [1, 2]}},
            "features.look: a vector has 3 numbers that are not all 0",
        ),
        ({"item": 5, "features": {"look": [0, 0, 0]}}, "features.look: a vector has 3 numbers that are not"),
        ({"item": 5, "features": {"look": [1, 2, "x"]}}, "features.look: must be a list of numbers"),
        ({"item": 5, "features": {"look": 1.5}}, "features.look: must be a list of numbers"),
        ({"item": 5, "features": ["left"]}, "features: must be values by feature"),
        ({"item": 5, "features": []}, "features: must be values by feature"),
        ({"item": 5, "name": ""}, "name: must be a text of 1 to 512 characters, found ''"),
        ({"item": 5, "withdrawn": 1}, "withdrawn: must be true or false, found 1"),
        ({"item": 5, "withdrawn": True}, "item: 5 is not known; register it first, or leave it out"),
    ],
)
def test_bad_items_are_refused_with_one_sentence(store: Served, item: dict[str, Any], error: str):
    assert str(register(store, item)[0]).startswith(error)
    assert store.score(users=[1], items=[5])["unseen_items"] == 1


def test_a_withdrawn_item_is_recommended_only_if_it_is_named(store: Served, shop: Path):
    best = store.recommend(user=2, k=200)["items"][0]
    assert register(store, {"item": best, "withdrawn": True}, {"item": best, "withdrawn": True}) == [None] * 2
    assert best not in store.recommend(user=2, k=200)["items"]
    assert best not in store.rank(user=2, k=200)["items"]
    assert store.rank(user=2, candidates=[best])["items"] == [best]
    live = LiveBundle(mgoe.load(shop), store.reloader.log)
    assert best not in live.recommend(2, k=200)["item"].tolist()


def test_a_catalogue_that_retrieves_candidates_has_new_items_among_them(finished: Path, tmp_path: Path):
    how = RetrievalSettings(candidates=20)
    with served(stocked(finished / "bundle", tmp_path / "bundle", how), tmp_path / "state") as store:
        register(store, {"item": NEW, "features": RED}, {"item": OTHER, "features": BLUE})
        for user in (1, 10**9):
            assert {NEW, OTHER} <= {*store.recommend(user=user, k=20)["items"]}
        found = store.recommend(user=1, k=20, where={"shelf": "right"})["items"]
        assert OTHER in found
        assert NEW not in found
        register(store, {"item": NEW, "withdrawn": True})
        assert NEW not in store.recommend(user=1, k=20)["items"]
