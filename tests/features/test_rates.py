"""Rates that models read: equal to a count by hand, and the same whichever way they are read."""

import numpy as np
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.features import Reader, View
from mgoe.features.rates import owner_of, spec_of
from mgoe.graph.rates import RateGroup
from mgoe.training.feed import make_spec
from tests.effort import up_to
from tests.graph.test_rates import (
    Known,
    built,
    cells_by_hand,
    graph_of,
    logs_quiet,
    records_by_hand,
    settings_for,
    telling,
)


@up_to(1)
@given(rows=telling())
def test_rates_are_shrunk_log_odds_of_a_count_by_hand(rows):
    with graph_of(rows) as (log, prepared, graph):
        spec, records = make_spec(prepared, graph), records_by_hand(log)
        users, items = (
            side.ravel()
            for side in np.meshgrid(np.arange(-1, prepared.users.size), np.arange(prepared.items.size))
        )
        hours = np.arange(len(users)) % (prepared.context_features.sizes["hour"])
        queries = np.array(["d|a", None, "b|b|e", "c"], object)[np.arange(len(users)) % 4]
        context = prepared.context_features.encode({"query": queries}, len(users)) | {"hour": hours}
        for s, snapshot in enumerate(graph.snapshots):
            assert snapshot.rates is not None
            view = View.of(snapshot, prepared.user_side, prepared.item_side)
            found = Reader(["rates"], spec)(view, users, items, context)["rates"]
            known = Known(
                prepared.users,
                prepared.items,
                prepared.context_features,
                snapshot.rates.categories,
            )
            ends = np.cumsum([one.width(3) for one in spec.rates])
            for end, group, table, adjusted in zip(
                ends, snapshot.rates.groups, snapshot.rates.tables, snapshot.rates.adjusted, strict=True
            ):
                cells = cells_by_hand(records, known, graph, s, group)
                wanted = [
                    rates_by_hand(
                        sum(
                            (
                                cells.get((a, b), np.zeros(8))
                                for a, b in values_by_hand(known, snapshot, group, *pair)
                            ),
                            np.zeros(8),
                        ),
                        table.prior,
                    )
                    for pair in zip(users.tolist(), items.tolist(), hours, context["query"], strict=True)
                ]
                first = end - spec_of(group).width(3)
                assert_allclose(found[:, first : first + 4], wanted, atol=1e-5, err_msg=group.name)
                if adjusted is not None:
                    rows = users if group.axes[0].side == "user" else items
                    rows = hours if group.axes[0].side == "context" else rows
                    there = (rows >= 0) & (rows < len(adjusted))
                    assert_array_equal(found[there, first + 4 : end], adjusted[rows[there]])
                    assert_array_equal(found[~there, first + 4 : end], 0)


def values_by_hand(known: Known, snapshot, group: RateGroup, user: int, item: int, hour, query):
    """Yield the values of a pair on both axes of a group."""
    keys = []
    for axis in group.axes:
        node = user if axis.side == "user" else item
        if axis.side == "context":
            keys.append([hour] if axis.name == "hour" else [*{*query[query >= 0]}])
        elif axis.kind == "category":
            held = known.categories[axis.name][node]
            keys.append([*{*held[held >= 0].tolist()}])
        else:
            there = 0 <= node < (snapshot.n_users if axis.side == "user" else snapshot.n_items)
            part = snapshot.resolutions[axis.resolution]
            macro = part.user_macro if axis.side == "user" else part.item_macro
            keys.append([int(node if axis.kind == "node" else macro[node])] if there else [])
    for first in keys[0]:
        for second in keys[1] if len(keys) > 1 else [0]:
            yield first, second


def rates_by_hand(cell: np.ndarray, prior: np.ndarray) -> list[float]:
    shown, labelled, done, value = cell[0], cell[1:4], cell[4:7], cell[7]
    with np.errstate(all="ignore"):  # where everything or nothing was done
        odds = (done + prior[:, 1] * prior[:, 0]) / (labelled - done + prior[:, 1] * (1 - prior[:, 0]))
        rates = np.log(odds / (prior[:, 0] / (1 - prior[:, 0])))
    mean = (value + prior[2, 1] * prior[2, 0]) / (labelled[2] + prior[2, 1]) - prior[2, 0]
    return [np.log1p(shown), *rates[:2], mean]


def test_each_part_is_read_as_in_the_whole(tmp_path):
    prepared, graph = built(logs_quiet(), settings_for(tmp_path), tmp_path)
    spec, snapshot = make_spec(prepared, graph), graph.latest
    view = View.of(snapshot, prepared.user_side, prepared.item_side)
    users, items = np.array([0, 0, 1, -1, 5]), np.array([0, 1, 1, 0, -1])
    context = {"hour": np.array([1, 2, 0, 1, 1]), "query": np.array([[1, 2, 1], [0, 0, -1], [2, -1, -1]])}
    context["query"] = context["query"][[0, 1, 2, 2, 0]]
    whole = Reader(["rates"], spec)(view, users, items, context)["rates"]
    assert snapshot.rates is not None
    owners = [owner_of(one.axes) for one in spec.rates for _ in range(one.width(3))]
    for part in ("user", "item", "pair"):
        own = np.array([owner.part == part for owner in owners])
        assert own.any()
        found = Reader(["rates"], spec, part=part)(view, users, items, context)["rates"]
        assert_array_equal(found, whole[:, own])
    for row in range(len(users)):
        own = {name: values[[row]] for name, values in context.items()}
        alone = Reader(["rates"], spec)(view, users[[row]], items[[row]], own)["rates"]
        assert_array_equal(alone[0], whole[row])
