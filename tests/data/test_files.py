"""Which files a log is read from, and how CSV files are read."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.data import connect, open_log
from mgoe.data.log import files_of
from mgoe.errors import DataError
from tests.data import logs

EVENTS = logs.quiet_events()
READ = ("a.csv", "b.CSV", "c.Parquet", "deep/d.PQ", "e.TSV.gz", "f=1/g.csv.ZST")
ASIDE = ("_SUCCESS", ".a.csv.crc", "_delta_log/0.checkpoint.parquet", ".ipynb_checkpoints/a.csv", "README.txt", "a.csv.md5", "notes.pdf")
OTHER = ("b.csv.bz2", "deep/d.csv.ZIP", "e.json", "part-00002")


def made(folder: Path, names: set[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@given(read=st.sets(st.sampled_from(READ), min_size=1), aside=st.sets(st.sampled_from(ASIDE)), other=st.sets(st.sampled_from(OTHER)))
def test_no_file_of_data_is_left_out_in_silence(read, aside, other):
    """A folder that is itself hidden is read as any."""
    with TemporaryDirectory(prefix="_") as folder:
        made(Path(folder), read | aside | other)
        if other:
            first = min(other).split("/")[-1]
            with pytest.raises(
                DataError, match=rf"every data file in a folder must be Parquet or CSV, found '{first}'.*; convert them, or"
            ):
                files_of(folder, "data.log")
        else:
            assert {str(file.relative_to(folder)) for file in files_of(folder, "data.log")} == read


def test_files_are_read_whatever_the_case_of_their_endings(tmp_path):
    text = EVENTS.to_csv(index=False)
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.CSV").write_text(text)
    (tmp_path / "c.CSV.GZ").write_bytes(gzip.compress(text.encode()))
    assert open_log(connect(tmp_path), [tmp_path]).count().to_pyarrow().as_py() == 3 * len(EVENTS)
