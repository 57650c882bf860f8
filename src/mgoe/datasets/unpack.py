"""Unpack the required files of archives.

Each is written under the last part of its name directly into one folder, so no name in an archive can lead
elsewhere."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

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


@dataclass(frozen=True)
class _Member:
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
        chosen = [member for member in members if (name := _last(member)) in wanted or name.endswith(".zip")]
        require_space(into, sum(member.size for member in chosen), f"unpacking {archive.name}")
        for member in chosen:
            path = into / _last(member)
            if path.name in before:
                rule = f"{path.name} must be in one archive only, found it in {before[path.name]} too"
                raise DataError(archive, f"{rule}; name the right archive itself with --from")
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


def _last(member: _Member) -> str:
    return PurePosixPath(member.name.replace("\\", "/")).name


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yield the regular files of an archive, without links and folders."""
    with ExitStack() as stack:
        if archive.name.endswith(".zip"):
            packed = stack.enter_context(zipfile.ZipFile(archive))
            yield [
                _Member(info.filename, info.file_size, lambda info=info: packed.open(info))
                for info in packed.infolist()
                if not info.is_dir()
            ]
        else:
            tar = stack.enter_context(tarfile.open(archive))

            def opener(info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
                return lambda: tar.extractfile(info) or _nothing(info.name)

            yield [_Member(info.name, info.size, opener(info)) for info in tar.getmembers() if info.isfile()]


def _nothing(name: str) -> IO[bytes]:
    raise tarfile.ExtractError(f"{name} holds nothing")
