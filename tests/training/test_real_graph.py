"""Feed and loop over a real prepared log, graph and models, small ones."""

import ibis
import numpy as np
import pyarrow as pa
import pytest

from mgoe.config import TrainingSettings, make_settings
from mgoe.data import prepare
from mgoe.features import GROUPS, Reader, View
from mgoe.graph import Source, build_graph
from mgoe.models import make_model, resolve
from mgoe.training import Feed, fit, make_spec


@pytest.fixture(scope="module")
def prepared_log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    rng = np.random.default_rng(0)
    n = 2000
    community = rng.integers(0, 3, n)
    log = pa.table(
        {
            "user_id": community * 40 + rng.integers(0, 40, n),
            "item_id": community * 30 + rng.integers(0, 30, n),
            "timestamp": np.datetime64("2024-01-01T00:00:00")
            + rng.integers(0, 60, n).astype("timedelta64[D]"),
            "behavior": rng.choice(["click", "buy"], n, p=[0.8, 0.2]),
        }
    )
    settings = make_settings(
        {"data": {"log": "unused"}, "tasks": ["click", "buy"], "graph": {"resolutions": [(3, 3), (4, 5)]}}
    )
    prepared = prepare(settings, folder / "data", ibis.memtable(log))
    source = Source(prepared.history, prepared.cuts, prepared.users_at, prepared.items_at, settings.ranks)
    graph = build_graph(source, settings.graph, folder / "graph")
    return prepared, graph, make_spec(prepared, graph)


def test_blocks_are_what_each_row_gathers_from_its_own_snapshot(prepared_log):
    prepared, graph, spec = prepared_log
    examples = prepared.examples("train")
    feed = Feed(prepared, graph, examples, frozenset(GROUPS), spec)
    rows = np.random.default_rng(1).permutation(len(examples))[:100]
    block = feed.block(rows)
    for place, row in enumerate(rows):
        one = examples.take(np.array([row]))
        view = View.of(graph.snapshots[one.snapshot[0]], prepared.user_side, prepared.item_side)
        alone = Reader(GROUPS, spec)(view, one.user, one.item, one.context)
        assert set(block) == {*alone, "labels", "weight"}
        for name, values in alone.items():
            np.testing.assert_array_equal(block[name][place].numpy(), values[0], err_msg=name)


@pytest.mark.parametrize("name", ["mgoe", "mgoe-paper", "mmoe", "shared-bottom+edges"])
def test_every_kind_of_model_learns_the_communities(prepared_log, tmp_path, name):
    prepared, graph, spec = prepared_log
    model = make_model(resolve(name), spec, seed=0)
    train, valid = (
        Feed(prepared, graph, prepared.examples(split), model.needs, spec) for split in ("train", "valid")
    )
    result = fit(
        model, train, valid, TrainingSettings(epochs=4, batch_size=128, monitor="click.auc"), tmp_path
    )
    assert result.best_value > (0.6 if "edges" in model.needs else 0.5)
    assert result.curves[-1]["losses"]["click"] < result.curves[0]["losses"]["click"]
