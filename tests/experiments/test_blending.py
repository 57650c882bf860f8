"""The blend of a cell: fitted on validation, and the same in a comparison's lists as in the bundle."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mgoe
from mgoe.config import RetrievalSettings, RunSettings
from mgoe.data import Prepared
from mgoe.experiments import blending
from mgoe.experiments.blending import _questions, fit_blend
from mgoe.experiments.cell_bundle import write_cell_bundle
from mgoe.experiments.fitted import load_calibration, load_model
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell, Plan
from mgoe.experiments.topn_model import ItemScores, Retrieved


@pytest.fixture(scope="module")
def retrieving(small: RunSettings) -> RunSettings:
    return small.model_copy(update={"retrieval": RetrievalSettings(candidates=30)})


@pytest.fixture(scope="module")
def cell(retrieving: RunSettings, finished: Path) -> Cell:
    return Plan(retrieving, finished).cells[0]


def test_a_comparison_orders_candidates_as_the_bundle_does(
    retrieving: RunSettings, cell: Cell, finished: Path, tmp_path: Path
):
    inputs = Inputs.open(finished, retrieving)
    write_cell_bundle(tmp_path / "bundle", cell, inputs)
    bundle = mgoe.load(tmp_path / "bundle")
    assert bundle.retrieval is not None
    assert bundle.retrieval.blend is not None
    retrieved, model = Retrieved(bundle.retrieval, bundle.view), load_model(cell, inputs, False)
    score = ItemScores(
        inputs.scored(model, inputs.graph.latest, load_calibration(cell), bundle.retrieval), ["click"]
    )
    users = np.arange(12)
    items = [retrieved(user) for user in users.tolist()]
    [values] = score(users, items, [1.0])
    for id, mine, own in zip(bundle.ids("user", users), items, np.split(values, 12), strict=True):
        found = bundle.indices("item", bundle.recommend(id, 10, "click")["item"])
        assert_allclose(own[np.searchsorted(mine, found)], np.sort(own)[::-1][:10], rtol=1e-5)


def test_without_retrieval_or_with_few_users_nothing_is_fitted(
    retrieving: RunSettings, cell: Cell, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    inputs, calibration = Inputs.open(finished, retrieving), load_calibration(cell)
    model = load_model(cell, inputs, False)
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
