"""The graph of a ranker names its nodes by id."""

from typing import Literal

import pandas as pd
import pytest

import mgoe
from mgoe.errors import GraphError


@pytest.mark.parametrize("side", ["user", "item"])
def test_macro_nodes_are_those_of_the_snapshot(ranker: mgoe.Ranker, side: Literal["user", "item"]):
    found, part = ranker.graph.macro_nodes(side), ranker.bundle_.graph.latest.resolutions[0]
    macro, size = getattr(part, f"{side}_macro"), len(getattr(part, f"{side}_mass"))
    assert found[side].tolist() == ranker.graph.ids(side)
    assert found[f"macro_{size}"].mask(found[f"macro_{size}"] < 0, size).tolist() == macro.tolist()


def test_an_unknown_side_is_named(ranker: mgoe.Ranker):
    for ask in (ranker.graph.ids, ranker.graph.macro_nodes):
        with pytest.raises(GraphError, match="must be user or item, found 'usr'"):
            ask("usr")  # pyright: ignore[reportArgumentType]


def test_pairs_are_those_of_the_log(ranker: mgoe.Ranker, events: pd.DataFrame):
    found = ranker.graph.to_scipy("user", "item").tocoo()
    users, items = ranker.graph.ids("user"), ranker.graph.ids("item")
    done = events[events["behavior"].isin(["click", "buy"])]
    pairs = zip(found.row.tolist(), found.col.tolist(), strict=True)
    expected = {*zip(done["user_id"], done["item_id"], strict=True)}
    assert {(users[row], items[column]) for row, column in pairs} == expected
