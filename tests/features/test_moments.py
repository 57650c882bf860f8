"""Pairs as of moments against a service that was sent all events before, in any order."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.errors import GraphError
from mgoe.features import Reader, View
from mgoe.features.moments import at_moments
from mgoe.graph.moments import MOVED, Moments
from mgoe.graph.sweep import Events, follow
from mgoe.serving.events.event import Event
from tests.effort import up_to
from tests.graph.histories import BUCKET, CUTS, event_lists
from tests.serving.online.worlds import BEHAVIORS, GROUPS, NAMES, START, World, read

LATER = 3
"""Buckets of events after the snapshot."""


def later(world: World, most: int = 30) -> st.SearchStrategy[list[Event]]:
    """Events after the snapshot of known users and items and of up to three new ones of each; many at the
    same time."""
    first = int(world.graph.latest.cut) + 1
    rows = event_lists(1, most, first, first + LATER - 1, world.users + 3, world.items + 3)
    return rows.map(
        lambda found: [
            Event(user, item, NAMES[(task + time) % 4], time, f"e{k}")
            for k, (user, item, time, task) in enumerate(found)
        ]
    )


def moments_of(world: World, events: list[Event]) -> Moments:
    """Follow the events. The index of a node is its id."""
    rows = [
        (one.user, one.item, one.time, task)
        for one in events
        for task in range(3)
        if BEHAVIORS[one.behavior] >> task & 1
    ]
    return follow(world.graph, -1, Events.of(*np.array(rows, np.int64).reshape(-1, 4).T))


def read_at(world: World, moments: Moments, moment: int) -> dict[str, np.ndarray]:
    user, item = (n.ravel() for n in np.meshgrid(np.arange(world.users + 3), np.arange(world.items + 3)))
    view = replace(View.of(world.graph.latest), moments=moments)
    return Reader(GROUPS)(view, user, item, {}, np.full(len(user), moment))


@up_to(4)
@given(
    events=event_lists(1, 30), cuts=st.sampled_from([CUTS, ()]), content=st.booleans(), data=st.data(),
    settings=st.sampled_from([{}, {"normalize": "none", "scale": 0.5}, {"resolutions": [(2, 2), (3, 4)]}]),
)  # fmt: skip
def test_a_row_reads_what_a_service_knows_at_its_moment(events, cuts, content, data, settings):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, cuts, content=content, **settings)
        coming = data.draw(later(world), "coming")
        moment = data.draw(st.sampled_from([one.time for one in coming] + [coming[0].time + BUCKET]))
        known = data.draw(st.permutations([one for one in coming if one.time < moment]), "sent")
        live, parts = world.live(), data.draw(st.integers(1, 4))
        for part in range(parts):
            live.apply(known[part::parts])
        found = read_at(world, moments_of(world, coming), moment)
        wanted = read(live, world.users + 3, world.items + 3, moment)
        for name, values in wanted.items():
            assert_array_equal(found[name], values, err_msg=f"{name}, {coming}, {moment}")
        # what comes later changes nothing
        changed = [one if one.time < moment else replace_user(one) for one in coming]
        again = read_at(world, moments_of(world, changed), moment)
        for name, values in found.items():
            assert_array_equal(again[name], values, err_msg=name)


def test_a_newcomer_that_is_placed_has_a_step_to_no_macro_node(tmp_path):
    """Those of its own side may have larger numbers than the other side has."""
    world = World(tmp_path, START, resolutions=[(2, 5)])
    first = (int(world.graph.latest.cut) + 1) * BUCKET
    coming = [Event(user, world.items + user, "buy", first + user, f"e{user}") for user in range(5)]
    entries = moments_of(world, coming).sides["item"].entries
    assert (entries.other == MOVED).sum() == 5
    assert not entries.other_macro[entries.other == MOVED].any()


def replace_user(event: Event) -> Event:
    return Event(event.item, event.user, event.behavior, event.time, event.id)


def test_a_group_must_say_which_rows_of_an_overlay_it_reads(tmp_path: Path):
    world = World(tmp_path, START, CUTS)
    later = [Event(0, 0, NAMES[0], int(world.graph.latest.cut + 2) * BUCKET, "e")]
    view = replace(View.of(world.graph.latest), moments=moments_of(world, later))
    one = np.zeros(1, np.int64)
    at, (slots, _) = at_moments(view, one, one, np.full(1, later[0].time + 1))
    assert at.rows("user", "counts", one, slots=slots).any()
    with pytest.raises(GraphError, match=r"slots=pairs\.slots"):
        at.rows("user", "counts", one)
