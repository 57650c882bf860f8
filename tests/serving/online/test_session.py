"""The visitor of a session is read as a new user with its events would be, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.features import NodeOverlay, View, read
from mgoe.serving.events.event import Event
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.online.session import Done, Session
from tests.effort import up_to
from tests.graph.histories import event_lists
from tests.serving.online.worlds import BEHAVIORS, GROUPS, NAMES, START, World, streams
from tests.serving.online.worlds import read as read_all

VISITOR = 999
PLAIN = ("pair", "sketch", "links")
OF_USER = [name for name in NodeOverlay._fields if name not in ("slot", "index", "head", "times")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("session"), START, ())


@up_to(15)
@given(data=st.data())
def test_the_visitor_is_read_as_a_new_user_with_the_same_events(world: World, data: st.DataObject):
    before = data.draw(streams(world))
    rows = data.draw(event_lists(1, 8, 0, 12, 1, world.items))
    events = [Event(VISITOR, item, NAMES[task], time) for _, item, time, task in rows]
    live, other = world.live(), world.live()
    live.apply(before)
    other.apply(before)
    other.apply(events)
    items = np.arange(live.size("item"))
    with LiveView(View.of(live.snapshot), live).reading() as view:
        state, shown = live.version, read_all(live, world.users + 3, world.items + 3)
        session = Session.of(live, [Done(e.item, BEHAVIORS[e.behavior], e.time) for e in events])
        found, user = session.over(view), np.array([session.user])
    index = other.indices("user", [VISITOR])
    with LiveView(View.of(other.snapshot), other).reading() as wanted:
        for name in OF_USER:
            a, b = (
                getattr(view.overlay.user, name)[view.overlay.user.slot[one]]
                for view, one in ((found, user), (wanted, index))
            )
            assert_array_equal(a, b, name)
        for group, key in [*zip(PLAIN, PLAIN, strict=True), ("trend", "user_trend")]:
            a, b = (
                read(view, np.repeat(one, len(items)), items, [group])[key]
                for view, one in ((found, user), (wanted, index))
            )
            known = items < world.items  # the vectors of new items move with the visitor's events
            assert_array_equal(a[known], b[known], group)
    assert session.items.tolist() == sorted({event.item for event in events})
    assert live.version == state
    after = read_all(live, world.users + 3, world.items + 3)
    for name, values in shown.items():
        assert_array_equal(after[name], values)


def test_a_visitor_may_know_what_is_new(world: World):
    live = world.live()
    live.apply([Event(0, 77, "click", 5), Event(1, 77, "cart", 6), Event(501, 1, "click", 7)])
    new = int(live.indices("item", [77])[0])
    with LiveView(View.of(live.snapshot), live).reading() as view:
        session = Session.of(live, [Done(new, 0b1, 9), Done(1, 0b1, 8), Done(new, 0b1, 9)])
        over = session.over(view)
        user, items = np.array([session.user]), np.arange(live.size("item"))
        assert over.rows("user", "recent", user)[0, :3].tolist() == [new, 1, -1]
        assert over.rows("user", "counts", user)[0, len(BEHAVIORS) - 1] == np.float32(np.log1p(2))
        arrays = read(over, np.repeat(user, len(items)), items, GROUPS)
    assert (arrays["pair"][:, 0] > 0).nonzero()[0].tolist() == sorted([1, new])
    assert (
        over.rows("item", "recent", np.array([new]))[0, :2].tolist()
        == view.rows("item", "recent", np.array([new]))[0, :2].tolist()
    )


def test_a_visitor_whom_nothing_places_stays_in_the_cold_macro_nodes(world: World):
    live: LiveNodes = world.live()
    live.apply([Event(600, 88, "click", 5)])
    with LiveView(View.of(live.snapshot), live).reading() as view:
        session = Session.of(live, [Done(int(live.indices("item", [88])[0]), 0b1, 9)])
        macro = session.over(view).macro("user", view.snapshot.dense, np.array([session.user]))
    assert macro.tolist() == [view.cold("user")]
