"""An explanation names what carried a score, heaviest first."""

from pathlib import Path

import numpy as np
import pytest

import mgoe
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.explanation import explain
from mgoe.serving.scoring.runtime import Runtime

pytest.importorskip("orjson", reason="orjson is not installed: pip install -e '.[serve]'")


def test_an_explanation_adds_up(finished: Path, bundle: mgoe.Bundle, tmp_path: Path):
    engine = Engine(finished / "bundle", ServiceLog(tmp_path / "log.sqlite"), runtime=Runtime(engine="torch"))
    user, item = bundle.ids("user", np.array([4]))[0], bundle.ids("item", np.array([7]))[0]
    shown = explain(engine, user, item, {})
    scores = bundle.score_indices(np.array([4]), np.array([7]))[0]
    assert shown["tasks"] == pytest.approx(dict(zip(bundle.tasks, scores, strict=True)), abs=1e-5)
    own = bundle.explain(user, item)
    assert own.pop("tasks") == pytest.approx(shown["tasks"], abs=1e-5)
    assert own == {name: shown[name] for name in own}
    assert {*own} == {*shown} - {"bundle", "live", "tasks"}
    of_user = bundle.explain(user)
    assert of_user == {name: explain(engine, user, None, {})[name] for name in of_user}
    for weights in shown["gates"].values():
        assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
    assert set(shown["macro"]) == {"u1", "u2", "i1", "i2"}
    for nodes in shown["macro"].values():
        weights = [node["weight"] for node in nodes]
        assert weights == sorted(weights, reverse=True)
        assert 0 < sum(weights) <= 1 + 1e-5
        assert all(node["edge"] > 0 for node in nodes)
