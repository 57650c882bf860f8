import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph.sketch import unit_rows
from tests.graph.histories import history, planted
from tests.graph.placing import place

EVENTS = planted(80, 60, 4, 1200)


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"normalize": "none", "beta": 0.0},
        {"scale": 0.5, "code": "bits"},
        {"scale": 2.0, "power_iterations": 4},
        {"sample": 40},
    ],
    ids=str,
)
def graph(request, tmp_path_factory):
    """At full rank, where items are as exact as users."""
    folder = tmp_path_factory.mktemp("place")
    return history(EVENTS).build(folder / "graph", rank=60, resolutions=[(4, 4), (8, 8)], **request.param)


def edges_of(snapshot, side, node):
    arrays = snapshot.arrays
    user = np.repeat(np.arange(snapshot.n_users), np.diff(arrays["pairs.indptr"]))
    own, other = (user, arrays["pairs.item"]) if side == "user" else (arrays["pairs.item"], user)
    return other[own == node], arrays["pairs.task_mask"][own == node]


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("snapshot", [1, -1])
def test_a_known_node_placed_by_its_own_edges_is_where_it_was_built(graph, side, snapshot):
    at = graph.snapshots[snapshot]
    built = unit_rows(np.asarray(at.arrays[f"{side}_vectors"]))
    same = []
    for node in range(0, len(built), 7):
        found = place(graph, side, *edges_of(at, side, node), snapshot=snapshot)
        assert_allclose(unit_rows(found.vector[None])[0], built[node], atol=2e-3)
        same += [
            getattr(part, f"{side}_macro")[node] == macro
            for part, macro in zip(at.resolutions, found.macro, strict=True)
        ]
    assert (
        all(same) if side == "user" else np.mean(same) > 0.6
    )  # items were placed before users took their own places


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_new_node_joins_those_it_shares_neighbours_with(graph, side):
    at, resolution = graph.latest, graph.latest.resolutions[0]
    own = getattr(resolution, f"{side}_macro")
    hits = 0
    for node in range(20):
        neighbors, masks = edges_of(at, side, node)
        half = slice(None, None, 2)
        hits += place(graph, side, neighbors[half], masks[half]).macro[0] == own[node]
    assert hits > 12  # of four macro nodes, chance is five


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("neighbors", [[], [-1, 10**6]], ids=["none", "unseen"])
def test_a_node_without_edges_to_known_nodes_is_cold(graph, side, neighbors):
    found = place(graph, side, neighbors, [1] * len(neighbors))
    assert found.macro == (4, 8)
    assert not found.vector.any()


def test_unseen_neighbours_are_passed_over(graph):
    one, other = place(graph, "user", [0, 1], [1, 2]), place(graph, "user", [0, 10**6, 1, -1], [1, 7, 2, 7])
    assert_array_equal(one.vector, other.vector)
    assert one.macro == other.macro
