"""For every log: later events change nothing earlier, and no example reads an event of its own bucket."""

import uuid
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from mgoe.data import SPLITS, prepare
from tests.data import logs
from tests.effort import SOAK

few = settings(max_examples=6 if SOAK else 3)
FORMS = {
    "events": (logs.event_settings(), logs.quiet_events, logs.events, logs.event_rows),
    "events up to their moment": (
        logs.event_settings(data={"history": "moment", "lag": "30m"}),
        logs.quiet_events,
        logs.events,
        logs.event_rows,
    ),
    "exposures": (
        logs.exposure_settings(
            data={"context": [{"name": "hour"}]},
            split={"cuts": [*logs.CUTS, "2020-01-12"], "test_windows": 2},
        ),
        logs.quiet_exposures,
        logs.exposures,
        logs.exposure_rows,
    ),
}
EPOCH_DAY = logs.START // logs.DAY


@pytest.mark.parametrize("form", FORMS)
@few
@given(data=st.data(), day=st.integers(4, logs.DAYS - 1))
def test_later_events_change_nothing_earlier(form, data, day):
    run, quiet, build, rows = FORMS[form]
    before = pd.concat([quiet(), build(data.draw(rows(most=20)))])
    before[["user_id", "item_id"]] += 2  # so that who comes later may have a smaller id
    later = build(data.draw(rows(first=day, most=20)))
    one, other = logs.prepared_twice(before, pd.concat([before, later]), run)
    upto = EPOCH_DAY + day
    assert (one["cuts"] == other["cuts"]).all()
    known = int((one["cuts"] < upto).sum())
    for nodes in ("users", "items"):
        size = one[f"{nodes}_at"][:known]
        assert (size == other[f"{nodes}_at"][:known]).all()
        assert one[nodes][: size[-1]] == other[nodes][: size[-1]]
    for table in ("history", "examples"):
        old, new = ({"of": c[table][c[table].bucket < upto].reset_index(drop=True)} for c in (one, other))
        assert_frame_equal(old["of"], new["of"])


@pytest.mark.parametrize("form", FORMS)
@few
@given(data=st.data(), seed=st.integers(0, 99))
def test_the_order_of_the_log_changes_nothing(form, data, seed):
    run, quiet, build, rows = FORMS[form]
    log = pd.concat([quiet(), build(data.draw(rows()))])
    with TemporaryDirectory() as folder:
        one = logs.prepared(log, run, Path(folder) / "one").path
        other = logs.prepared(log.sample(frac=1, random_state=seed), run, Path(folder) / "other").path
        files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
        assert files == sorted(file.relative_to(other) for file in other.rglob("*") if file.is_file())
        assert [file for file in files if (one / file).read_bytes() != (other / file).read_bytes()] == []


@pytest.mark.parametrize("form", FORMS)
@few
@given(data=st.data(), bucket=st.sampled_from(["12h", "1d"]))
def test_no_example_reads_an_event_of_its_own_bucket(form, data, bucket):
    run, quiet, build, rows = FORMS[form]
    run = run.model_copy(update={"data": run.data.model_copy(update={"bucket": bucket})})
    with TemporaryDirectory() as folder:
        prepared = logs.prepared(pd.concat([quiet(), build(data.draw(rows()))]), run, Path(folder) / "out")
        history = prepared.history.to_pandas()
        last = {
            k: history.bucket[history.snapshot <= k].max() for k in range(len(prepared.cuts))
        }  # latest bucket in snapshot k
        for split in SPLITS:
            examples = prepared.examples(split)
            assert (prepared.cuts[examples.snapshot] < examples.bucket).all()
            assert (np.array([last[k] for k in examples.snapshot]) < examples.bucket).all()
        assert (history.snapshot == np.searchsorted(prepared.cuts, history.bucket)).all()
        for nodes, at in (("user", prepared.users_at), ("item", prepared.items_at)):
            assert (history[nodes] < at[history.snapshot]).all()


