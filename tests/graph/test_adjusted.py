"""Adjusted rates: equal to sums by hand, and blind to who was shown what where."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.config import RunSettings
from mgoe.data import Vocabulary
from mgoe.graph import MacroGraph
from mgoe.graph.adjusted import STEPS, is_adjusted
from mgoe.graph.shrinkage import fit_prior
from mgoe.simulation.chance import chances
from tests.data import logs
from tests.effort import SOAK, up_to
from tests.graph.test_rates import (
    GROUPS,
    built,
    cells_of,
    graph_of,
    latest,
    log_of,
    logs_quiet,
    records_by_hand,
    settings_for,
    telling,
)
from tests.simulation.worlds import RANKED, drawn


def adjusted_by_hand(log: pd.DataFrame, prepared, graph: MacroGraph) -> list[np.ndarray]:
    """Return adjusted rates of the latest snapshot's groups, a record and a task at a time."""
    rates = graph.latest.rates
    assert rates is not None
    groups = [g for g, group in enumerate(rates.groups) if is_adjusted(group)]
    tables = [cells_of(rates.tables[g]) for g in groups]
    hours = prepared.context_features.vocabularies["hour"]
    records, places = [], np.zeros((4, 7))
    for row, day, shown, labelled, done, _ in records_by_hand(log):
        if day > graph.latest.cut:
            continue
        of = {
            "user": int(prepared.users.indices([row.user_id])[0]),
            "item": int(prepared.items.indices([row.item_id])[0]),
            "context": int(hours.indices([row.hour])[0]) + 1,
        }
        where = 0 if np.isnan(row.place) else int(row.place) + 1
        places[where] += [shown, *(one >> t & 1 for one in (labelled, done) for t in range(3))]
        values = [*(of[rates.groups[g].axes[0].side] for g in groups), where]
        records += [(values, t) for t in range(2) if labelled >> t & 1]
    plain = []
    for table in tables:
        counts = np.zeros((len(table.indptr) - 1, 7))
        there = np.diff(table.indptr) > 0
        counts[there] = table.counts
        plain.append(counts)
    priors = [fit_prior(places[:, 1 + t].astype(int), places[:, 4 + t].astype(int)) for t in range(2)]
    plain.append(places)
    prior = [*(table.prior for table in tables), np.array(priors)]

    def odds(done: np.ndarray, counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
        weight, rate = prior[:2, 1], prior[:2, 0]
        return np.log((done + weight * rate) / (counts[:, 1:3] - done + weight * (1 - rate)))

    base = np.log(tables[0].prior[:2, 0] / (1 - tables[0].prior[:2, 0]))
    own = [odds(counts[:, 4:6], counts, one) for counts, one in zip(plain, prior, strict=True)]
    found = [one - base for one in own]
    expected = [np.zeros((len(counts), 2)) for counts in plain]
    for values, t in records:
        logit = base[t] + sum(one[value, t] for one, value in zip(found, values, strict=True))
        for total, one, value in zip(expected, found, values, strict=True):
            total[value, t] += 1 / (1 + np.exp(one[value, t] - logit))
    return [
        one - odds(total, counts, held)
        for one, total, counts, held in zip(own, expected, plain, prior, strict=True)
    ]


@up_to(1)
@given(rows=telling())
def test_adjusted_rates_equal_sums_by_hand(rows):
    few = ["user", "user x item", "item", "hour", {"by": "user", "last": "2d"}]
    with graph_of(rows, rates=GROUPS if SOAK else few) as (log, prepared, graph):
        assert graph.latest.rates is not None
        found = [one for one in graph.latest.rates.adjusted if one is not None]
        *by_hand, _ = adjusted_by_hand(log, prepared, graph)  # nothing reads the positions
        for one, wanted in zip(found, by_hand, strict=True):
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
    graph = latest(log, settings_for(tmp_path, rates=["user", "item"]), tmp_path)
    rates = graph.latest.rates
    assert rates is not None
    assert rates.adjusted[0] is not None
    order = Vocabulary.load(graph.path / "users.parquet").indices(np.arange(6))
    counts = cells_of(rates.tables[0]).counts[order]
    plain = np.log(counts[:, 4] / (counts[:, 1] - counts[:, 4]))
    adjusted = rates.adjusted[0][order, 0]
    assert plain[:3].mean() - plain[3:].mean() > 1.5
    assert abs(adjusted[:3].mean() - adjusted[3:].mean()) < 0.5


def adjusted_of(log: pd.DataFrame, settings: RunSettings, folder: Path) -> np.ndarray:
    """Return the adjusted rates of all snapshots, in the short form of the latest one."""
    folder.mkdir()
    graph = built(log, settings, folder)[1] if SOAK else latest(log, settings, folder)
    return np.concatenate(
        [np.load(graph.folder(s) / "rates.adjusted.npy") for s in range(len(graph.snapshots))]
    )


@up_to(1)
@given(rows=telling(), seed=st.integers(0, 99))
def test_the_order_of_rows_changes_nothing_nor_do_positions_that_are_all_unknown(rows, seed):
    log = pd.concat([log_of(rows), logs_quiet()])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = settings_for(folder, rates=["user", "item", "hour"])
        without = settings.model_copy(update={"data": settings.data.model_copy(update={"position": None})})
        mixed = log.sample(frac=1, random_state=seed)
        first = adjusted_of(log, settings, folder / "a")
        assert np.array_equal(adjusted_of(mixed, settings, folder / "b"), first)
        plain = adjusted_of(log, without, folder / "c")
        assert not np.array_equal(plain, first)
        assert np.array_equal(adjusted_of(log.assign(place=np.nan), settings, folder / "d"), plain)


def test_an_item_that_is_always_shown_first_is_no_good_one(tmp_path):
    """Popular items are shown first, users look there, and popularity says nothing about quality."""
    world = drawn(RANKED.model_copy(update={"exposures": 30_000}))
    users, items, times = world.ids
    log = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    log = log.assign(place=world.shown.position, clicked=world.shown.done(0))
    settings = logs.exposure_settings(
        data={"position": "place"},
        tasks=[{"name": "click", "label": "clicked"}],
        split={"cuts": [0.4, 0.6, 0.8]},
        graph={"rank": 4, "resolutions": [(1, 1)], "rates": ["user", "item"]},
    )
    graph = latest(log, settings, tmp_path)
    rates = graph.latest.rates
    assert rates is not None
    assert rates.adjusted[1] is not None
    items_of = Vocabulary.load(graph.path / "items.parquet")
    known = items_of.ids(np.arange(items_of.size)).to_numpy()
    everyone = np.unique(users)[::10]
    pairs = world.truth.indices(np.tile(everyone, len(known)), np.repeat(known, len(everyone)))
    truth = chances(world.truth, *pairs, np.full(len(pairs[0]), world.day.max()), uniform=True)[:, 0]
    quality = truth.reshape(len(known), -1).mean(1)
    counts = cells_of(rates.tables[1]).counts
    weight, rate = rates.tables[1].prior[0, ::-1]
    plain = np.log((counts[:, 2] + weight * rate) / (counts[:, 1] - counts[:, 2] + weight * (1 - rate)))
    found = np.corrcoef([quality, plain, rates.adjusted[1][:, 0]])[0]
    assert found[2] > found[1] + 0.1


def test_means_of_users_are_those_of_what_items_leave(tmp_path: Path):
    """In a log of ratings: a user who was shown good items alone is not generous."""
    rng = np.random.default_rng(1)
    user = rng.integers(0, 20, 4000)
    item = np.where(rng.random(4000) < np.where(user < 10, 0.9, 0.1), 0, rng.integers(1, 9, 4000))
    log = log_of(
        [(u, i, d, None, None) for u, i, d in zip(user, item, rng.integers(0, 9, 4000), strict=True)]
    )
    log["timestamp"] += rng.integers(0, 3600, 4000)
    log["stars"] = np.where(item == 0, 8.0, 3.0) + rng.integers(0, 3, 4000)
    settings = logs.exposure_settings(
        tasks=[{"name": "stars", "label": "stars", "kind": "regression"}],
        graph={"rank": 4, "resolutions": [(1, 1), (2, 2)], "rates": ["user", "item"]},
    )
    log = log.filter(items=["user_id", "item_id", "timestamp", "stars"]).drop_duplicates()
    rates = latest(log, settings, tmp_path).latest.rates
    assert rates is not None
    users, items = (Vocabulary.load(tmp_path / f"run/graph/{node}s.parquet") for node in ("user", "item"))
    log["u"], log["i"] = users.indices(log["user_id"]), items.indices(log["item_id"])
    mean, own = float(log["stars"].mean()), list[Any]()
    for table, key in zip(rates.tables, ("u", "i"), strict=True):
        held = log.groupby(key).stars.agg(["sum", "count"])
        own.append((held["sum"] - mean * held["count"]) / (held["count"] + table.prior[0, 1]))
    joint = own
    for step in STEPS:
        corrected = []
        for k, (key, other) in enumerate((("u", "i"), ("i", "u"))):
            others = joint[1 - k].loc[log[other]].groupby(log[key].to_numpy()).agg(["sum", "count"])
            left = own[k] - others["sum"] / (others["count"] + rates.tables[k].prior[0, 1])
            corrected.append(joint[k] + step * (left - joint[k]))
        joint = corrected
    for one, means, adjusted in zip(own, joint, rates.adjusted, strict=True):
        assert adjusted is not None
        assert_allclose(adjusted[:, 0], means - one, atol=1e-5)
    plain = own[0].loc[users.indices(np.arange(20))].to_numpy()
    wrong = plain[:10].mean() - plain[10:].mean()
    assert wrong > 2
    fitted = joint[0].loc[users.indices(np.arange(20))].to_numpy()
    assert abs(fitted[:10].mean() - fitted[10:].mean()) < wrong / 2
