"""A service reports how far what it answers has moved from what its bundle was made from."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mgoe
from mgoe.metrics import stability_index
from mgoe.serving.http import stability
from mgoe.serving.http.stability import moved
from tests.serving.http.test_live_service import until
from tests.serving.served import served


def test_pairs_are_counted_in_the_bins_of_the_population(finished: Path):
    expected = mgoe.load(finished / "bundle").population.scores
    values = np.random.default_rng(0).random((57, len(expected)))
    rows = [{task: row[None, [t]] for t, task in enumerate(expected)} for row in values]
    for t, (task, [histogram]) in enumerate(expected.items()):
        counts = histogram.count(values[:, t])
        assert moved(expected, rows)[task] == pytest.approx(stability_index(histogram.counts, counts))


def test_gauges_are_set_once_enough_was_answered(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"SHARE": 1.0, "FEWEST": 10, "EVERY": 10}.items():
        monkeypatch.setattr(stability, name, value)
    with served(finished / "bundle", tmp_path) as service:

        def gauges() -> dict[str, float]:
            page = service.client.get("/metrics").text
            return {
                name: float(value)
                for name, value in re.findall(
                    r'^mgoe_(?:score|input)_psi\{\w+="([\w.]+)"\} (\S+)$', page, re.M
                )
            }

        assert gauges() == {}
        items = bundle.encoders.items.ids(np.arange(1)).to_pylist()

        def asked() -> bool:
            service.score(users=[1], items=items)  # the same pair: nothing is as in training
            return len(gauges()) > len(bundle.tasks)  # those of inputs are set after those of scores

        until(asked)
        found = gauges()
        assert set(bundle.tasks) < set(found)
        assert min(found[task] for task in bundle.tasks) > 1
        score = bundle.predict(1, items)
        for task, [histogram] in bundle.population.scores.items():
            counts = 10 * histogram.count(score[task].to_numpy())
            assert_allclose(found[task], stability_index(histogram.counts, counts))
