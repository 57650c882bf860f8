"""The blend of a cell: fitted on validation, and the same in a comparison's lists as in the bundle."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mgoe
from mgoe.bundle.ranking import Query
from mgoe.config import RetrievalSettings, RunSettings, TopNSettings
from mgoe.data import Prepared
from mgoe.pipeline import blending
from mgoe.pipeline.blending import _questions, fit_blend
from mgoe.pipeline.cell_bundle import write_cell_bundle
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.lists import list_objective
from mgoe.pipeline.plan import Cell, Plan
from mgoe.pipeline.refit import load_calibration, load_model
from mgoe.pipeline.topn_cell import MIX, ranked_lists, recall
from mgoe.retrieval import Retrieval
from mgoe.topn import Queries
from mgoe.topn.lists import events_until
from mgoe.training import PairScorer


@pytest.fixture(scope="module")
def retrieving(small: RunSettings) -> RunSettings:
    return small.model_copy(update={"retrieval": RetrievalSettings(candidates=30)})


@pytest.fixture(scope="module")
def cell(retrieving: RunSettings, finished: Path) -> Cell:
    return Plan(retrieving, finished).cells[0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("hide", [False, True])
def test_a_comparison_lists_what_the_bundle_recommends(
    retrieving: RunSettings, cell: Cell, finished: Path, tmp_path: Path, hide: bool, exact: bool
):
    inputs = Inputs.open(finished, retrieving)
    write_cell_bundle(tmp_path / "bundle", cell, inputs)
    bundle, users = mgoe.load(tmp_path / "bundle"), np.arange(12)
    assert bundle.retrieval is not None
    assert bundle.retrieval.blend is not None
    scored = inputs.scored(
        load_model(cell, inputs), inputs.graph.latest, load_calibration(cell, "test"), bundle.retrieval
    )
    objective = list_objective(retrieving, TopNSettings(objective="click * buy^2"))
    query = Query(10, objective, {}, np.empty(0, np.int64), (), {}, exact)
    asked = Queries(events_until(inputs.prepared, 1), 1, users, users, users, hide)
    [lists] = ranked_lists([scored], asked, query)
    found = bundle.recommend(bundle.ids("user", users), 10, "click * buy^2", exclude_known=hide, exact=exact)
    assert_array_equal(lists.ravel(), bundle.indices("item", found["item"]))


def test_the_lists_of_a_comparison_hold_known_items_alone(
    retrieving: RunSettings, cell: Cell, finished: Path, tmp_path: Path
):
    """Items that content tells of and that nobody did before are nearest to everybody here."""
    inputs = Inputs.open(finished, retrieving)
    scored = inputs.scored(load_model(cell, inputs), inputs.graph.latest)
    how = RetrievalSettings(candidates=20, quotas={"unseen": 5, "popular": 15})
    scored.retrieval = Retrieval.build(scored.view, tmp_path / "retrieval", how)
    known, base = scored.n_items, scored.view.base["item"]
    for name in ("sum", "vectors"):
        base[name] = np.concatenate([base[name], np.repeat(base[name][-1:], 3, axis=0)])
    users = np.flatnonzero(scored.view.base["user"]["vectors"].any(axis=1))[:4]
    candidates = scored.retrieval.candidates(scored.view, int(users[0]))
    assert {known, known + 1, known + 2} <= {*candidates.tolist()}
    query = Query(10, list_objective(retrieving, TopNSettings()), {}, np.empty(0, np.int64), (), {}, False)
    asked = Queries(events_until(inputs.prepared, 1), 1, users, users, users, hide=False)
    [lists] = ranked_lists([scored], asked, query)
    assert lists.max() < known
    found, _ = recall(scored, asked, query, [np.arange(known, known + 3)] * len(users))
    assert found.values[found.names.index((MIX, "recall@20"))] == 0


def test_readings_score_the_same_pairs_once_and_undo_shares_of_the_sampling(
    retrieving: RunSettings, cell: Cell, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    inputs, asked = Inputs.open(finished, retrieving), []
    scored = inputs.scored(load_model(cell, inputs), inputs.graph.latest)
    pairs = np.zeros(5, np.int64), np.arange(5)
    learned, full = (scored.score_indices(*pairs, recalibrated=undo) for undo in (False, True))
    score = PairScorer.__call__
    monkeypatch.setattr(
        PairScorer, "__call__", lambda self, *pairs: asked.append(pairs) or score(self, *pairs)
    )
    whole, half, none = (one.score_indices(*pairs) for one in scored.readings([1.0, 0.5, 0.0]))
    assert len(asked) == 1
    assert_array_equal(whole, full)
    assert_array_equal(none, learned)
    odds = [np.log(p / (1 - p)).max(axis=1) for p in (learned, half, full)]
    assert_allclose(odds[1] - odds[0], (odds[2] - odds[0]) / 2, rtol=1e-3)


def test_without_retrieval_or_with_few_users_nothing_is_fitted(
    retrieving: RunSettings, cell: Cell, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    inputs, calibration = Inputs.open(finished, retrieving), load_calibration(cell, "test")
    model = load_model(cell, inputs)
    monkeypatch.setattr(blending, "USERS", 5)
    assert fit_blend(model, inputs, calibration) is None
    exact = retrieving.model_copy(update={"retrieval": "exact"})
    assert fit_blend(model, Inputs.open(finished, exact), calibration) is None


def test_questions_are_about_the_validation_window_alone(finished: Path):
    prepared = Prepared.open(finished / "data")
    window = prepared.examples("valid")
    done = {
        (user, item)
        for user, item, labels in zip(window.user, window.item, window.labels, strict=True)
        if (labels > 0).any()
    }
    n_items = int(prepared.items_at[prepared.valid_window])
    visits = 0
    for user, later, wanted in _questions(prepared, n_items):
        earlier = set() if later is None else {*later.item.tolist()}
        assert not earlier & {*wanted.tolist()}
        assert {(user, item) for item in (*earlier, *wanted.tolist())} <= done
        assert wanted.max() < n_items
        if later is not None:
            visits += 1
            assert len(wanted) == 1
            assert len(later.item) == len(later.time) == len({*later.item.tolist()})
    assert visits
