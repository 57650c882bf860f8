"""Macro nodes described for people: typical members, features that set them apart, and a name."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from mgoe.config import FeatureSettings
from mgoe.data import FeatureEncoders, SideFeatures, Vocabulary
from mgoe.features.macro_nodes import ACTIVE, describe_macro_nodes, features_of_groups, typical_members
from mgoe.graph.matrices import lift

MACRO = np.array([0, 0, 0, 1, 1, 2])  # items; 2 is the cold node
EDGES = np.array([[9.0, 1.0], [50.0, 50.0], [1.0, 9.0], [0.0, 4.0], [1.0, 3.0], [0.0, 0.0]])


def snapshot(macro=MACRO, edges=EDGES, size=2):
    """Return what is read of a snapshot whose item macro nodes have the edges of their members."""
    whole = np.stack([edges[macro == node].sum(0) for node in range(size)])
    dense = SimpleNamespace(item_macro=macro, user_macro=macro, macro_edges=whole.T)
    arrays = {"i1": np.log1p(edges).astype(np.float16), "item_sum": edges.sum(1)}
    return SimpleNamespace(resolutions=(dense,), dense=0, arrays=arrays)


def test_the_member_with_the_edges_of_the_whole_is_the_most_typical():
    first, second = typical_members(snapshot(), "item")
    assert first[0] == 1
    assert sorted(first) == [0, 1, 2]
    assert second.tolist() == [4, 3]  # the whole has (1, 7)


def test_typical_members_are_active_members():
    rng = np.random.default_rng(0)
    macro, edges = rng.integers(0, 5, 400), rng.gamma(0.3, 2, (400, 3))
    for node, members in enumerate(typical_members(snapshot(macro, edges, 4), "item")):
        inside = np.flatnonzero(macro == node)
        assert set(members) <= set(inside[np.argsort(-edges.sum(1)[inside], kind="stable")][:ACTIVE])


def side(**arrays) -> SideFeatures:
    settings = {"color": "categorical", "tags": "multi", "price": "numeric"}
    encoders = FeatureEncoders(
        tuple(FeatureSettings(name=name, kind=kind) for name, kind in settings.items()),
        {"color": Vocabulary(pa.array(["blue", "red"])), "tags": Vocabulary(pa.array(["new", "sale"]))},
        {"tags": 2},
        {"price": (20.0, 10.0)},
    )
    return SideFeatures(encoders, arrays)


def test_features_that_set_a_group_apart_are_named():
    found = features_of_groups(
        MACRO,
        2,
        side(
            color=np.array([2, 2, 1, 1, 1, 1]),
            tags=np.array([[1, -1], [1, 2], [2, -1], [2, -1], [-1, -1], [-1, -1]]),
            numeric=np.array([[-1.0], [-1.0], [-1.0], [2.0], [1.0], [0.0]], np.float32),
        ),
    )
    assert found[0] == [
        "price 10 on average (of all 20)",
        "color red (67%, of all 33%)",
        "tags new (67%, of all 33%)",
    ]
    assert found[1] == ["price 35 on average (of all 20)", "color blue (100%, of all 67%)"]


def test_what_all_groups_share_is_not_named():
    assert features_of_groups(MACRO, 2, side(color=np.ones(6, np.int64))) == [[], []]
    assert features_of_groups(MACRO, 2, side(color=np.zeros(6, np.int64))) == [[], []]


def test_nodes_newer_than_the_side_table_have_no_feature():
    assert features_of_groups(MACRO, 2, side(color=np.array([2, 2])))[0][0] == "color red (67%, of all 33%)"


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (None, "such as 11, 10, 12"),
        (SideFeatures(FeatureEncoders(), {}, pa.array(["Hat", None])), "such as 11, Hat, 12"),
        (
            replace(side(color=np.array([2, 2, 2])), names=pa.array(["Hat", "Shoe"])),
            "color red: Shoe, Hat, 12",
        ),
    ],
)
def test_a_name_says_what_is_typical(features, name):
    first, second = describe_macro_nodes(snapshot(), "item", Vocabulary(pa.array(range(10, 16))), features)
    assert (first.name, first.members, first.typical) == (name, 3, [11, 10, 12])
    assert second.members == 2


def test_a_macro_node_without_members_has_a_name():
    assert describe_macro_nodes(snapshot(np.full(6, 2)), "item")[0].name == "such as no member"


def test_the_lift_of_independent_groups_is_one():
    assert np.allclose(lift(np.outer([1000, 2000], [3000, 500])), 1)
    assert (lift(np.eye(2) * 40) > 1).tolist() == [[True, False], [False, True]]