@few
@given(rows=logs.exposure_rows())
def test_a_label_becomes_history_when_it_is_known(rows):
    log = pd.concat([logs.quiet_exposures(), logs.exposures(rows)])
    log["known"] = log.timestamp + 5 * logs.DAY
    tasks = [
        {"name": "click", "label": "clicked", "delay": "36h"},
        {"name": "buy", "label": "bought", "known_at": "known"},
    ]
    with TemporaryDirectory() as folder:
        history = logs.prepared(
            log, logs.exposure_settings(tasks=tasks), Path(folder) / "out"
        ).history.to_pandas()
    kept = log.drop_duplicates()
    for task, label, delay in ((0, "clicked", 36 * 3600), (1, "bought", 5 * logs.DAY)):
        known = np.sort(kept.timestamp[kept[label] > 0].to_numpy() + delay)
        assert (np.sort(history.time[history.task == task].to_numpy()) == known * 1_000_000).all()
    assert (history.bucket == history.time // (logs.DAY * 1_000_000)).all()


def test_the_same_log_from_files_and_from_a_table(tmp_path):
    log = logs.quiet_events()
    (tmp_path / "log").mkdir()
    log[:10].to_parquet(tmp_path / "log" / "b.parquet")
    log[10:].to_parquet(tmp_path / "log" / "a.parquet")
    log.to_csv(tmp_path / "log.csv.gz", index=False)
    log.to_csv(tmp_path / "log.tsv", index=False, sep="\t")
    table = logs.contents(logs.prepared(log, logs.event_settings(), tmp_path / "table"))
    folder = tmp_path / "log"
    paths = [folder, folder / "*.parquet", tmp_path / "log.csv.gz", tmp_path / "log.tsv"]
    elsewhere = ibis.duckdb.connect().read_parquet(str(folder / "*.parquet"))
    polars = ibis.polars.connect({"log": pl.from_pandas(log)}).table("log")
    sources = [({"log": str(path)}, None) for path in paths] + [({}, elsewhere), ({}, polars)]
    sources.append(({"log": [str(file) for file in folder.iterdir()]}, None))
    for k, (data, source) in enumerate(sources):
        files = logs.contents(prepare(logs.event_settings(data=data), tmp_path / f"files{k}", source))
        for name in ("history", "examples"):
            assert_frame_equal(table[name], files[name])
        assert table["users"] == files["users"]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["ß", "", "日本 9", "x" * 300], "string"),
        ([2**53 + 1, 2**53, -(2**63), 2**63 - 1], "int64"),
        (np.array([2**64 - 1, 2**63, 0, 7], np.uint64), "uint64"),
        (np.array([9, 5, 3, 1], np.int8), "int64"),
        ([4.0, 2.0, 1e15, -7.0], "int64"),
        ([uuid.UUID(int=k) for k in range(4)], "string"),
        (list(pd.date_range("2020-01-01", periods=4).date), "string"),
        ([Decimal(2**70), Decimal(2**70 + 1), Decimal(3), Decimal(4)], "string"),
        (pd.Categorical(["b", "a", "d", "c"]), "string"),
    ],
)
def test_ids_of_any_type_are_kept(ids, kind, tmp_path):
    log = logs.events(
        [(k, 3 - k, day, ["click", "buy"][k % 2]) for day in range(logs.DAYS) for k in range(4)]
    )
    log["user_id"] = (
        pd.Series(ids).take(log.user_id).to_numpy()
        if not isinstance(ids, list)
        else [ids[k] for k in log.user_id]
    )
    if isinstance(ids, list) and isinstance(ids[0], uuid.UUID):
        log["user_id"] = log.user_id.astype(str)
    log.to_parquet(tmp_path / "log.parquet")
    data = prepare(logs.event_settings(data={"log": str(tmp_path / "log.parquet")}), tmp_path / "out")
    assert data.users.type == kind
    assert sorted(data.users.indices(log.user_id[:4])) == [0, 1, 2, 3]
    assert {str(x) for x in data.users.ids([0, 1, 2, 3]).to_pylist()} == {
        str(int(x) if isinstance(x, float) else x) for x in ids
    }
