"""Top-N lists as part of a comparison."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe import experiments
from tests.experiments.tiny import settings

pytest.importorskip("implicit")


@pytest.fixture(scope="module")
def asked(raw: dict[str, Any]) -> dict[str, Any]:
    """The tiny log twice, once without last items; one model and two baselines, of which one draws."""
    log = raw["logs"]["tiny"]
    rest = {"data": {"log": log["data"]["log"]}, "tasks": log["tasks"], "hold_out": "last"}
    topn = {"k": [5, 20], "baselines": ["item-knn", "ials"], "trials": 2, "tuning_users": 50}
    return raw | {
        "logs": {"tiny": log, "last": rest},
        "models": ["shared-bottom"],
        "variants": {},
        "topn": topn,
    }


@pytest.fixture(scope="module")
def listed(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("listed") / "out"
    experiments.compare(settings(asked), out)
    return out


def test_lists_stand_in_results_and_tables(listed: Path):
    rows = pd.read_parquet(listed / "results.parquet").query("slice == 'topn'")
    for log in ("tiny", "last"):
        own = rows[rows["log"] == log]
        assert set(own["model"]) == {"shared-bottom", "item-knn", "ials"}
        assert own.query("metric == 'hr@5'")["value"].between(0, 1).all()
    text = (listed / "tables.md").read_text()
    assert "## Top-N lists, by time, known items included: tiny" in text
    assert "## Top-N lists, each user's last item held out, known items hidden: last" in text
    assert "| shared-bottom minus | NDCG@5 | HR@5 |" in text
