"""Registered items in updates: what the service read of them, the next bundle reads."""

from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_equal

import mgoe
from mgoe.bundle import Bundle
from mgoe.bundle.items import Item
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.erased_bundle import without
from mgoe.serving import Consumer, Event, LiveBundle, ServiceLog, open_log
from mgoe.serving.online.overlay import LiveView
from tests.serving.stocked import RED, stocked

BOUGHT, WAITING, NAMELESS, GONE, LATER, STRANGE = (10**9 + n for n in range(6))
"""A registered item with events, two without, and a withdrawn one."""
NAMES_PLACED = ["sum", "kappa", "vectors", "log_first"]
TEXTS = {"shelf": "middle", "tags": ["2", "3"], "price": 12.0, "look": [1.0, 0.0, -2.5]}
"""`RED`, as the log has it."""


@pytest.fixture
def shop(finished: Path, tmp_path: Path) -> Path:
    return stocked(finished / "bundle", tmp_path / "shop")


def events(bundle: Bundle, first: int, items: list[int]) -> list[Event]:
    """Events of known users with some items, one per second after the bundle's last."""
    last = int(bundle.graph.manifest.last)
    return [
        Event(user, items[n % len(items)], ("click", "buy")[n % 5 == 0], last + (first + n + 1) * 1_000_000)
        for n, user in enumerate(bundle.ids("user", np.arange(150)))
    ]


def fill(log: ServiceLog, bundle: Bundle) -> None:
    known = bundle.ids("item", np.arange(30))
    log.append([Item(WAITING, {"shelf": "right", "tags": [], "price": 4.5}, "Blue"), Item(NAMELESS, {})])
    log.append(events(bundle, 0, [*known, BOUGHT]))
    log.append([Item(BOUGHT, TEXTS, "Red"), Item(known[3], withdrawn=True), Item(GONE, TEXTS, None, True)])
    log.append([Item(BOUGHT, {"shelf": "left"}), Item("seven", TEXTS)])  # too late, and of another log
    strange = {"shelf": ["left"], "tags": [1.0], "price": "9", "look": ["a", "b", "c"], "size": 3.0}
    log.append([Item(NAMELESS, strange), Item(NAMELESS, {"look": [1.0]})])  # of bundles with other features


def check_held(bundle: Bundle) -> None:
    """The bundle has all that was registered."""
    index, side = bundle.indices("item", [BOUGHT, WAITING, NAMELESS, GONE]), bundle.encoders.item_side
    assert (np.sort(index) >= 0).all()
    shelves = bundle.encoders.item_side.encoders.vocabularies["shelf"].ids(side.column("shelf", index) - 1)
    assert shelves.to_pylist() == ["middle", "right", None, "middle"]
    assert side.column("tags", index).tolist() == [[2, 3], [-1, -1], [-1, -1], [2, 3]]
    assert side.column("numeric", index)[:, 0].tolist() == [0.5, -1.375, 0.0, 0.5]
    look = side.encoders.spaces["look"].encode(np.array([RED["look"]]))[0]
    assert side.column("look", index).tolist() == [look.tolist(), [0] * 4, [0] * 4, look.tolist()]
    listed = bundle.recommend(bundle.ids("user", np.array([0]))[0], k=300)["item"].tolist()
    assert {BOUGHT, WAITING, NAMELESS} <= {*listed}
    assert not {GONE, bundle.ids("item", np.array([3]))[0]} & {*listed}


@pytest.mark.parametrize("weights", ["keep", "continue"])
def test_an_update_takes_registered_items_into_the_bundle(shop: Path, tmp_path: Path, weights):
    bundle, log = mgoe.load(shop), open_log(tmp_path / "state")
    fill(log, bundle)
    check_held(live := LiveBundle(bundle, log))
    groups = "keep" if weights == "keep" else "learn"
    new = update(shop, Sources(events=tmp_path / "state"), tmp_path / "new", weights=weights, groups=groups)
    check_held(new)
    again = LiveBundle(new, log)
    assert again.encoders.item_side.names_of(again.indices("item", [BOUGHT, WAITING])) == ["Red", "Blue"]
    assert again.size("item") == new.size("item") == live.size("item")
    asked = bundle.ids("user", np.arange(5)), WAITING
    if weights == "keep":  # of an item without events a model reads what it read live
        found = [one.predict(*asked, recalibrated=False)[[*bundle.tasks]] for one in (live, again)]
        inputs = [one.encoders.item_side.gather(one.indices("item", [WAITING])) for one in (live, again)]
        assert str(inputs[0]) == str(inputs[1])
        assert [len(one.drop_duplicates()) > 1 for one in found] == [True, True]
    log.append(events(new, 200, [WAITING]))
    third = update(new.path, Sources(events=tmp_path / "state"), tmp_path / "third", groups="keep")
    check_held(third)
    assert third.snapshot.n_items == new.snapshot.n_items + 1
    user = str(bundle.ids("user", np.array([0]))[0])
    without(third, [user], tmp_path / "erased", 1)
    check_held(Bundle.open(tmp_path / "erased"))


