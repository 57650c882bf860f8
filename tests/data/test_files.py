"""Which files a log is read from, and how CSV files are read."""

import gzip
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import csv

from mgoe.data import connect, open_log, prepare
from mgoe.data.log import stage
from mgoe.data.log_files import files_of
from mgoe.data.times import read_time
from mgoe.errors import DataError
from tests.data import logs
from tests.data.test_times import microseconds
from tests.effort import SOAK

EVENTS = logs.quiet_events()
SIBLINGS = ("a", "1", "a1", "ab", "aa", "a11")
READ = ("a.csv", "b.CSV", "c.Parquet", "deep/d.PQ", "e.TSV.gz", "f=1/g.csv.ZST")
ASIDE = (
    "_SUCCESS",
    ".a.csv.crc",
    "_delta_log/0.checkpoint.parquet",
    ".ipynb_checkpoints/a.csv",
    "README.txt",
    "a.csv.md5",
    "notes.pdf",
)
OTHER = ("b.csv.bz2", "deep/d.csv.ZIP", "e.json", "part-00002")


def made(folder: Path, names: set[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@given(
    read=st.sets(st.sampled_from(READ), min_size=1),
    aside=st.sets(st.sampled_from(ASIDE)),
    other=st.sets(st.sampled_from(OTHER)),
)
def test_no_data_file_is_silently_ignored(read, aside, other):
    """A hidden folder that is named itself is read as any other."""
    with TemporaryDirectory(prefix="_") as folder:
        made(Path(folder), read | aside | other)
        if other:
            first = min(other).split("/")[-1]
            with pytest.raises(
                DataError,
                match=rf"every data file in a folder must be Parquet or CSV, found '{first}'.*; convert "
                r"them, or",
            ):
                files_of(folder, "data.log")
        else:
            assert {str(file.relative_to(folder)) for file in files_of(folder, "data.log")} == read


@given(
    names=st.sets(st.sampled_from(READ), min_size=1),
    aside=st.sets(st.sampled_from(("_delta_log/0.checkpoint.parquet", ".a/b.csv"))),
)
def test_a_pattern_for_everything_in_a_folder_equals_the_folder(names, aside):
    """Each file is read once, even if several matches contain it."""
    with TemporaryDirectory() as folder:
        made(Path(folder), names | aside)
        (Path(folder) / "empty").mkdir()
        for pattern in ["*"] if aside else ["*", "**"]:  # `**` names every file itself
            assert files_of(f"{folder}/{pattern}", "data.log") == files_of(folder, "data.log")


def test_folders_matched_by_a_pattern_are_read(tmp_path):
    for day in (1, 2):
        (tmp_path / f"dt={day}").mkdir()
        EVENTS.to_parquet(tmp_path / f"dt={day}" / "part-0.parquet")
    rows = open_log(connect(tmp_path), [tmp_path / "dt=*"])
    assert rows.count().to_pyarrow().as_py() == 2 * len(EVENTS)
    assert rows["dt"].nunique().to_pyarrow().as_py() == 2
    (tmp_path / "dt=2" / "more.json").touch()
    with pytest.raises(
        DataError,
        match=r"dt=2: every data file in a folder must be Parquet or CSV, found 'more.json'; convert them, "
        r"or",
    ):
        files_of(f"{tmp_path}/dt=*", "data.log")


@given(
    names=st.sets(st.sampled_from(READ), min_size=1),
    links=st.dictionaries(
        st.sampled_from(("z", "deep/up", "f=1/over", "there/up")),
        st.sampled_from((".", "..", "deep", "f=1", "there")),
    ),
)
def test_a_link_to_a_folder_is_followed_and_no_file_is_read_twice(names, links):
    """Links may lead anywhere, even to a folder that contains them; files of the folder itself keep their
    names."""
    with TemporaryDirectory() as outer:
        folder, there = made(Path(outer) / "log", names), made(Path(outer) / "there", {"t.csv"})
        (folder / "y").symlink_to(there)
        made(Path(outer), {"beside.csv"})
        for name, target in links.items():
            link = (there if name.startswith("there") else folder) / name.removeprefix("there/")
            link.parent.mkdir(exist_ok=True)
            link.symlink_to((there if target == "there" else folder / target).resolve())
        for path in (folder, folder / "*"):
            found = files_of(str(path), "data.log")
            assert {file.resolve() for file in found} == {(folder / name).resolve() for name in names} | {
                (there / "t.csv").resolve()
            }
            assert len(found) == len(names) + 1
        assert {folder / name for name in names} <= set(files_of(str(folder), "data.log"))


def test_a_file_that_is_named_twice_is_read_once(tmp_path, monkeypatch):
    pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "log.parquet")
    monkeypatch.chdir(tmp_path)
    for names in ([".", "log.parquet"], ["log.parquet", tmp_path / "log.parquet", "l*.parquet"]):
        assert open_log(ibis.duckdb.connect(), names).count().to_pyarrow().as_py() == 2


def test_the_case_of_a_file_ending_does_not_matter(tmp_path):
    text = EVENTS.to_csv(index=False)
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.CSV").write_text(text)
    packed = (
        "c.CSV.GZ" if duckdb.__version__ >= "2" else "c.CSV.gz"
    )  # before, DuckDB knew what is packed by small letters alone
    (tmp_path / packed).write_bytes(gzip.compress(text.encode()))
    assert open_log(connect(tmp_path), [tmp_path]).count().to_pyarrow().as_py() == 3 * len(EVENTS)


MOMENTS = st.datetimes(
    datetime(1970, 1, 2),
    datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-8))]),
)
DAYS = st.dates(date(1970, 1, 2), date(2100, 1, 1))
DAY, MONTH = "%d/%m/%Y", "%m/%d/%Y"


