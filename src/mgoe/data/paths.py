"""Which files a log is: what a file, a folder or a glob names."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from mgoe.config import did_you_mean
from mgoe.errors import DataError

_PARQUET = (".parquet", ".pq")
_CSV = tuple(kind + packing for kind in (".csv", ".tsv", ".txt") for packing in ("", ".gz", ".zst"))
_OTHER = re.compile(
    r"\.(csv|tsv|txt|jsonl?|ndjson|parquet|pq|avro|orc|feather|arrow|xlsx?)(\.(gz|bz2|zst|zip|xz|lz4|snappy|br|7z))?$|^part-\d+$",
    re.I,
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
        if found := _of_folder(here, key):
            return found
        rule = "a folder must hold Parquet or CSV files (.parquet, .csv, .tsv, .csv.gz)"
        raise DataError(f"{key} {path}", f"{rule}, found none; name another folder")
    if glob.has_magic(path):
        if found := _matched(path, key):
            return found
        raise DataError(
            f"{key} {path}", f"the pattern matches no file; relative ones are looked up from {Path.cwd()}"
        )
    near = did_you_mean(here.name, [f.name for f in here.parent.iterdir()]) if here.parent.is_dir() else ""
    raise DataError(
        f"{key} {path}", f"no such file or folder{near}; relative paths are looked up from {Path.cwd()}"
    )


def _matched(pattern: str, key: str) -> list[Path]:
    """The files that a glob matches, and those of the folders that it matches."""
    found: list[Path] = []
    for match in map(Path, glob.glob(pattern, recursive=True)):
        if match.is_file():
            found.append(match)
        elif match.is_dir() and not _ASIDE.match(match.name) and not _leads_up(match):
            found += _of_folder(match, key)
    found.sort(
        key=lambda file: len(file.parts), reverse=True
    )  # of the ways to a file the shortest stays, for links may lead in a circle
    return sorted({(os.path.realpath(file.parent), file.name): file for file in found}.values())


def _leads_up(folder: Path) -> bool:
    """Whether a folder is a link to one that holds it."""
    return folder.is_symlink() and folder.absolute().parent.resolve().is_relative_to(folder.resolve())


def _of_folder(here: Path, key: str) -> list[Path]:
    """The files of a log in a folder, in order.

    Raises:
        DataError: It holds data of another form.
    """
    files = _below(here)
    found = [file for file in files if _is_read(file)]
    if left := [file for file in files if _OTHER.search(file.name) and not _is_read(file)]:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        mend = f"convert them, or name by a glob what is the log: {here}/**/*{found[0].suffix if found else _PARQUET[0]}"
        raise DataError(
            f"{key} {here}",
            f"every data file in a folder must be Parquet or CSV, found {left[0].name!r}{more}; {mend}",
        )
    return found


def _below(here: Path) -> list[Path]:
    """Files at any depth that do not lie aside, in order.

    Links to folders are followed, after all that lies here itself, and no folder is read twice: a link may lead to one that holds it.
    """
    seen, found, tops = set(map(str, here.resolve().parents)), [], [here]
    for top in tops:
        for folder, folders, files in os.walk(top, onerror=_refuse):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not _ASIDE.match(name)]
            tops += [
                Path(folder, name) for name in sorted(folders) if os.path.islink(os.path.join(folder, name))
            ]
            found += [Path(folder, name) for name in files if not _ASIDE.match(name)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(error.filename, f"cannot be read: {error.strerror}; check its permissions")


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
