"""What rows of a prepared log read, against a naive count of the log."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from mgoe.data import SPLITS, Examples, Prepared
from mgoe.features import Reader, View
from mgoe.features.moments import WindowMoments
from mgoe.graph import MacroGraph, build_graph
from mgoe.graph.counts import count_names
from mgoe.pipeline.stages import source_of
from tests.data import logs
from tests.effort import up_to

HOUR = 3_600_000_000
PAIRS = count_names(2).index("pairs")
LENGTHS = {"0s": 0, "30m": HOUR // 2, "6h": 6 * HOUR, "1d": 24 * HOUR, "2d": 48 * HOUR}


def busy_log(seed: int, rows: int = 150) -> pd.DataFrame:
    """Return events at any second of all days, of pairs that are new until the end."""
    rng = np.random.default_rng(seed)
    day = np.arange(rows) % logs.DAYS
    names = rng.choice(["click", "buy"], rows)
    log = logs.events(list(zip(*rng.integers(0, 9, (2, rows)).tolist(), day.tolist(), names, strict=True)))
    return log.assign(timestamp=logs.START + day * logs.DAY + rng.integers(0, logs.DAY, rows))


def neighbors_read(prepared: Prepared, graph: MacroGraph, some: Examples) -> pd.DataFrame:
    """Return how many items the user of each example has in what it reads, and users its item."""
    window = int(some.snapshot[0])
    view = View.of(graph.snapshots[window], prepared.user_side, prepared.item_side)
    view = replace(view, moments=WindowMoments(prepared, graph)[window])
    counts = Reader({"counts"})(view, some.user, some.item, {}, some.moment)["counts"]
    read = np.expm1(counts[:, [PAIRS, counts.shape[1] // 2 + PAIRS]]).round().astype(int)
    return pd.DataFrame(read, columns=["of user", "of item"])


@pytest.mark.parametrize(("bucket", "lag"), [("1d", "0s"), ("6h", "30m"), ("6h", "2d")])
@up_to(1)
@given(seed=st.integers(0, 99))
def test_at_the_bucket_the_same_rows_read_all_before_it_less_the_lag(bucket, lag, seed):
    log = busy_log(seed)
    data = {"bucket": bucket, "history": "bucket", "lag": lag}
    run = logs.event_settings(data=data, graph={"rank": 4, "resolutions": [(1, 1), (2, 2)]})
    with TemporaryDirectory() as folder:
        prepared = logs.prepared(log, run, Path(folder) / "data")
        same = logs.prepared(log, logs.event_settings(data={"bucket": bucket}), Path(folder) / "cut")
        rows = logs.contents(prepared)["examples"].drop(columns="moment")
        assert_frame_equal(rows, logs.contents(same)["examples"])
        assert all(same.examples(split).moment is None for split in SPLITS)
        graph = build_graph(source_of(run, prepared), run.graph, Path(folder) / "graph")
        history: Any = prepared.history.to_pandas()
        for examples in map(prepared.examples, SPLITS):
            for window in np.unique(examples.snapshot):
                some = examples.take(np.flatnonzero(examples.snapshot == window))
                until = some.bucket.astype(np.int64) * LENGTHS[bucket] - LENGTHS[lag]
                naive = []
                for user, item, moment in zip(some.user, some.item, until, strict=True):
                    seen = history[(history.snapshot <= window) | (history.time < moment)]
                    own, others = seen[seen.user == user], seen[seen.item == item]
                    naive.append([len(own["item"].unique()), len(others["user"].unique())])
                assert neighbors_read(prepared, graph, some).to_numpy().tolist() == naive