def read(texts: list[list[str]], ending: str = ".csv", delimiter: str = ",") -> list[int | None]:
    """Return the times of a log with one file per list, in order."""
    with TemporaryDirectory() as folder:
        for number, part in enumerate(texts):
            lines = [
                delimiter.join(["user", "at"]),
                *(delimiter.join([f"{number}{row:03}", text]) for row, text in enumerate(part)),
            ]
            written = "\n".join(lines).encode()
            file = Path(folder) / f"{number}{ending}"
            file.write_bytes(gzip.compress(written) if ending.endswith(".gz") else written)
        con = connect(Path(folder))
        rows = open_log(con, [folder])
        found = (
            rows.select("user", at=read_time(rows["at"], "at", "auto", "log"))
            .order_by("user")
            .to_pyarrow()["at"]
            .to_pylist()
        )
        con.disconnect()
    return found


@given(
    moments=st.lists(st.lists(MOMENTS, min_size=1, max_size=5), min_size=1, max_size=2),
    separator=st.sampled_from("T "),
    file=st.sampled_from([(".csv", ","), (".csv.gz", ";"), (".tsv", "\t"), (".txt", "|")]),
)
def test_an_iso_moment_is_read_from_any_csv(moments, separator, file):
    """With fractions and offsets, and with files of different forms."""
    texts = [[moment.isoformat(separator) for moment in part] for part in moments]
    assert read(texts, *file) == [microseconds(moment) for part in moments for moment in part]


@given(
    days=st.lists(DAYS, min_size=1, max_size=20), form=st.sampled_from([DAY, MONTH, "%Y-%m-%d", "%Y/%m/%d"])
)
def test_day_and_month_are_never_guessed(days, form):
    guessed = form in (DAY, MONTH)
    expected = [None if guessed else microseconds(datetime.combine(day, time())) for day in days]
    assert read([[day.strftime(form) for day in days]]) == expected


def test_a_date_that_is_not_iso_is_refused(tmp_path):
    log = EVENTS.assign(timestamp=pd.to_datetime(EVENTS.timestamp, unit="s").dt.strftime(MONTH))
    log.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(
        DataError,
        match=r"log.csv, column 'timestamp': a time must be given and readable \(.*ISO 8601.*found "
        r"'01/01/2020' in row 1",
    ):
        prepare(logs.event_settings(data={"log": str(tmp_path / "log.csv")}), tmp_path / "out")


NAMED = {
    "all text": "user,item\nu1,i1\nu2,i2\n",
    "one column": "user\n1\n2\n",
    "one column of text": "user\nu1\nu2\n",
    "names alone": "user,item\n",
    "one row": "user,item\n1,2\n",
    "one row of text": "user,item\nu1,i2\n",
    "a column without a name": ",user,item\n0,1,2\n1,1,2\n",
    "a name that is a number": "user,item,2\n1,2,3\n1,2,3\n",
    "nulls": "user,item\n,\n,3\n",
    "a comment before": "# of today\nuser,item\n1,2\n",
    "text in quotes with commas": 'user,item\n"u,1","i,1"\n"u,2","i,2"\n',
}


@pytest.mark.parametrize("case", NAMED)
def test_a_csv_with_a_header_is_read(case, tmp_path):
    (tmp_path / "log.csv").write_text(NAMED[case])
    rows = open_log(connect(tmp_path), [tmp_path / "log.csv"])
    assert rows.count().to_pyarrow().as_py() == len(NAMED[case].splitlines()) - 1 - NAMED[case].startswith(
        "#"
    )


@pytest.mark.parametrize(
    ("last", "kind"),
    [("00100", "string"), (" 0101", "string"), ("60100", "int64"), ("0", "int64"), ("-7", "int64")],
)
def test_an_id_with_leading_zeros_is_a_different_id_in_any_row(last, kind, tmp_path):
    """DuckDB guesses types from the first 20,480 rows."""
    lines = [*map(str, range(100, 30_000)), last]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *(f"{line},7" for line in lines)]))
    rows = open_log(connect(tmp_path), [tmp_path / "log.csv"], ids=("user", "item"))
    assert rows.schema() == ibis.schema({"user": kind, "item": "int64"})
    assert rows.user.nunique().to_pyarrow().as_py() == len(lines)


