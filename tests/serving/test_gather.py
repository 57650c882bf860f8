"""The pair's columns of one user and many items are those of the graph's own gather, live events included."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import Snapshot
from mgoe.serving.scoring.gather import PairGather, owners
from tests.effort import up_to
from tests.graph.histories import event_lists, histories, history, planted
from tests.serving.online.worlds import START, World, streams

KEYS = frozenset({"pair", "sketch", "edges"})


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    log = history(planted(60, 40, 2, 600))
    return log.build(tmp_path_factory.mktemp("graph") / "graph", resolutions=[(2, 3), (4, 5)], rank=16).latest


def check_equal(gather: PairGather, reference, columns, users: np.ndarray, items: np.ndarray) -> None:
    own = np.array([side == "pair" for side in columns["edges"]])
    for user in users.tolist():
        found = gather(user, items, KEYS)
        expected = reference.gather(np.full(len(items), user), items, sorted(KEYS))
        assert_array_equal(found["pair"], expected["pair"])
        assert_array_equal(found["edges"], expected["edges"][:, own])
        assert_allclose(found["sketch"], expected["sketch"], atol=1e-6)


@up_to(8)
@given(log=histories(40), beta=st.sampled_from([0.0, 1.0]))
def test_of_any_history(log, beta):
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(1, 1), (min(3, int(log.users_at[0])), min(4, int(log.items_at[0])))]
        at = log.build(Path(folder) / "graph", beta=beta, resolutions=sizes).latest
        check_equal(
            PairGather(at), at, owners(at), np.arange(-1, at.n_users + 2), np.arange(-1, at.n_items + 2)
        )


def test_of_long_lists_in_any_order(snapshot):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 9, 100):
        check_equal(
            PairGather(snapshot), snapshot, owners(snapshot), rng.integers(-1, 62, 3), rng.integers(-1, 42, n)
        )


def test_no_items_give_no_rows(snapshot):
    found = PairGather(snapshot)(3, np.empty(0, np.int64), KEYS)
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(KEYS, 0)


def test_owners_are_told_of_every_column_of_the_mixed_keys(snapshot):
    found = snapshot.gather(np.array([0]), np.array([0]), ["counts", "edges"])
    assert {key: len(whose) for key, whose in owners(snapshot).items()} == {
        key: found[key].shape[1] for key in ("counts", "edges")
    }


@up_to(8)
@given(events=event_lists(1, 20), data=st.data())
def test_live_nodes_read_as_the_live_states_own_gather(events, data):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), START + events, resolutions=[(1, 2), (3, 4)])
        live = world.live()
        gather = PairGather(live.snapshot, live)
        for _ in range(2):
            live.apply(data.draw(streams(world)))
            check_equal(
                gather,
                live,
                owners(live.snapshot),
                np.arange(-1, live.size("user")),
                np.arange(-1, live.size("item")),
            )
