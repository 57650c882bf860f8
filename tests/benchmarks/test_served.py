"""The bundles that serving is timed on."""

from pathlib import Path

import pytest
from benchmarks.served import made_up_bundle

import mgoe


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_made_up_bundle_scores(tmp_path: Path):
    paths = made_up_bundle(tmp_path, users=4000, items=4000, k=20, models=["mgoe", "paper"])
    for path in paths:
        bundle = mgoe.load(path)
        scores = bundle.predict(
            [bundle.encoders.users.ids([0])[0].as_py()] * 2, bundle.encoders.items.ids([0, 1]).to_pylist()
        )
        assert list(scores.columns[2:]) == ["click", "favour", "cart"]
        assert scores["click"].between(0, 1).all()