@settings(max_examples=20 if SOAK else 8)
@given(
    ids=st.lists(st.integers(0, 2**64 - 1), min_size=1, unique=True)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True),
    late=st.booleans(),
)
def test_an_id_of_64_bits_is_the_same_in_csv_and_parquet(ids, late):
    """Even if the largest ids come after all rows from which types are guessed."""
    written = [*(list(range(25_000)) if late else []), *ids]
    kind = pa.uint64() if max(written) >= 2**63 else pa.int64()
    assume(max(written) < 2**63 or min(written) >= 0)
    table = pa.table({"user": pa.array(written, kind), "item": pa.array([7] * len(written))})
    with TemporaryDirectory() as folder:
        found = []
        for write, name in ((csv.write_csv, "log.csv"), (pq.write_table, "log.parquet")):
            write(table, Path(folder) / name)
            con = connect(Path(folder))
            found.append(open_log(con, [Path(folder) / name], ids=("user", "item")).to_pyarrow())
            con.disconnect()
    assert found[0].equals(found[1])


@pytest.mark.parametrize(
    ("last", "kind"),
    [(str(2**64), "string"), ("1.5", "float64"), ("1e19", "float64"), (f"-1 {2**63}", "string")],
)
def test_longer_numbers_become_strings_and_fractions_floats(last, kind, tmp_path):
    ids = ["12", *last.split()]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *(f"{one},7" for one in ids)]))
    rows = open_log(connect(tmp_path), [tmp_path / "log.csv"], ids=("user", "item"))
    assert rows.schema() == ibis.schema({"user": kind, "item": "int64"})
    if kind == "string":
        assert rows.user.to_pyarrow().to_pylist() == ids


@pytest.mark.parametrize(
    "first", ["1,2,1577836800,click", "u1,i1,2020-01-01,click", "u1,i1,2020-01-01 00:00:00,1.5", "7"]
)
def test_a_csv_without_a_header_is_refused(first, tmp_path):
    """Even as one of several files, where its first event would name columns that the others lack."""
    (tmp_path / "a.csv").write_text("user\n1\n2\n")
    (tmp_path / "b.csv").write_text(f"{first}\n" * 9)
    found = first.split(",")[0]
    for paths in ([tmp_path], [tmp_path / "b.csv"]):
        with pytest.raises(
            DataError,
            match=rf"b.csv: the first line must name the columns, found '{found}'.*; write a line of names",
        ):
            open_log(connect(tmp_path), paths)


@pytest.mark.parametrize("odd", ["1,2", "1,2,3,4"])
@pytest.mark.parametrize("before", [0, 3, 30_000])
def test_a_line_with_another_number_of_columns_is_named(odd, before, tmp_path):
    """Early, where it prevents finding a delimiter, or after all rows in which one is searched."""
    text = "user,item,time\n" + "1,2,3\n" * before + odd + "\n" + "1,2,3\n" * 3
    (tmp_path / "a.csv").write_text("user,item,time\n1,2,3\n")
    (tmp_path / "b.csv").write_text(text)
    con = connect(tmp_path)
    with pytest.raises(
        DataError,
        match=rf"b.csv: every line has the columns of the first, 3, found {len(odd.split(','))} in line "
        rf"{before + 2}; fix",
    ):
        stage(con, open_log(con, [tmp_path]), {"user": "user"}, "raw", "the log")


@given(
    name=st.text("a1[]*?!-", min_size=1, max_size=5),
    deep=st.booleans(),
    kind=st.sampled_from(["csv", "parquet"]),
)
def test_a_file_name_with_wildcards_names_only_that_file(name, deep, kind):
    """Files that the name would match are stored beside it."""
    with TemporaryDirectory() as folder:
        for number, one in enumerate(dict.fromkeys([name, *SIBLINGS])):
            file = Path(folder) / (f"{one}/log.{kind}" if deep else f"{one}.{kind}")
            file.parent.mkdir(exist_ok=True)
            log = pd.DataFrame({"user": [number, number]})
            log.to_csv(file, index=False) if kind == "csv" else log.to_parquet(file)
        con = connect(Path(folder))
        named = Path(folder) / (name if deep else f"{name}.{kind}")
        assert open_log(con, [named]).to_pyarrow()["user"].to_pylist() == [0, 0]
        con.disconnect()


def test_data_are_prepared_in_a_folder_with_wildcards_in_its_name(tmp_path):
    for name in ("out1", "out[1]"):
        data = logs.prepared(EVENTS, logs.event_settings(), tmp_path / name)
    assert data.history.count().to_pyarrow().as_py() == len(EVENTS)
