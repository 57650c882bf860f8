"""The files of a log: what a path, a folder or a glob names, and whether each file is complete."""

import glob
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgoe.config import did_you_mean
from mgoe.errors import DataError

LOG = "data.log"
"""The setting that names a log."""


_PARQUET = (".parquet", ".pq")


_CSV = tuple(kind + packing for kind in (".csv", ".tsv", ".txt") for packing in ("", ".gz", ".zst"))


_OTHER = re.compile(
    r"\.(csv|tsv|txt|jsonl?|ndjson|parquet|pq|avro|orc|feather|arrow|xlsx?)"
    r"(\.(gz|bz2|zst|zip|xz|lz4|snappy|br|7z))?$|^part-\d+$",
    re.I,
)
"""Names of data in a form that is not read."""


_IGNORED = re.compile(r"[._]|readme\b", re.I)
"""Names of what writers of tables and people leave beside data."""


def check_complete(file: Path, parquet: bool) -> None:
    """Refuse an empty file, and a Parquet file without a whole footer."""
    try:
        if not file.stat().st_size:
            raise DataError(file, "the file is empty (0 bytes); write it again or leave it out")
        if parquet:
            pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid) as error:
        damaged = (
            f"the Parquet file is truncated, damaged or of another format ({' '.join(str(error).split())})"
        )
        reason = getattr(error, "strerror", None) or damaged
        raise DataError(
            file, f"cannot be read: {reason}; check its permissions, or copy or write it again"
        ) from None


def files_of(path: str, key: str) -> list[Path]:
    """Return the files that a file, folder or glob names, in order.

    Args:
        path: The file, folder or glob.
        key: The setting that names it, for messages.

    Raises:
        DataError: There is no such file, or a folder holds data of another form.
    """
    here = Path(path)
    if here.is_file():
        return [here]
    if here.is_dir():
        if found := _of_folder(here, key):
            return found
        raise DataError(
            f"{key} {path}",
            "a folder must hold Parquet or CSV files (.parquet, .csv, .tsv, .csv.gz), found none; "
            "name another folder",
        )
    if glob.has_magic(path):
        if found := _matched(path, key):
            return found
        raise DataError(
            f"{key} {path}", f"the pattern matches no file; relative ones are looked up from {Path.cwd()}"
        )
    beside = [file.name for file in here.parent.glob("[!.]*")]  # not what this process is writing
    near = did_you_mean(here.name, beside) if here.parent.is_dir() else ""
    raise DataError(
        f"{key} {path}", f"no such file or folder{near}; relative paths are looked up from {Path.cwd()}"
    )


def _matched(pattern: str, key: str) -> list[Path]:
    """Return the files that a glob matches, and those of the folders that it matches."""
    found: list[Path] = []
    for match in map(Path, glob.glob(pattern, recursive=True)):
        if match.is_file():
            found.append(match)
        elif (
            match.is_dir()
            and not _IGNORED.match(match.name)
            # no link to a folder that contains it
            and not (match.is_symlink() and match.absolute().parent.resolve().is_relative_to(match.resolve()))
        ):
            found += _of_folder(match, key)
    # links may form a circle: of several paths to a file, the dictionary keeps the last and so the shortest
    found.sort(key=lambda file: len(file.parts), reverse=True)
    return sorted({(os.path.realpath(file.parent), file.name): file for file in found}.values())


def _of_folder(here: Path, key: str) -> list[Path]:
    """Return the files of a log in a folder, in order; refuse a folder with data of another form."""
    files = _below(here)
    found = [file for file in files if _kind(file)]
    if left := [file for file in files if _OTHER.search(file.name) and not _kind(file)]:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise DataError(
            f"{key} {here}",
            f"every data file in a folder must be Parquet or CSV, found {left[0].name!r}{more}; "
            f"convert them, or name the files of the log by a glob: {here}/**/*"
            f"{found[0].suffix if found else _PARQUET[0]}",
        )
    return found


def _below(here: Path) -> list[Path]:
    """Return the files at any depth of a folder that are not to be ignored, in order.

    Links to folders are followed after everything in the folder itself. No folder is read twice, since a link
    may lead to one that contains it.
    """
    seen, found, tops = set(map(str, here.resolve().parents)), [], [here]
    for top in tops:
        for folder, folders, files in os.walk(top, onerror=_refuse):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not _IGNORED.match(name)]
            tops += [Path(folder, name) for name in sorted(folders) if Path(folder, name).is_symlink()]
            found += [Path(folder, name) for name in files if not _IGNORED.match(name)]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise DataError(error.filename, f"cannot be read: {error.strerror}; check its permissions")


def kind_of(file: Path, key: str) -> str:
    """Return `parquet` or `csv`, by the name of a file.

    Raises:
        DataError: The file is neither.
    """
    if kind := _kind(file):
        return kind
    raise DataError(
        f"{key} {file}",
        f"a log file ends in .parquet, .csv, .tsv, .txt or .csv.gz, found {file.suffix or 'no ending'!r}; "
        "rename or convert it",
    )


def _kind(file: Path) -> str | None:
    name = file.name.lower()
    return "parquet" if name.endswith(_PARQUET) else "csv" if name.endswith(_CSV) else None
