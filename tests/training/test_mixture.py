"""A mixture of negatives: known draws, and log-odds that stay those of negatives by popularity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from scipy.stats import chi2

from mgoe.bundle.sampling import undo_sampling
from mgoe.config import NegativeSettings, RetrievalSettings, RunSettings, make_settings
from mgoe.data import Examples, Prepared
from mgoe.errors import ConfigError, TrainingError
from mgoe.experiments.cell import mixed
from mgoe.graph import MacroGraph
from mgoe.models import RankingModel, make_model, resolve
from mgoe.simulation import Truth, reachable
from mgoe.training import make_spec, mixed_negatives, unexposed_negatives
from tests.effort import up_to

MORE = NegativeSettings(uniform=2, retrieved=2)
CANDIDATES = RetrievalSettings(candidates=20)


@pytest.fixture(scope="module")
def data(finished: Path) -> tuple[Prepared, MacroGraph]:
    return Prepared.open(finished / "data"), MacroGraph.open(finished / "graph")


@pytest.fixture(scope="module")
def model(data: tuple[Prepared, MacroGraph]) -> RankingModel:
    return make_model(resolve("shared-bottom"), make_spec(*data), seed=0)


@pytest.fixture(scope="module")
def rows(data: tuple[Prepared, MacroGraph], small: RunSettings) -> Examples:
    prepared, graph = data
    return mixed_negatives(prepared.examples("train"), graph, small.tasks, MORE, CANDIDATES)


@given(
    raw=st.lists(st.floats(-12, 12), min_size=2, max_size=2),
    shift=st.floats(-6, 6),
)
def test_a_shift_moves_the_odds_of_anything_and_no_share(model: RankingModel, raw: list[float], shift: float):
    batch = {"shift": torch.tensor([shift])}
    found = model.as_sampled(torch.tensor([raw]), batch).sigmoid().numpy()
    want = undo_sampling(expit([raw]), np.array([shift], np.float32), np.array([True, True]))
    assert_allclose(found, want, rtol=2e-3, atol=1e-7)


def test_mixed_rows_are_calibrated_under_the_truth(
    rows: Examples, data: tuple[Prepared, MacroGraph], small: RunSettings, world: Path, model: RankingModel
):
    """The best predictions for negatives by popularity, shifted, are those for the mixture."""
    prepared, truth = data[0], Truth.open(world)
    ids = prepared.users.ids(rows.user).to_numpy(), prepared.items.ids(rows.item).to_numpy()
    best = np.clip(reachable(truth, small, *ids, rows.bucket.astype("datetime64[D]")), 1e-9, 1 - 1e-9)
    raw, shift = torch.from_numpy(logit(best)).float(), torch.from_numpy(rows.shift)
    shifted = model.as_sampled(raw, {"shift": shift}).sigmoid().double().numpy()
    assert rows.shift is not None
    group = np.argsort(np.argsort(rows.shift, kind="stable")) * 5 // len(rows)
    for t in range(2):
        wrong, right = (
            (np.bincount(group, rows.labels[:, t] - p) ** 2 / np.bincount(group, p * (1 - p))).sum()
            for p in (best[:, t], shifted[:, t])
        )
        assert right < chi2.ppf(1 - 1e-6, 5) < wrong


def test_what_is_added_was_not_done_and_is_known(
    rows: Examples, data: tuple[Prepared, MacroGraph], small: RunSettings
):
    prepared, graph = data
    train = prepared.examples("train")
    key = (rows.bucket.astype(np.int64) * 10_000 + rows.user) * 10_000 + rows.item
    positive = (rows.labels > 0).any(axis=1)
    assert not np.isin(key[~positive], key[positive]).any()
    known = np.array([snapshot.n_items for snapshot in graph.snapshots])
    assert (rows.item >= known[rows.snapshot]).sum() == (train.item >= known[train.snapshot]).sum()
    added = len(rows) - len(train)
    drawn = (MORE.uniform + MORE.retrieved) * int(positive.sum())
    assert 0.7 * drawn < added < drawn
    again = mixed_negatives(train, graph, small.tasks, MORE, CANDIDATES)
    for one, other in zip(rows.columns(), again.columns(), strict=True):
        assert_array_equal(one, other)


def test_without_candidates_a_shift_depends_on_the_item_alone(
    data: tuple[Prepared, MacroGraph], small: RunSettings
):
    prepared, graph = data
    train = prepared.examples("train")
    rows = mixed_negatives(train, graph, small.tasks, NegativeSettings(uniform=1), CANDIDATES)
    assert rows.shift is not None
    for window in np.unique(rows.snapshot):
        of = rows.snapshot == window
        pairs = np.unique(np.stack([rows.item[of], rows.shift[of].view(np.int32)]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]
    assert (rows.shift <= 0).all()  # more negatives, lower odds


def test_a_mixture_that_is_not_known_is_refused(small: RunSettings, data: tuple[Prepared, MacroGraph]):
    raw: dict[str, Any] = {"data": {"log": "log"}, "tasks": ["click"]}
    with pytest.raises(ConfigError, match="go beside those by popularity"):
        make_settings(raw | {"negatives": {"distribution": "uniform", "uniform": 1}})
    with pytest.raises(TrainingError, match=r"must fit into memory.*negatives\.retrieved to 0"):
        mixed(data[0].streamed("train"), small, data[1])


@up_to(5)
@given(weight=st.floats(0.01, 3), seed=st.integers(0, 9))
def test_unexposed_negatives_were_not_shown_and_weigh_their_share(
    data: tuple[Prepared, MacroGraph], small: RunSettings, weight: float, seed: int
):
    prepared, graph = data
    more = NegativeSettings(uniform=1, retrieved=1, weight=weight, seed=seed)
    train = prepared.examples("train")
    train = train.take(np.arange(0, len(train), 7))
    rows = unexposed_negatives(train, graph, small.tasks, more, CANDIDATES)
    shown = {*zip(train.bucket.tolist(), train.user.tolist(), train.item.tolist(), strict=True)}
    keys = [*zip(rows.bucket.tolist(), rows.user.tolist(), rows.item.tolist(), strict=True)]
    added = np.array([key not in shown for key in keys])
    assert len(rows) - added.sum() == len(train)
    assert rows.shift is None
    assert_array_equal(rows.weight[added], np.float32(weight))
    assert_array_equal(rows.weight[~added], 1)
    assert (np.nan_to_num(rows.labels[added]) == 0).all()
    known = np.array([snapshot.n_items for snapshot in graph.snapshots])
    assert (rows.item[added] < known[rows.snapshot[added]]).all()
    positives = (train.labels > 0).any(axis=1).sum()
    assert positives < added.sum() <= 2 * positives


def test_a_weight_of_negatives_needs_exposures():
    with pytest.raises(ConfigError, match=r"negatives\.weight applies to exposure logs alone, found 0.5"):
        make_settings({"data": {"log": "log"}, "tasks": ["click"], "negatives": {"weight": 0.5}})
    shown = {"data": {"log": "log"}, "tasks": [{"name": "click", "label": "clicked"}]}
    with pytest.raises(ConfigError, match=r"not shown, found 0\.5 and none of them; set negatives\.uniform"):
        make_settings(shown | {"negatives": {"weight": 0.5}})
    assert make_settings(shown | {"negatives": {"weight": 0.5, "uniform": 1}}).negatives.weight == 0.5
