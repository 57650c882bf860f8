from types import SimpleNamespace

import numpy as np
import pytest

from mgoe.errors import TrainingError
from mgoe.models import CategoricalSpec, FeatureSpec
from mgoe.training import make_spec
from tests.training.fakes import GRAPH, NEEDS, PREPARED, make_examples, make_feed


def prepared(**changes):
    return SimpleNamespace(**{**vars(PREPARED), **changes})


def test_sizes_are_those_of_the_data():
    spec = make_spec(PREPARED, GRAPH, NEEDS)
    assert (spec.n_users, spec.n_items) == (
        GRAPH.snapshots[1].n_users,
        GRAPH.snapshots[1].n_items,
    )  # the snapshot that ends training
    assert (spec.macro_users, spec.macro_items, spec.recents) == (5, 4, 2)
    assert [(t.name, t.weight, t.given) for t in spec.tasks] == [("click", 1.0, None), ("buy", 2.0, 0)]
    assert spec.user_side == spec.item_side == (CategoricalSpec("kind", 4),)
    assert spec.context == (CategoricalSpec("hour", 24), CategoricalSpec("tags", 7, multi=True))
    assert spec.positions == 9
    assert spec.widths == {"user_side_numeric": 1, "item_side_numeric": 1, "context_numeric": 2, "counts": 3}
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_moments_are_those_of_the_training_examples(monkeypatch):
    block = make_feed(500, seed=3).block(np.arange(500))  # the seed of the fake's training examples
    spec = make_spec(PREPARED, GRAPH, NEEDS)
    for name, (mean, std) in spec.moments.items():
        values = block[name].double().numpy()
        np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
        np.testing.assert_allclose(std, values.std(0), atol=1e-6)
    monkeypatch.setattr("mgoe.training.spec.MOMENT_ROWS", 100)
    sampled = make_spec(PREPARED, GRAPH, NEEDS)
    assert sampled.moments == make_spec(PREPARED, GRAPH, NEEDS).moments != spec.moments


def test_only_wanted_groups_are_measured():
    assert make_spec(PREPARED, GRAPH, frozenset({"ids", "counts"})).widths == {"counts": 3}


def test_a_regression_label_has_moments_over_what_is_known():
    settings = {"tasks": [{"name": "click"}, {"name": "stay", "kind": "regression"}]}
    examples = make_examples(4)
    examples.labels[:, 1] = [1, np.nan, 3, 5]
    stay = make_spec(prepared(settings=settings, streamed=lambda split: examples), GRAPH, NEEDS).tasks[1]
    assert (stay.mean, stay.std) == (3, pytest.approx(np.std([1, 3, 5])))


def test_no_training_example_is_refused():
    with pytest.raises(TrainingError, match="training examples: there must be at least one"):
        make_spec(prepared(streamed=lambda split: make_examples(0)), GRAPH)
