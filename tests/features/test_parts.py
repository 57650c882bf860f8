"""The columns of one part are those of a full reading, for one user and many items, live events included."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.features import GROUPS, FeatureSpec, Reader, Source, TaskSpec, View, batch_keys, read
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import SIDES
from mgoe.serving.online.overlay import LiveView
from tests.effort import up_to
from tests.graph.histories import event_lists, histories, history, planted
from tests.serving.online.worlds import START, World, streams

NAMES = ("counts", "pair", "sketch", "edges", "aggregates", "recents")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    log = history(planted(60, 40, 2, 600))
    return log.build(tmp_path_factory.mktemp("graph") / "graph", resolutions=[(2, 3), (4, 5)], rank=16).latest


def spec_of(at: Snapshot) -> FeatureSpec:
    """A specification of what a snapshot holds, whose tables have a row for every node."""
    one = read(View.of(at), np.array([-1]), np.array([-1]), NAMES)
    return FeatureSpec(
        tasks=tuple(TaskSpec(f"t{t}") for t in range(3)),
        n_users=10**6,
        n_items=10**6,
        macro_users=at.macro_users,
        macro_items=at.macro_items,
        recents=at.arrays["recent_items"].shape[1],
        widths={name: values.shape[1] for name, values in one.items() if values.dtype == np.float32},
        moments={},
    )


def check_parts(source: Source, at: Snapshot, users: np.ndarray, items: np.ndarray) -> None:
    """Whatever the part, its columns are those of the whole; and rows of one user read as rows among
    others."""
    spec = spec_of(at)
    keys = batch_keys(spec, NAMES)
    with source.reading() as view:
        grid = [
            side.ravel() for side in np.meshgrid(users, items)
        ]  # no two rows of one user follow each other
        among = Reader(NAMES, spec)(view, *grid)
        for user in users.tolist():
            pairs = np.full(len(items), user), items
            whole = Reader(NAMES, spec)(view, *pairs)
            for name, values in whole.items():
                assert_array_equal(values, among[name][grid[0] == user], err_msg=name)
            for side in SIDES:
                found = Reader(NAMES, spec, side=side)(view, *pairs)
                assert found.keys() >= {name for name, key in keys.items() if side in key.parts}
                for name, values in found.items():
                    assert_array_equal(values, whole[name], err_msg=name)
            for part in ("user", "item", "pair"):
                found = Reader(NAMES, spec, part=part)(view, *pairs)
                assert found.keys() == {name for name, key in keys.items() if part in key.parts}
                for name, values in found.items():
                    own = np.array([one == part for one in keys[name].parts])
                    wanted = whole[name][:, own] if len({*keys[name].parts}) > 1 else whole[name]
                    assert_array_equal(values, wanted, err_msg=name)


@up_to(2)
@given(log=histories(40), beta=st.sampled_from([0.0, 1.0]))
def test_of_any_history(log, beta):
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(1, 1), (min(3, int(log.users_at[0])), min(4, int(log.items_at[0])))]
        at = log.build(Path(folder) / "graph", beta=beta, resolutions=sizes).latest
        check_parts(View.of(at), at, np.arange(-1, at.n_users + 2), np.arange(-1, at.n_items + 2))


def test_of_long_lists_in_any_order(snapshot):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 9, 100):
        users = rng.choice(np.arange(-1, 62), 3, replace=False)
        check_parts(View.of(snapshot), snapshot, users, rng.integers(-1, 42, n))


def test_every_column_has_an_owner(snapshot):
    spec = spec_of(snapshot)
    found = read(View.of(snapshot), np.array([0]), np.array([0]), GROUPS)
    for name, key in batch_keys(spec, NAMES).items():
        if key.kind == "dense":
            assert len(key.owners) == found[name].shape[1]
    assert all(group.name == name for name, group in GROUPS.items())


@up_to(2)
@given(events=event_lists(1, 20), data=st.data())
def test_of_a_live_state(events, data):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, resolutions=[(1, 2), (3, 4)])
        live = world.live()
        source = LiveView(View.of(live.snapshot), live)
        for _ in range(2):
            live.apply(data.draw(streams(world)))
            users, items = (np.arange(-1, live.size(side)) for side in ("user", "item"))
            check_parts(source, live.snapshot, users, items)
