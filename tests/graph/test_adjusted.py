"""Adjusted rates: equal to sums by hand, and blind to who was shown what where."""

import numpy as np
import pandas as pd
from hypothesis import given
from numpy.testing import assert_allclose

from mgoe.graph import MacroGraph
from mgoe.graph.adjusted import is_adjusted
from tests.data import logs
from tests.effort import up_to
from tests.graph.test_rates import built, cells_of, graph_of, log_of, records_by_hand, settings_for


def adjusted_by_hand(log: pd.DataFrame, prepared, graph: MacroGraph) -> list[np.ndarray]:
    """Return adjusted rates of the latest snapshot's groups, a record and a task at a time."""
    rates = graph.latest.rates
    assert rates is not None
    groups = [g for g, group in enumerate(rates.groups) if is_adjusted(group)]
    tables = [cells_of(rates.tables[g]) for g in groups]
    hours = prepared.context_features.vocabularies["hour"]
    records = []
    for user, item, hour, day, _, labelled, _, _ in records_by_hand(log):
        if day <= graph.latest.cut and labelled & 3:
            of = {
                "user": int(prepared.users.indices([user])[0]),
                "item": int(prepared.items.indices([item])[0]),
                "context": int(hours.indices([hour])[0]) + 1,
            }
            values = [of[rates.groups[g].axes[0].side] for g in groups]
            records += [(values, t) for t in range(2) if labelled >> t & 1]
    plain = []
    for table in tables:
        counts = np.zeros((len(table.indptr) - 1, 7))
        there = np.diff(table.indptr) > 0
        counts[there] = table.counts
        plain.append(counts)

    def odds(done: np.ndarray, counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
        weight, rate = prior[:2, 1], prior[:2, 0]
        return np.log((done + weight * rate) / (counts[:, 1:3] - done + weight * (1 - rate)))

    base = np.log(tables[0].prior[:2, 0] / (1 - tables[0].prior[:2, 0]))
    own = [odds(counts[:, 4:6], counts, table.prior) for counts, table in zip(plain, tables, strict=True)]
    found = [one - base for one in own]
    expected = [np.zeros((len(counts), 2)) for counts in plain]
    for values, t in records:
        logit = base[t] + sum(one[value, t] for one, value in zip(found, values, strict=True))
        for total, one, value in zip(expected, found, values, strict=True):
            total[value, t] += 1 / (1 + np.exp(one[value, t] - logit))
    return [
        one - odds(total, counts, table.prior)
        for one, total, counts, table in zip(own, expected, plain, tables, strict=True)
    ]


@up_to(2)
@given(rows=logs.exposure_rows())
def test_adjusted_rates_equal_sums_by_hand(rows):
    with graph_of(rows) as (log, prepared, graph):
        assert graph.latest.rates is not None
        found = [one for one in graph.latest.rates.adjusted if one is not None]
        for one, wanted in zip(found, adjusted_by_hand(log, prepared, graph), strict=True):
            assert_allclose(one[:, :2], wanted, atol=1e-4)
            assert not one[:, 2].any()  # a regression


def test_a_user_who_sees_popular_items_is_no_eager_one(tmp_path):
    """Both users click what everyone clicks; one of them was shown more of it."""
    rng = np.random.default_rng(0)
    n = 6000
    user = rng.integers(0, 6, n)
    item = np.where(
        rng.random(n) < np.where(user < 3, 0.9, 0.1), rng.integers(0, 2, n), rng.integers(2, 5, n)
    )
    click = (rng.random(n) < np.where(item < 2, 0.8, 0.2)).astype(float)
    day = rng.integers(0, logs.DAYS, n)
    log = log_of(
        list(zip(user.tolist(), item.tolist(), day.tolist(), click.tolist(), [None] * n, strict=True))
    )
    log["timestamp"] += rng.integers(0, 3600, n)
    log["bought"] = (rng.random(n) < 0.5).astype(float)
    prepared, graph = built(log, settings_for(tmp_path, rates=["user", "item"]), tmp_path)
    rates = graph.latest.rates
    assert rates is not None
    assert rates.adjusted[0] is not None
    order = prepared.users.indices(np.arange(6))
    counts = cells_of(rates.tables[0]).counts[order]
    plain = np.log(counts[:, 4] / (counts[:, 1] - counts[:, 4]))
    adjusted = rates.adjusted[0][order, 0]
    assert plain[:3].mean() - plain[3:].mean() > 1.5
    assert abs(adjusted[:3].mean() - adjusted[3:].mean()) < 0.5
