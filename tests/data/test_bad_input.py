"""Every wrong log is refused in one sentence: the place, the rule, what was found and the fix. No files
are left."""

import re
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mgoe.config import RunSettings
from mgoe.data import Prepared, prepare
from mgoe.errors import ConfigError, DataError, MgoeError, OutputError
from tests.data import logs


def refusal(log: pd.DataFrame | pa.Table, settings, folder: Path, kind: str = "parquet") -> str:
    file = folder / f"log.{kind}"
    if kind == "csv":
        log.to_csv(file, index=False)
    else:
        pq.write_table(
            log if isinstance(log, pa.Table) else pa.Table.from_pandas(log, preserve_index=False), file
        )
    return refusal_of(
        settings.model_copy(update={"data": settings.data.model_copy(update={"log": [str(file)]})}), folder
    )


def refusal_of(settings, folder: Path, error: type[MgoeError] = DataError) -> str:
    with pytest.raises(error) as caught:
        prepare(settings, folder / "out")
    message = str(caught.value)
    assert "\n" not in message
    assert not list(folder.glob("*out*")), "something is left behind"
    return message


def change(log: pd.DataFrame, column: str, values) -> pd.DataFrame:
    """Return a log with other values in its first rows."""
    log = log.copy()
    changed = log[column].astype(object)
    changed.iloc[2 : 2 + len(values)] = values
    log[column] = changed.infer_objects()
    return log


EVENTS = logs.quiet_events()
SHOWN = logs.quiet_exposures()
SHOWN["weight"] = 1.0
SHOWN["place"] = 1
SHOWN["random"] = 0
SHOWN["price"] = 2.5
SHOWN["spent"] = SHOWN.clicked * 3.5
RUN = logs.event_settings()
RUN_SHOWN = logs.exposure_settings(
    data={
        "weight": "weight",
        "position": "place",
        "uniform": "random",
        "context": [{"name": "price", "kind": "numeric"}],
    }
)
RUN_SPENT = logs.exposure_settings(tasks=[{"name": "spend", "label": "spent", "kind": "regression"}])

