"""Slices of a run are by the history that its rows read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mgoe.config import make_settings
from mgoe.data import prepare
from mgoe.graph import MacroGraph
from mgoe.pipeline.inputs import Inputs


@pytest.mark.parametrize(
    ("history", "lag"), [("cut", "0s"), ("bucket", "0s"), ("moment", "0s"), ("moment", "5m")]
)
def test_activity_is_what_the_rows_of_a_session_read(history: str, lag: str, tmp_path: Path):
    """A session of five events begins after the last cut. Only its moments know what came before in it."""
    n = 15_000
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.sort(rng.integers(0, 20 * 86_400, n // 5)), "s")
    log = pd.DataFrame({"user_id": np.arange(n) // 5, "item_id": rng.integers(0, 300, n)})
    log["timestamp"] = np.repeat(start, 5) + pd.to_timedelta(np.arange(n) % 5, unit="min")
    log.to_parquet(tmp_path / "log.parquet")
    data = {"log": str(tmp_path / "log.parquet"), "behavior": None, "bucket": "6h", "history": history}
    settings = make_settings(
        {
            "data": data | {"lag": lag},
            "tasks": ["click"],
            "negatives": {"ratio": 1},
        }
    )
    prepared = prepare(settings, tmp_path / "data")
    graph = MacroGraph.__new__(MacroGraph)  # slices do not read it
    slices, test = Inputs(settings, prepared, graph).slices, prepared.examples("test")
    users, items = (
        np.array(one.ids(np.arange(one.size)).to_pylist()) for one in (prepared.users, prepared.items)
    )
    user, item, at = (log[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    moments = np.zeros(len(test), np.int64) if test.moment is None else test.moment
    for row in range(0, len(test), 37):
        before = (user == users[test.user[row]]) & (at < np.datetime64(int(moments[row]), "us"))
        assert slices["activity-none"][row] == (not before.any())
        assert slices["activity-few"][row] == (0 < before.sum() < 5)
        assert slices["new-pairs"][row] == (not (before & (item == items[test.item[row]])).any())
    if (history, lag) == ("moment", "0s"):
        assert 0.15 < slices["activity-none"].mean() < 0.3
    else:
        assert slices["activity-none"].mean() > 0.9
    assert slices["unseen-users"].mean() > 0.99
