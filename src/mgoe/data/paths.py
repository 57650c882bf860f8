"""Which files a log is: what a file, a folder or a glob names."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from mgoe.config import did_you_mean
from mgoe.errors import DataError

_PARQUET = (".parquet", ".pq")
_CSV = tuple(kind + packing for kind in (".csv", ".tsv", ".txt") for packing in ("", ".gz", ".zst"))
_OTHER = re.compile(
    r"\.(csv|tsv|txt|jsonl?|ndjson|parquet|pq|avro|orc|feather|arrow|xlsx?)(\.(gz|bz2|zst|zip|xz|lz4|snappy|br|7z))?$|^part-\d+$", re.I
)  # data in a form that is not read
_ASIDE = re.compile(r"[._]|readme\b", re.I)  # what writers of tables leave beside them, and what people do


def files_of(path: str, key: str) -> list[Path]:
    """The files that a file, folder or glob names, in order.

    Raises:
        DataError: There is none.
    """
    here = Path(path)
    if here.is_file():
        return [here]
    if here.is_dir():
        files = [f for f in sorted(here.rglob("*")) if not any(map(_ASIDE.match, f.relative_to(here).parts)) and f.is_file()]
        found = [f for f in files if _is_read(f)]
        if not found:
            raise DataError(
                f"{key} {path}", "a folder must hold Parquet or CSV files (.parquet, .csv, .tsv, .csv.gz), found none; name another folder"
            )
        if left := [f for f in files if _OTHER.search(f.name) and not _is_read(f)]:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            mend = f"convert them, or name by a glob what is the log: {here}/**/*{found[0].suffix}"
            raise DataError(f"{key} {path}", f"every data file in a folder must be Parquet or CSV, found {left[0].name!r}{more}; {mend}")
        return found
    if glob.has_magic(path):
        found = sorted(Path(f) for f in glob.glob(path, recursive=True) if Path(f).is_file())
        if not found:
            raise DataError(f"{key} {path}", f"the pattern matches no file; relative ones are looked up from {Path.cwd()}")
        return found
    near = did_you_mean(here.name, [f.name for f in here.parent.iterdir()]) if here.parent.is_dir() else ""
    raise DataError(f"{key} {path}", f"no such file or folder{near}; relative paths are looked up from {Path.cwd()}")


def kind_of(file: Path, key: str) -> str:
    """Whether a file is `parquet` or `csv`, by its name.

    Raises:
        DataError: It is neither.
    """
    if file.name.lower().endswith(_PARQUET):
        return "parquet"
    if file.name.lower().endswith(_CSV):
        return "csv"
    raise DataError(
        f"{key} {file}",
        f"a log file ends in .parquet, .csv, .tsv, .txt or .csv.gz, found {file.suffix or 'no ending'!r}; rename or convert it",
    )


def _is_read(file: Path) -> bool:
    return file.name.lower().endswith(_PARQUET + _CSV)