ROWS = {
    "misspelt column": (
        EVENTS.rename(columns={"user_id": "userid"}),
        RUN,
        r"column 'user_id' \(data.user\) is missing; did you mean 'userid'\?; set data.user",
    ),
    "missing column": (
        EVENTS[["user_id", "item_id", "timestamp"]],
        RUN,
        r"column 'behavior' \(data.behavior\) is missing; ",
    ),
    "missing label": (
        SHOWN.drop(columns="clicked"),
        RUN_SHOWN,
        r"column 'clicked' \(tasks.click.label\) is missing; ",
    ),
    "missing weight": (
        SHOWN.drop(columns="weight"),
        RUN_SHOWN,
        r"column 'weight' \(data.weight\) is missing",
    ),
    "missing mark of random rows": (
        SHOWN.drop(columns="random"),
        RUN_SHOWN,
        r"column 'random' \(data.uniform\) is missing",
    ),
    "mark of random rows that is none": (
        change(SHOWN, "random", [2]),
        RUN_SHOWN,
        r"column 'random': a mark of random rows must be 0, 1 or null \(not random\), found '2' in row 3; "
        r"fix the column or drop `data.uniform`",
    ),
    "missing context": (
        SHOWN.drop(columns="price"),
        RUN_SHOWN,
        r"column 'price' \(data.context\) is missing",
    ),
    "null user": (
        change(EVENTS, "user_id", [None, None]),
        RUN,
        r"log.parquet, column 'user_id': an id must not be null, found null in row 3 and 1 more; leave such "
        r"rows out",
    ),
    "null item": (
        change(EVENTS, "item_id", [None]),
        RUN,
        r"column 'item_id': an id must not be null, found null in row 3; ",
    ),
    "broken id": (
        change(EVENTS, "item_id", [1.5]),
        RUN,
        r"column 'item_id': an id stored as a float must be a whole number below 2\^53, found '1.5' in row "
        r"3; write ids as",
    ),
    "infinite id": (
        change(EVENTS, "item_id", [np.inf]),
        RUN,
        r"an id stored as a float must be a whole number below 2\^53, found 'inf' in row 3",
    ),
    "broken decimal id": (
        EVENTS.assign(item_id=[Decimal("7.50"), *[Decimal("7.00")] * 23]),
        RUN,
        r"column 'item_id': an id stored as a decimal must be a whole number, found '7.50' in row 1; write "
        r"ids as integers or strings",
    ),
    "id of no type": (
        EVENTS.assign(user_id=True),
        RUN,
        r"column 'user_id': an id must be an integer or a string, found the type boolean; convert it",
    ),
    "time of no type": (
        EVENTS.assign(timestamp=True),
        RUN,
        r"column 'timestamp': a time must be a date, a timestamp, .* found the type boolean",
    ),
    "time no parser reads": (
        change(
            EVENTS.assign(timestamp=pd.to_datetime(EVENTS.timestamp, unit="s").astype(str)),
            "timestamp",
            ["soon"],
        ),
        RUN,
        r"column 'timestamp': a time must be given and readable .*, found 'soon' in row 3; fix or leave out",
    ),
    "missing time": (
        change(EVENTS, "timestamp", [None, None, None]),
        RUN,
        r"column 'timestamp': a time must be given .*, found null in row 3 and 2 more",
    ),
    "time that is not a number": (
        change(EVENTS, "timestamp", [np.nan]),
        RUN,
        r"a time must be given .* row 3",
    ),
    "time that no graph holds": (
        change(EVENTS.assign(timestamp=EVENTS.timestamp * 10**6), "timestamp", [-(2**58) - 1]),
        logs.event_settings(data={"time_unit": "us", "bucket": "1d"}),
        r"column 'timestamp': a time must be given and readable .*, within 9,000 years of 1970, found "
        r"'-288230376151711745' in row 3",
    ),
    "label known when no graph holds it": (
        SHOWN.assign(timestamp=SHOWN.timestamp * 10**6, known=2**58 + 1),
        logs.exposure_settings(
            tasks=[{"name": "click", "label": "clicked", "known_at": "known"}], data={"time_unit": "us"}
        ),
        r"column 'known': a label above 0 of task click must be known within 9,000 years of 1970, .*, found "
        r"'288230376151711745' in row",
    ),
    "days as numbers": (
        EVENTS.assign(timestamp=20200101 + EVENTS.index % 12),
        RUN,
        r"found 20200101 to 20200112, of which most look like dates written YYYYMMDD; write them as dates, "
        r"or set data.time_unit if",
    ),
    "seconds of dates as numbers": (
        EVENTS.assign(timestamp=[0, *(20200101083000 + EVENTS.index[1:])]),
        RUN,
        r"found 0 to 20200101083023, of which most look like dates written YYYYMMDDhhmmss; write them",
    ),
    "minutes of dates as numbers": (
        EVENTS.assign(timestamp=202001010830),
        RUN,
        r"dates written YYYYMMDDhhmm;",
    ),
    "time of another unit": (
        change(EVENTS, "timestamp", [253402300799]),
        RUN,
        r"column 'timestamp': numeric times must be of one unit, found 253402300799, which would be ms, "
        r"where most are s; fix or leave",
    ),
    "no rows": (EVENTS[:0], RUN, r"the log must hold rows, found none; give a log with rows"),
    "behaviour of no type": (
        EVENTS.assign(behavior=1.5),
        RUN,
        r"column 'behavior': a behaviour must be a string or an integer, found the type float64",
    ),
    "task never happens": (
        EVENTS.replace({"behavior": {"buy": "buys"}}),
        RUN,
        r"every task must happen: found none of 'buy' in column 'behavior'; did you mean 'buys'\?; fix "
        r"tasks.buy",
    ),
    "one user": (
        EVENTS.assign(user_id=7),
        RUN,
        r"column 'user_id': at least two users are needed to rank, found only 7; is data.user the right "
        r"column\?",
    ),
    "one item": (
        EVENTS.assign(item_id="a"),
        RUN,
        r"column 'item_id': at least two items are needed to rank, found only 'a'; is data.item",
    ),
    "label never": (
        SHOWN.assign(clicked=0),
        RUN_SHOWN,
        r"column 'clicked': a task must happen in some rows and not in others, click never happens: found 0 "
        r"in all 36 rows",
    ),
    "label always": (
        SHOWN.assign(clicked=True),
        RUN_SHOWN,
        r"click always happens: found 1 in all 36 rows with a label; leave it out or fix the column",
    ),
    "label all missing": (
        SHOWN.assign(clicked=pd.Series([None] * 36, dtype=float)),
        RUN_SHOWN,
        r"column 'clicked': task click needs labels, found every row null",
    ),
    "label of nulls alone": (
        SHOWN.assign(clicked=None),
        RUN_SHOWN,
        r"column 'clicked': task click needs labels, found every row null",
    ),
    "amount never varies": (SHOWN.assign(spent=2.0), RUN_SPENT, r"spend never varies: found 2 in all 36"),
    "label of no type": (
        SHOWN.assign(clicked="yes"),
        RUN_SHOWN,
        r"column 'clicked': a label must be a number or a boolean, found the type string",
    ),
    "label no 0 nor 1": (
        change(SHOWN, "clicked", [2, 3]),
        RUN_SHOWN,
        r"column 'clicked': a binary label must be 0, 1 or null \(missing\), found '2.0' in row 3 and 1 "
        r"more; map",
    ),
    "negative label": (
        change(SHOWN, "clicked", [-1]),
        RUN_SHOWN,
        r"a binary label must be 0, 1 or null \(missing\), found '-1.0' in row 3; ",
    ),
    "negative amount": (
        change(SHOWN, "spent", [-0.5]),
        RUN_SPENT,
        r"column 'spent': a regression label must be finite and at least 0, or null \(missing\), found "
        r"'-0.5' in row 3",
    ),
    "infinite amount": (
        change(SHOWN, "spent", [np.inf]),
        RUN_SPENT,
        r"a regression label must be finite .* found 'inf' in row 3",
    ),
    "negative weight": (
        change(SHOWN, "weight", [-1.0, -2.0]),
        RUN_SHOWN,
        r"column 'weight': a weight must be finite and at least 0, found '-1.0' in row 3 and 1 more",
    ),
    "missing weight value": (
        change(SHOWN, "weight", [None]),
        RUN_SHOWN,
        r"a weight must be finite and at least 0, found null in row 3",
    ),
    "weight of no type": (
        SHOWN.assign(weight="heavy"),
        RUN_SHOWN,
        r"a weight must be a number, found the type string",
    ),
    "infinite feature": (
        change(SHOWN, "price", [np.inf]),
        RUN_SHOWN,
        r"column 'price': a numeric feature must be finite .*, found 'inf' in row 3; fix the column",
    ),
    "feature of no type": (
        SHOWN.assign(price="dear"),
        RUN_SHOWN,
        r"column 'price': a numeric feature must be a number, found the type string",
    ),
    "negative position": (
        change(SHOWN, "place", [-1]),
        RUN_SHOWN,
        r"column 'place': a position must be a whole number, at least 0 and below 100,000, or null "
        r"\(unknown\), found '-1' in row 3",
    ),
    "broken position": (
        change(SHOWN, "place", [1.5]),
        RUN_SHOWN,
        r"a position must be a whole number, .* found '1.5'",
    ),
    "huge position": (
        change(SHOWN, "place", [1e300]),
        RUN_SHOWN,
        r"a position must be a whole number, .* found '1e\+?300'",
    ),
    "position for an unknown place": (
        change(SHOWN, "place", [100_000, 999_999_999]),
        RUN_SHOWN,
        r"column 'place': a position must be .* below 100,000, .* found '100000' in row 3 and 1 more; fix "
        r"the column or drop `data.position`",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_wrong_log_is_refused_in_one_sentence(case, tmp_path):
    log, settings, message = ROWS[case]
    found = refusal(log, settings, tmp_path)
    assert found.startswith(str(tmp_path / "log.parquet"))
    assert re.search(message, found), found


def test_nan_is_not_a_missing_label_or_weight(tmp_path):
    for column in ("clicked", "weight"):
        values = pa.array([float("nan"), *[1.0] * 35])  # a true NaN, which pandas would write as null
        table = pa.Table.from_pandas(SHOWN, preserve_index=False)
        table = table.set_column(table.column_names.index(column), column, values)
        assert "found 'nan' in row 1; " in refusal(table, RUN_SHOWN, tmp_path)


def test_a_label_needs_a_known_time_not_before_its_exposure(tmp_path):
    tasks = [{"name": "click", "label": "clicked", "known_at": "known"}]
    run = logs.exposure_settings(tasks=tasks)
    for shift, found in (
        (-1, f"found '{logs.START - 1}' in row 1 and 23 more"),
        (np.nan, "found null in row 1 and 23 more"),
    ):
        known = (SHOWN.timestamp + shift).where(SHOWN.clicked > 0, SHOWN.timestamp).astype("Int64")
        message = refusal(SHOWN.assign(known=known), run, tmp_path)
        assert (
            "a label above 0 of task click must be known within 9,000 years of 1970, and not before its "
            "exposure" in message
        )
        assert found in message


def test_csv_rows_that_break_a_columns_type_are_named(tmp_path):
    text = EVENTS.to_csv(index=False).splitlines()
    long = [text[0], *(text[1:] * 1500), "oops,0,1577836800,click"]
    (tmp_path / "long.csv").write_text("\n".join(long) + "\n")
    message = refusal_of(logs.event_settings(data={"log": str(tmp_path / "long.csv")}), tmp_path)
    assert (
        f"column 'user_id': the values before are BIGINT, found 'oops' in line {len(long)}; fix that row"
        in message
    )


def test_files_that_are_missing_empty_or_damaged(tmp_path):
    whole = tmp_path / "whole.parquet"
    EVENTS.to_parquet(whole)
    bytes_ = whole.read_bytes()
    (tmp_path / "short.parquet").write_bytes(bytes_[: len(bytes_) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "other.parquet").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "rotten.parquet").write_bytes(bytes_[:4] + bytes(len(bytes_) - 12) + bytes_[-8:])
    (tmp_path / "log.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.md").write_text("nothing here")
    (tmp_path / "some.csv").write_text("user_id,item_id\n")
    (tmp_path / ".wholes.parquet").touch()  # being written, so no name to propose
    wrong = {
        "short.parquet": "short.parquet: cannot be read: the Parquet file is truncated, damaged or of "
        "another format (Parquet magic bytes not found",
        "empty.parquet": r"empty.parquet: the file is empty (0 bytes); write it again or leave it out",
        "empty.csv": "empty.csv: the file is empty (0 bytes)",
        "other.parquet": "other.parquet: cannot be read: the Parquet file is truncated, damaged or of "
        "another format",
        "rotten.parquet": "rotten.parquet: cannot be read: ",
        "log.json": "a log file ends in .parquet, .csv, .tsv, .txt or .csv.gz, found '.json'; rename or "
        "convert it",
        "folder": "a folder must hold Parquet or CSV files (.parquet, .csv, .tsv, .csv.gz), found none; "
        "name another folder",
        "wholes.parquet": "no such file or folder; did you mean 'whole.parquet'?; relative paths are looked "
        "up from",
        "nowhere/log.parquet": "no such file or folder; relative paths are looked up from",
        "*.feather": "the pattern matches no file; relative ones are looked up from",
        "*o*.*": "a log is all Parquet or all CSV, found both",
    }
    for name, message in wrong.items():
        if name == "*o*.*":
            (tmp_path / "log.json").unlink()
        found = refusal_of(logs.event_settings(data={"log": str(tmp_path / name)}), tmp_path)
        assert name.split("/")[-1] in found or name == "*o*.*"
        assert message in found, found


def test_a_split_with_an_empty_part_is_refused(tmp_path):
    late = logs.event_settings(split={"cuts": ["2020-01-04", "2020-01-07", "2021-01-01"]})
    assert "split.cuts: every part needs positives, found none in test" in refusal(EVENTS, late, tmp_path)
    many = logs.event_settings(split={"cuts": [k / 40 for k in range(20, 40)]})
    assert "split.cuts: every window needs a bucket of its own" in refusal(EVENTS, many, tmp_path)


def test_buckets_without_negatives_are_refused_and_few_negatives_are_reported(tmp_path):
    alone = logs.events([(day % 3, day % 2, day, "click" if day % 2 else "buy") for day in range(logs.DAYS)])
    assert "data.bucket: a negative is an item that another user did in the same bucket" in refusal(
        alone, logs.event_settings(), tmp_path
    )
    some = pd.concat([alone, logs.events([(3, 3, 4, "click")])])
    (found,) = [
        line
        for line in logs.prepared(some, logs.event_settings(), tmp_path / "few").summary["warnings"]
        if "negatives" in line
    ]
    assert found.startswith("only 0.")
    assert "of 3 wanted" in found


def test_rows_outside_start_and_end_are_left_out(tmp_path):
    settings = logs.event_settings(data={"start": "2021-01-01"})
    found = refusal(EVENTS, settings, tmp_path)
    assert "some rows must be between data.start and data.end, found none of 24 from 2021-01-01" in found
    second = logs.event_settings(data={"bucket": "1s", "time_unit": "s"})
    assert "bucket numbers must fit 32 bits, found 15787908010" in refusal(
        EVENTS.assign(timestamp=EVENTS.timestamp * 10), second, tmp_path
    )


def test_repeated_rows_are_dropped_or_refused(tmp_path):
    twice = pd.concat([EVENTS, EVENTS[:3]])
    data = logs.prepared(twice, logs.event_settings(), tmp_path / "twice")
    assert data.summary["dropped_rows"] == {"outside_time": 0, "duplicates": 3, "missing_ids": 0}
    assert len(data.history.to_pandas()) == len(EVENTS)
    found = refusal(twice, logs.event_settings(data={"duplicates": "refuse"}), tmp_path / "twice" / "..")
    assert (
        "no row may repeat every column, found 3 repeats, the first of user 0, item 0; remove them or set "
        "data.duplicates: drop" in found
    )


def test_settings_of_the_other_form_are_refused(tmp_path):
    settings = logs.event_settings(data={"log": "x.parquet", "weight": "w"})
    with pytest.raises(ConfigError, match=r"data.weight: belongs to an exposure log, found an event log"):
        logs.prepared(EVENTS, settings, tmp_path / "out")
    for late in ({"known_at": "known"}, {"delay": "1d"}):
        settings = logs.event_settings(tasks=["click", {"name": "buy"} | late])
        with pytest.raises(
            ConfigError,
            match=rf"tasks.buy.{next(iter(late))}: belongs to an exposure log, found an event log",
        ):
            logs.prepared(EVENTS, settings, tmp_path / "out")
    settings = logs.exposure_settings(tasks=[{"name": "click", "label": "clicked", "behaviors": ["click"]}])
    with pytest.raises(
        ConfigError, match=r"tasks.click.behaviors: belongs to an event log, found an exposure log"
    ):
        logs.prepared(SHOWN, settings, tmp_path / "out")
    settings = logs.exposure_settings(data={"context": [{"name": "hour"}, {"name": "hour"}]})
    with pytest.raises(
        ConfigError, match=r"data.context: each feature needs a name of its own, .* found 'hour'"
    ):
        logs.prepared(SHOWN, settings, tmp_path / "out")


def test_settings_of_negatives_are_refused_for_an_exposure_log(tmp_path):
    for key, value in {"ratio": 9, "distribution": "uniform", "seed": 1}.items():
        rule = rf"negatives\.{key}: belongs to an event log, found an exposure log"
        with pytest.raises(ConfigError, match=rule):
            logs.prepared(SHOWN, logs.exposure_settings(negatives={key: value}), tmp_path / "out")
    allowed = logs.exposure_settings(negatives={"ratio": 3, "training_seed": 5})
    logs.prepared(SHOWN, allowed, tmp_path / "out")


@pytest.mark.parametrize(("delay", "first"), [("4d", "2020-01-05"), ("99999w", "3936-07-08")])
def test_a_first_snapshot_without_known_labels_is_refused(delay, first, tmp_path):
    run = logs.exposure_settings(tasks=[{"name": "click", "label": "clicked", "delay": delay}])
    found = refusal(SHOWN, run, tmp_path)
    assert (
        f"needs labels that are known before the cut 2020-01-04, found the first one known in {first}; move "
        "the first cut" in found
    )
    ended = run.model_copy(update={"data": run.data.model_copy(update={"end": datetime(2020, 1, 4)})})
    assert "found none" in refusal(SHOWN, ended, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("graph.seed", 2**31, "less than 2147483648"),
        ("negatives.seed", 2**63, "less than 2147483648"),
        ("negatives.training_seed", 2**63, "less than 2147483648"),
        (
            "data.bucket",
            "99999999999w",
            r"must be a whole number .* s, m, h, d or w .*, found '99999999999w'; write it as in 1d",
        ),
        ("data.bucket", "0d", r"must be longer than 0 .*, found '0d'; write it as in 1d"),
        ("data.bucket", "07d", r"must .* not begin with 0, found '07d'; write it as in 1d"),
        ("tasks.1.delay", "1000000d", r"must be a whole number of at most six digits .*, found '1000000d'"),
        ("tasks.1.delay", "100000w", r"must be .* \(of weeks, five digits\), found '100000w'"),
        ("training.checkpoint", "soon", r"must be a whole number .*, found 'soon'"),
    ],
)
def test_a_number_beyond_every_engine_is_refused(key, value, rule):
    part, *_, name = key.split(".")
    changed = (
        [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought", name: value}]
        if part == "tasks"
        else {name: value}
    )
    with pytest.raises(ConfigError, match=rf"{key}: .*{rule}"):
        logs.exposure_settings(**{part: changed})


def test_a_sample_space_needs_a_binary_task():
    tasks = [
        {"name": "stay", "label": "stay", "kind": "regression"},
        {"name": "buy", "label": "bought", "given": "stay"},
    ]
    with pytest.raises(
        ConfigError,
        match=r"tasks.buy.given must name a binary task, found 'stay', a regression; leave it out",
    ):
        logs.exposure_settings(tasks=tasks)


def test_a_full_disk_is_reported_without_a_traceback(tmp_path, monkeypatch):
    def full(*_):
        raise duckdb.IOException("IO Error: Could not write\nNo space left on device")

    monkeypatch.setattr(sys.modules["mgoe.data.prepare"], "_build", full)
    with pytest.raises(
        OutputError,
        match="out: cannot be written: IO Error: Could not write No space left on device; free space",
    ):
        logs.prepared(EVENTS, RUN, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_incomplete_prepared_folders_are_refused(tmp_path):
    data = logs.prepared(EVENTS, RUN, tmp_path / "out")
    with pytest.raises(OutputError, match="written to a new folder, found one that exists"):
        logs.prepared(EVENTS, RUN, tmp_path / "out")
    assert Prepared.open(tmp_path / "out").summary == data.summary
    file = tmp_path / "out" / "train.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(
        DataError, match=r"train.parquet: must hold \d+ bytes, found \d+ bytes; make the prepared data again"
    ):
        Prepared.open(tmp_path / "out")
    file.unlink()
    with pytest.raises(DataError, match="it is missing"):
        Prepared.open(tmp_path / "out")
    moved, pointer = tmp_path / "moved.parquet", file.with_name("train.parquet.url")
    pointer.write_text(moved.as_uri())
    with pytest.raises(DataError, match=r"^file:.*moved.parquet: must hold \d+ bytes, it is missing"):
        Prepared.open(tmp_path / "out")
    moved.write_bytes(whole)
    assert (Prepared.open(tmp_path / "out").examples("train").user == pq.read_table(moved)["user"]).all()
    (tmp_path / "out" / "data.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="this version reads data format 1, found 99"):
        Prepared.open(tmp_path / "out")
    (tmp_path / "out" / "data.json").write_text('{"for')
    with pytest.raises(DataError, match="cannot be read"):
        Prepared.open(tmp_path / "out")
    with pytest.raises(DataError, match=r"prepared data hold a data.json, found none"):
        Prepared.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        logs.prepared(EVENTS, RUN, tmp_path / "file" / "out")


def timed(**data) -> RunSettings:
    return logs.event_settings(data={"history": "moment"} | data)


HISTORY = {
    "dates": (
        EVENTS.assign(timestamp=EVENTS.timestamp // logs.DAY * logs.DAY),
        timed(),
        r"log.parquet, column 'timestamp': data.history: moment needs times that are finer than buckets, "
        r"found that most rows are in buckets of 1d with a single time; set data.history: bucket",
    ),
    "hours in buckets of an hour": (
        EVENTS.assign(timestamp=EVENTS.timestamp // 3600 * 3600),
        timed(bucket="1h"),
        r"most rows are in buckets of 1h with a single time",
    ),
    "a lag longer than the log": (
        EVENTS,
        timed(lag="12d"),
        r"log.parquet, data.lag: a lag must be shorter than the log, found 12d and a log of 265.0 hours; ",
    ),
}


@pytest.mark.parametrize("case", HISTORY)
def test_moments_that_a_log_does_not_have_are_refused(case, tmp_path):
    assert re.search(HISTORY[case][2], refusal(*HISTORY[case][:2], tmp_path))


def test_dates_are_read_up_to_their_bucket_and_long_lags_that_the_log_has_are_taken(tmp_path):
    prepared = logs.prepared(HISTORY["dates"][0], timed(history="bucket", lag="11d"), tmp_path / "out")
    assert prepared.examples("test").moment is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"lag": "1h"}},
            r"`lag` is for `history: bucket` or `moment`, found 1h with `history: cut`; leave it out",
        ),
        (
            {"data": {"history": "moment"}, "negatives": {"distribution": "uniform"}},
            r"negatives.distribution: where rows read up to their moment \(data.history: moment\), negatives "
            r"are what others did next, found uniform; leave it out, or set data.history: bucket",
        ),
    ],
)
def test_settings_that_contradict_what_rows_read_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        logs.event_settings(**changes)
    assert "\n" not in str(caught.value)
