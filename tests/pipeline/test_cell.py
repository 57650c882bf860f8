"""What a cell measures beside its examples."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mgoe.config import make_settings
from mgoe.data import ExampleFile, Examples, join
from mgoe.pipeline import cell as cell_module
from mgoe.pipeline import cell_results
from tests.data.test_example_file import check_same, example_file


def test_a_catalogue_is_ranked_by_how_likely_a_task_is_done_at_all(monkeypatch: pytest.MonkeyPatch):
    """Of an item that is hardly clicked, the probability to buy it once it is says little."""
    tasks = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", "given": "click"}]
    settings = make_settings({"data": {"log": "log.parquet"}, "tasks": tasks})
    monkeypatch.setattr(
        cell_results, "rank_catalog", lambda score, *_, **__: score(np.zeros(2, int), np.arange(2))
    )
    none, scores = np.empty(0, np.int64), np.array([[0.5, 0.3], [0.001, 0.9]], np.float32)
    examples = SimpleNamespace(labels=None, user=none, column=lambda name: none)
    prepared = SimpleNamespace(
        cuts=[0], valid_window=-1, streamed=lambda _: examples, users_at=[1], items_at=[2]
    )
    inputs: Any = SimpleNamespace(
        prepared=prepared,
        graph=SimpleNamespace(snapshots=[None]),
        scored=lambda *_: SimpleNamespace(score_indices=lambda *_: scores),
    )
    model: Any = SimpleNamespace(spec=SimpleNamespace(tasks=()))
    assert_allclose(
        np.array(cell_results.catalog(model, settings, inputs, model="m", seed=0)),
        [[0.5, 0.15], [0.001, 0.0009]],
        rtol=1e-6,
    )


def test_a_share_of_streamed_rows_is_in_memory_where_it_fits_alone(tmp_path: Path):
    with example_file([100] * 3) as file:
        whole, path = file.read(), tmp_path / "fit" / "sample.parquet"
        want = cell_module.sampled(whole, 0.5, 7, path, memory=1.0)
        assert isinstance(want, Examples)
        assert not path.exists()
        other = cell_module.sampled(whole, 0.5, 8, path, memory=1.0)
        assert len(other) != len(want) or (other.weight != want.weight).any()
        takes = len(want) * file.row_bytes / (1 << 30)
        for factor, kind in ((1.01, Examples), (0.99, ExampleFile)):
            got = cell_module.sampled(file, 0.5, 7, path, memory=factor * takes)
            assert isinstance(got, kind)
            check_same(join(list(got.parts())), want)
