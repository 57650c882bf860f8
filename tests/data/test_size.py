"""How large a log is, against counting it in pandas and against the log as it is prepared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mgoe.config import RunSettings, make_settings
from mgoe.data import size as module
from mgoe.data.log import NO_ROWS
from mgoe.data.size import LogSize
from mgoe.errors import DataError

CUTS = {"split": {"cuts": [0.4, 0.6, 0.8]}}


def of_form(world: Path, form: str, **more: object) -> RunSettings:
    tasks = ["cart", "buy"]
    labels = [{"name": task, "label": task} for task in tasks]
    raw = {"data": {"log": str(world / form)}, "tasks": labels if form == "exposures" else tasks}
    return make_settings(raw | CUTS | more)


def naive(settings: RunSettings) -> pd.DataFrame:
    """The rows of a log, with whether a task is done and the bucket, a day."""
    rows = pd.read_parquet(settings.data.log[0])
    names = list(settings.task_names)
    done = rows[names].gt(0).any(axis=1) if settings.form == "exposures" else rows.behavior.isin(names)
    return rows.assign(done=done, bucket=rows.timestamp.astype("datetime64[s]").astype("int64") // 86_400)


@pytest.mark.parametrize("form", ["events", "exposures"])
def test_sizes_are_those_of_counting(world: Path, form: str):
    settings = of_form(world, form)
    rows, found = naive(settings), LogSize.of(settings)
    done = rows[rows.done]
    numbered = done if form == "events" else rows
    assert (found.users, found.items) == (numbered.user_id.nunique(), numbered.item_id.nunique())
    assert found.pairs == len(done[["user_id", "item_id"]].drop_duplicates())
    buckets = np.unique(rows.bucket)
    assert found.buckets.tolist() == buckets.tolist()
    positives = done[["bucket", "user_id", "item_id"]].drop_duplicates() if form == "events" else done
    for values, of in ((found.counts, rows), (found.happened, done), (found.positives, positives)):
        assert values.tolist() == of.bucket.value_counts().reindex(buckets, fill_value=0).tolist()


def test_windows_are_those_that_are_prepared(world: Path, tmp_path: Path):
    from mgoe.data import prepare

    for form in ("events", "exposures"):
        settings = of_form(world, form, training={"rows": 3000})
        known, examples = LogSize.of(settings).windows(settings)
        prepared = prepare(settings, tmp_path / form)
        counts = prepared.summary["splits"]
        assert list(examples) == list(counts)
        for split, there in counts.items():
            drawn = there["positives"] * (4 if form == "events" else 0) or there["examples"]
            assert examples[split] == drawn, (form, split)
        events = prepared.history.execute()
        held = [np.mean(events.snapshot <= number) for number in range(len(prepared.cuts) + 1)]
        np.testing.assert_allclose(known, held, atol=0.02)  # a row that does two tasks is in history twice


def test_large_logs_are_estimated(world: Path, monkeypatch: pytest.MonkeyPatch):
    settings = of_form(world, "events")
    exact = LogSize.of(settings)
    monkeypatch.setattr(module, "EXACT", 0)
    found = LogSize.of(settings)
    assert found.counts.tolist() == exact.counts.tolist()
    for name in ("users", "items", "pairs"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.15)


def test_a_log_without_a_task_has_no_size(world: Path):
    settings = make_settings(
        {"data": {"log": str(world / "events"), "end": "1990-01-01"}, "tasks": ["click"]}
    )
    with pytest.raises(DataError, match="some row must do a task, found none"):
        LogSize.of(settings)


def test_a_log_without_rows_has_no_size_as_it_has_no_run(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,item_id,behavior,timestamp\n")
    settings = make_settings({"data": {"log": str(tmp_path / "log.csv")}, "tasks": ["click"]})
    with pytest.raises(DataError, match=NO_ROWS):
        LogSize.of(settings)
