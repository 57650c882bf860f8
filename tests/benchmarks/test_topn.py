"""Top-N recommenders on a small world."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import yaml
from benchmarks.lightgcn import light_gcn, smoothing
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import lightgcn, topn
from mgoe.bundle.sampling import shifted_tasks
from mgoe.config import RunSettings, make_settings
from mgoe.experiments.plan import Plan
from mgoe.experiments.runs import begin


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_hit_rate_is_the_naive_count(seed: int, hide: bool):
    rng = np.random.default_rng(seed)
    users, items = 6, 40
    known = sp.random_array((users, items), density=0.2, rng=rng, format="csr")
    scores = rng.permutation(users * items).reshape(users, items).astype(float)
    unknown = np.argwhere(known.toarray() == 0)
    pairs = np.unique(unknown[rng.integers(0, len(unknown), 9)], axis=0)
    task = topn.task_of(known, 0, pairs[:, 0], pairs[:, 1], 4, seed, hide)
    hits = []
    for user in task.queries:
        row = np.where(known.toarray()[user] > 0, -np.inf, scores[user]) if hide else scores[user]
        hits.append(bool(set(np.argsort(-row)[:10]) & set(task.item[task.user == user])))
    assert_allclose(topn.measure(task, lambda users: scores[users], block=3)["hr@10"], hits)


def test_a_list_with_a_score_that_is_no_number_has_no_rank():
    task = topn.task_of(
        sp.csr_array(np.zeros((2, 30), np.float32)), 0, np.arange(2), np.full(2, 7), 2, 0, hide=False
    )
    scores = np.tile(np.arange(30.0), (2, 1))
    scores[0, 7] = np.nan
    for values in topn.measure(task, lambda users: scores[users]).values():
        assert_array_equal(np.isnan(values), [True, False])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30))
def test_what_is_held_out_is_the_last_item_and_never_all(events: list[tuple[int, int]]):
    user, item = np.array(events).T
    held = topn.held_out(user, item)
    for one in np.unique(user):
        mine = np.flatnonzero(user == one)
        if len(set(item[mine])) == 1:
            assert not held[mine].any()
        else:
            assert (held[mine] == (item[mine] == item[mine[-1]])).all()


def test_smoothing_is_symmetric_and_of_norm_one():
    user, item = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    dense = smoothing(user, item, 3, 3).to_dense().numpy()
    assert_allclose(dense, dense.T)
    assert_allclose(np.linalg.eigvalsh(dense).max(), 1, atol=1e-6)
    assert_allclose(dense[0, 3], 1 / np.sqrt(2))


def test_the_gradient_of_smoothing_is_that_of_its_rounds():
    adjacency = smoothing(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3, 3)
    table, drawn = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    gradients = []
    for smooth in (lightgcn.smoothed, lightgcn._Smoothed.apply):
        rows = table.clone().requires_grad_()
        (smooth(adjacency, rows, 3) * drawn).sum().backward()
        gradients.append(rows.grad)
    torch.testing.assert_close(*gradients)


def test_a_fit_looked_at_on_the_way_is_the_shorter_fit():
    known = sp.random_array((12, 9), density=0.3, rng=np.random.default_rng(0), format="csr")
    for (users, items), epochs in zip(light_gcn(known, 0, 4, [1, 3]), (1, 3), strict=True):
        [alone] = light_gcn(known, 0, 4, [epochs])
        assert_allclose(users, alone[0])
        assert_allclose(items, alone[1])


def test_settings_are_those_that_are_best_on_validation():
    known = sp.csr_array(np.eye(4, 30, dtype=np.float32))
    valid, test = (
        topn.task_of(known, 0, np.arange(4), np.full(4, item), 4, 0, hide=False) for item in (7, 8)
    )
    tried = []

    def make(task: topn.Task, seed: int, grid: topn.Grid):
        """Recommends one item to everybody."""
        for settings in grid:
            tried.append((task is valid, settings["item"]))
            yield lambda users, item=settings["item"]: np.tile(np.arange(30) == item, (len(users), 1)).astype(
                float
            )

    grid = [{"item": 8}, {"item": 7}, {"item": 9}]
    assert (
        topn.chosen_scores("one", make, grid, test, valid, 0)(np.arange(1)).argmax() == 7
    )  # not the 8 that is best on test
    assert tried == [(True, 8), (True, 7), (True, 9), (False, 7)]


@pytest.mark.parametrize("hide", [False, True])
def test_validation_knows_nothing_of_what_comes_after_its_snapshot(
    small: RunSettings, tmp_path: Path, hide: bool
):
    plan = Plan(small, tmp_path / "out")
    with begin(plan, plan.cells, overwrite=False, say=lambda _: None) as prepared:
        valid, test = (topn.by_time(prepared, split, 10_000, 0, hide) for split in ("valid", "test"))
    user, item, _, snapshot = topn.history_of(prepared)
    before = snapshot <= len(prepared.cuts) - 2
    expected = topn.matrix(
        user[before], item[before], (int(prepared.users_at[-1]), int(item[before].max()) + 1)
    ).toarray()
    assert_allclose(valid.known.toarray()[:, : expected.shape[1]], expected)
    assert not valid.known.toarray()[:, expected.shape[1] :].any()
    assert test.known.sum() > valid.known.sum()
    assert len(valid.queries)
    if hide:
        assert not valid.known[valid.user, valid.item].any()


@pytest.mark.parametrize("split", ["time", "leave-last-out"])
def test_every_recommender_prints_its_figures(
    small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
):
    pytest.importorskip("implicit")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    topn.main(
        [str(tmp_path / "small.yaml"), "--split", split, "--queries", "50", "--out", str(tmp_path / "out")]
    )
    found = {
        figure["name"].removeprefix(f"topn.{split}."): figure
        for figure in map(json.loads, capsys.readouterr().out.splitlines())
    }
    others, metrics = ("popularity", "item-knn", "als", "lightgcn"), ("hr@10", "ndcg@10")
    alone = {f"{name}.{metric}" for name in (*others, "mgoe") for metric in metrics}
    assert found.keys() == alone | {f"mgoe-minus-{name}.{metric}" for name in others for metric in metrics}
    assert all(0 <= found[name]["value"] <= 1 for name in alone)
    assert found["popularity.hr@10"]["value"] > 0
    for name in others:
        for metric in metrics:
            ahead = found[f"mgoe-minus-{name}.{metric}"]
            assert ahead["value"] == pytest.approx(
                found[f"mgoe.{metric}"]["value"] - found[f"{name}.{metric}"]["value"], abs=1e-4
            )
            assert 0 < ahead["against"] < 0.1  # of 50 users


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--models", "mgeo"], "did you mean 'mgoe'"),
        (["--beside", "asl"], "did you mean 'als'"),
        (["--task", "bye"], "did you mean 'buy'"),
    ],
)
def test_a_name_that_is_none_is_said_before_any_work(
    small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    with pytest.raises(SystemExit):
        topn.main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out"), *words])
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("split", "items", "fix"),
    [
        ("time", lambda user, step: user % 7 + 10 * (step >= 8), "move the last of split.cuts"),
        ("leave-last-out", lambda user, _: user % 7, "more than one item"),
    ],
)
def test_a_split_without_a_query_is_named(
    small: RunSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    split: str,
    items: Callable[[int, int], int],
    fix: str,
):
    """Of users who do new items alone after the last cut, or one item each."""
    start = pd.Timestamp("2024-01-01")
    events = [
        {
            "user_id": user,
            "item_id": items(user, step),
            "timestamp": start + pd.Timedelta(days=step, minutes=user),
            "behavior": behavior,
        }
        for user in range(30)
        for step in range(10)
        for behavior in ("click", "buy")
    ]
    pd.DataFrame(events).to_parquet(tmp_path / "log.parquet")
    raw = small.model_dump(mode="json")
    raw["data"]["log"] = str(tmp_path / "log.parquet")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(SystemExit) as ended:
        topn.main([str(tmp_path / "small.yaml"), "--split", split])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"--split {split}: there must be a user with something to find, found none" in said
    assert fix in said


def test_no_query_is_refused_before_any_work(
    small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    with pytest.raises(SystemExit):
        topn.main([str(tmp_path / "small.yaml"), "--queries", "0", "--out", str(tmp_path / "out")])
    assert "--queries: must be at least 1, found 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_items_are_ordered_by_how_likely_a_task_is_done_at_all(monkeypatch: pytest.MonkeyPatch):
    """Of an item that is hardly clicked, the probability to buy it once it is says little."""
    tasks = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", "given": "click"}]
    monkeypatch.setattr(
        topn, "PairScorer", lambda *_: lambda *_: np.array([[0.5, 0.3], [0.001, 0.9]], np.float32)
    )
    monkeypatch.setattr(topn, "View", SimpleNamespace(of=lambda *_: None))
    prepared = SimpleNamespace(
        user_side=None, item_side=None, context_features=SimpleNamespace(encode=lambda *_: {})
    )
    ranking: Any = object.__new__(topn.Ranking)
    ranking.inputs = SimpleNamespace(
        prepared=prepared, graph=SimpleNamespace(snapshots=[None]), prior=np.zeros(2, np.float32)
    )
    ranking.model, ranking.columns = None, np.array([False, True])
    ranking.tasks = make_settings({"data": {"log": "log.parquet"}, "tasks": tasks}).tasks
    ranking.shifted = shifted_tasks(ranking.tasks)
    task = topn.task_of(
        sp.csr_array(np.ones((1, 2), np.float32)), 0, np.zeros(1, int), np.zeros(1, int), 1, 0, hide=False
    )
    [scores] = ranking(task, 0, [{"undone": 1.0}])
    assert_allclose(scores(np.zeros(1, int)), [[0.15, 0.0009]], rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tasks": [{"name": "stay", "kind": "regression", "label": "seconds"}]}, "no task is binary"),
        (
            {
                "tasks": [
                    {"name": "click", "label": "clicked"},
                    {"name": "stay", "kind": "regression", "label": "seconds"},
                ]
            },
            "leave out tasks of the kind regression",
        ),
    ],
)
def test_what_has_no_order_or_no_event_is_refused(
    more: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": {"log": "log.parquet"}} | more))
    with pytest.raises(SystemExit):
        topn.main([str(tmp_path / "mine.yaml"), "--split", "leave-last-out"])
    assert message in capsys.readouterr().err
