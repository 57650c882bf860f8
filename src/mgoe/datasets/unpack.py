"""Unpack the required files of archives.

Each is written under the last part of its name directly into one folder, so no name in an archive can lead
elsewhere."""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mgoe._util.files import require_space
from mgoe.errors import DataError

ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    LZMAError,
    NotImplementedError,
    RuntimeError,
)


class _Member(NamedTuple):
    """A file in an archive: the last part of its name, its size, and how it is opened."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class DamagedArchive(DataError):
    """An archive that cannot be unpacked."""


def unpack(
    archive: Path,
    wanted: Sequence[str],
    into: Path,
    *,
    before: Mapping[str, Path] | None = None,
    fix: str = "fetch it again",
) -> list[Path]:
    """Write the wanted members of an archive, and of the ZIP files inside it.

    Args:
        archive: ZIP or tar.
        wanted: Last parts of names.
        into: An existing folder.
        before: Files already in the folder, with the archive they came from.
        fix: What to do about a damaged archive.

    Returns:
        The files written.

    Raises:
        DamagedArchive: The archive cannot be unpacked.
        DataError: The archive holds a wanted file twice, or one that another archive held too.
        OutputError: The disk is too small for the wanted files.
    """
    try:
        return _take(archive, wanted, into, before or {})
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedArchive(archive, f"the archive is damaged: {reason}; {fix}") from None


def _take(archive: Path, wanted: Sequence[str], into: Path, before: Mapping[str, Path]) -> list[Path]:
    written: list[Path] = []
    with _members(archive) as members:
        chosen = [member for member in members if member.name in wanted or member.name.endswith(".zip")]
        require_space(into, sum(member.size for member in chosen), f"unpacking {archive.name}")
        for member in chosen:
            path = into / member.name
            if path.name in before:
                raise DataError(
                    archive,
                    f"{path.name} must be in one archive only, found it in {before[path.name]} too; name the "
                    "right archive itself with --from",
                )
            if path.exists():
                raise DataError(
                    archive, f"{path.name} must be in it once, found it twice; unpack the right one yourself"
                )
            with member.open() as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if path.name in wanted:
                written.append(path)
            else:
                written += _take(path, wanted, into, before)
                path.unlink()
    return written


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yield the regular files of an archive, without links and folders."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            yield [
                _Member(_last(info.filename), info.file_size, partial(packed.open, info))
                for info in packed.infolist()
                if not info.is_dir()
            ]
    else:
        with tarfile.open(archive) as tar:
            yield [
                _Member(_last(info.name), info.size, partial(_extract, tar, info))
                for info in tar.getmembers()
                if info.isfile()
            ]


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _extract(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    if file is None:
        raise tarfile.ExtractError(f"{info.name} holds nothing")
    return file