def test_newcomers_keep_their_indices_and_features_when_a_service_begins_again(shop: Path, tmp_path: Path):
    bundle, log = mgoe.load(shop), open_log(tmp_path)
    consumer = Consumer.of(log, bundle)
    log.append(events(bundle, 300, [STRANGE]))
    consumer.catch_up()  # before the items come, which are read before the events when all come at once
    fill(log, bundle)
    consumer.catch_up()
    before = consumer.live.look_up("item", [STRANGE, BOUGHT, WAITING, GONE])
    side = bundle.encoders.item_side.gather(before)
    version, consumer._failed = consumer.live.version, True
    log.append([Item(LATER, TEXTS)])
    consumer.catch_up()
    assert consumer.live.look_up("item", [STRANGE, BOUGHT, WAITING, GONE]).tolist() == before.tolist()
    assert str(bundle.encoders.item_side.gather(before)) == str(side)
    assert consumer.live.stats["events"] == 300
    assert consumer.live.look_up("item", [LATER])[0] in consumer.live.touched("item", version)


def test_an_item_reads_the_same_live_and_in_a_bundle_that_was_told_of_it(shop: Path, tmp_path: Path):
    told, log = mgoe.load(shop), open_log(tmp_path / "state")
    log.append([Item(WAITING, TEXTS)])
    told.add_items(pd.DataFrame([{"item_id": WAITING, **RED}]))
    users, live = told.ids("user", np.arange(5)), LiveBundle(mgoe.load(shop), log)
    found = [one.predict(users, item)["buy"] for one in (live, told) for item in (WAITING, 5)]
    assert found[0].equals(found[2])
    assert not np.allclose(found[0], found[1], rtol=1e-4), "the model reads what it is"


def test_a_registered_item_is_placed_by_its_vector_wherever_it_is_read(shown: Path, tmp_path: Path):
    """Live, after the service begins again, in memory, in a bundle that was saved, and in that of an update
    with kept groups, which has other newcomers first."""
    rows = pd.DataFrame({"item_id": [WAITING, GONE], "about": [[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]]})
    told, log = mgoe.load(shown / "bundle"), open_log(tmp_path / "state")
    consumer = Consumer.of(log, again := mgoe.load(shown / "bundle"))
    log.append([Item(one["item_id"], {"about": one["about"]}) for one in rows.to_dict("records")])
    live = LiveBundle(mgoe.load(shown / "bundle"), log)
    consumer.catch_up()
    consumer._failed = True
    consumer.catch_up()
    begun = copy(again)
    begun._now, begun.__class__ = LiveView(again.view, consumer.live), LiveBundle
    begun._live = consumer.live
    told.add_items(rows)
    saved = mgoe.load(mgoe.Ranker.load(shown / "bundle").add_items(rows).save(tmp_path / "saved"))
    log.append(events(told, 0, [STRANGE, *told.ids("item", np.arange(9))])[:20])
    later = update(shown / "bundle", Sources(events=tmp_path / "state"), tmp_path / "later", groups="keep")
    users, found = told.ids("user", np.arange(5)), []
    for one in (told, live, begun, saved):
        index = one.indices("item", [WAITING, GONE])
        with one.reading() as view:
            found.append({name: view.rows("item", name, index) for name in NAMES_PLACED})
        found[-1] |= {"score": one.predict(users, WAITING, recalibrated=False)[[*told.tasks]].to_numpy()}
    for other in found[1:]:
        assert_equal(other, found[0])
    assert found[0]["kappa"].all()
    assert len(np.unique(found[0]["score"][:, 0])) > 1
    at = later.indices("item", [WAITING, GONE])
    assert later.indices("item", [STRANGE])[0] < at.min(), "what is waiting follows the graph's items"
    for name in NAMES_PLACED:
        assert_equal(later.view.rows("item", name, at), found[0][name])
    assert LiveBundle(later, log)._live.sides["item"].size == 0, "the graph has all of it"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"item_id": [WAITING], "shelv": ["left"]}, "features.shelv: is no feature of items"),
        ({"item_id": [WAITING, WAITING], "price": [1.0, 2.0]}, "must be named once"),
        ({"item_id": ["seven"]}, "item: ids of items are whole numbers"),
        ({"item": [WAITING]}, "item: must be an id"),
        ({"item_id": [WAITING], "price": ["dear"]}, "features.price: must be a number"),
        ({"item_id": [WAITING], "look": [[1.0, 2.0]]}, "features.look: a vector has 3 numbers that"),
        ({"item_id": [None], "shelf": ["left"]}, "item: 525629 has other features"),
    ],
)
def test_a_frame_that_breaks_a_rule_adds_nothing(shop: Path, rows: dict, message: str):
    bundle = mgoe.load(shop)
    known = bundle.ids("item", np.array([1]))
    if rows.get("item_id") == [None]:
        rows, message = rows | {"item_id": known}, message.replace("525629", str(known[0]))
    with pytest.raises(mgoe.errors.MgoeError, match=message):
        bundle.add_items(pd.DataFrame(rows))
    assert bundle.size("item") == mgoe.load(shop).size("item")
    with pytest.raises(mgoe.errors.MgoeError, match="5 is not known"):
        bundle.withdraw([known[0], 5])
    assert not len(bundle.withdrawn)


def test_a_ranker_keeps_what_it_was_told(shop: Path, tmp_path: Path):
    ranker = mgoe.Ranker.load(shop).add_items(pd.DataFrame([{"item_id": WAITING, **RED}, {"item_id": GONE}]))
    saved = mgoe.load(ranker.withdraw([GONE]).save(tmp_path / "saved"))
    assert saved.encoders.item_side.column("tags", saved.indices("item", [WAITING])).tolist() == [[2, 3]]
    listed = saved.recommend(saved.ids("user", np.array([0]))[0], k=300)["item"].tolist()
    assert WAITING in listed
    assert GONE not in listed
