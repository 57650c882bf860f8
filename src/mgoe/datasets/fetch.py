"""Fetch a data set: get its archives by HTTP or from a folder, check them, and unpack the required files.

Each file is written under the last part of its name directly into one folder, so no name in an archive can
lead elsewhere.
"""

import gzip
import logging
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from mgoe._util.files import (
    atomic_folder,
    clear_partial,
    clear_unfinished,
    exclusive,
    output_errors,
    read_json,
    require_space,
    write_json,
)
from mgoe.config import Settings
from mgoe.datasets.dataset import DataSet
from mgoe.datasets.download import OnProgress, check, download
from mgoe.datasets.reading import ENDINGS
from mgoe.errors import DataError, OutputError

logger = logging.getLogger(__name__)

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
MADE_OF = "unpacked.json"
"""File among the unpacked ones that records the data set and the archives they came from."""


class Fetched(Settings):
    """Result of `fetch`.

    Example:
        >>> Fetched(name="movielens-1m", path="raw/files", files=["ratings.dat"]).files
        ['ratings.dat']
    """

    name: str
    """Name of the data set."""
    path: str
    """The folder that `prepare` reads."""
    files: list[str]
    """Names of the required files, all present."""


class _Member(NamedTuple):
    """A file in an archive: the last part of its name, its size, and how it is opened."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class DamagedArchive(DataError):
    """An archive that cannot be unpacked."""


def fetch(
    data: DataSet,
    out: Path | str,
    source: Path | str | None = None,
    *,
    on_progress: OnProgress = lambda name, done, total: None,
) -> Fetched:
    """Download a data set's archives into `out/downloads` and unpack the required files into `out/files`.

    Args:
        data: The data set.
        out: A folder; what was downloaded to it before is kept.
        source: A folder of archives, or one archive, that the user has, instead of a download.
        on_progress: Called after every chunk of a download.

    Raises:
        DataError: The data set has no public address and no folder was named, or a download or archive fails.
        OutputError: The disk is too small, the folder cannot be written, or `out/files` holds other files.
    """
    out = Path(out)
    if source is None and not data.downloads:
        raise DataError(data.name, by_hand(data))
    with exclusive(out, f"a download of {data.name}"):
        _check_own(data, out / "files")
        archives = _downloaded(data, out, on_progress) if source is None else _provided(data, Path(source))
        unsure = {
            out / "downloads" / one.name for one in data.downloads if source is None and one.md5 is None
        }
        _unpack(data, archives, unsure, out / "files")
    there = _names(out / "files")
    if not data.is_complete(there):
        absent = next(name for name in data.files if name not in there)
        raise DataError(
            out,
            f"{absent} is required and in none of the archives; `mgoe data describe {data.name}` lists them",
        )
    return Fetched(name=data.name, path=str(out), files=sorted(there & data.wanted))


def by_hand(data: DataSet) -> str:
    """Explain how to get a data set that has no public address."""
    command = f"{data.name} --from FOLDER --out OUT"
    return (
        f"cannot be downloaded by a command ({data.access}): get {', '.join(data.files)} from {data.home}, "
        f"then run `mgoe data prepare {command}`; `mgoe data fetch {command}` unpacks archives"
    )


def _check_own(data: DataSet, folder: Path) -> None:
    """Refuse a folder with foreign files: the folder of unpacked files is replaced as a whole."""
    there = _names(folder)
    if not there:
        return
    strange = sorted(there - data.wanted - {MADE_OF})
    made_by = read_json(folder / MADE_OF).get("set") if MADE_OF in there else None
    if made_by not in (None, data.name):
        raise OutputError(
            folder, f"must hold files of {data.name}, found those of {made_by}; choose another folder"
        )
    if strange or made_by is None:
        raise OutputError(
            folder,
            "must hold only files that `mgoe data fetch` unpacked, found "
            f"{strange[0] if strange else f'no {MADE_OF}'}; move it away or choose another folder",
        )


def _downloaded(data: DataSet, out: Path, on_progress: OnProgress) -> list[Path]:
    folder = out / "downloads"
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder)
    missing = [one for one in data.downloads if not (folder / one.name).exists()]
    require_space(folder, sum(one.bytes or 0 for one in missing), data.title)
    paths = []
    for one in data.downloads:
        logger.info(f"fetching {one.address}")
        paths.append(download(one, folder, home=data.home, on_progress=on_progress))
    return paths


def _provided(data: DataSet, source: Path) -> list[Path]:
    """Return a user's archives: those with a published name, checked, or all if none has one."""
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    found = [path for path in paths if path.name.endswith(ENDINGS)]
    if not found:
        raise DataError(
            source,
            f"must be an archive ({', '.join(ENDINGS)}) or a folder with archives, found none; pass unpacked "
            "files to `mgoe data prepare`",
        )
    published = {one.name: one for one in data.downloads}
    named = [path for path in found if path.name in published]
    for path in named:
        logger.info(f"checking {path.name}")
        check(published[path.name], path, data.home)
    return named or found


def _unpack(data: DataSet, archives: Sequence[Path], unsure: Set[Path], into: Path) -> None:
    """Unpack archives into one folder atomically, unless it was made from these archives already.

    A damaged archive without a published checksum is removed.
    """
    stats = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in archives}
    made_of = {"set": data.name, "archives": stats}
    done = data.is_complete(_names(into)) and (into / MADE_OF).exists()
    if done and read_json(into / MADE_OF) == made_of:
        return
    clear_partial(into)
    with atomic_folder(into) as folder:
        held: dict[str, Path] = {}
        for archive in archives:
            logger.info(f"unpacking {archive.name}")
            try:
                unpack(archive, data.wanted, folder, held)
            except DamagedArchive:
                if archive in unsure:
                    archive.unlink()
                raise
        write_json(folder / MADE_OF, made_of)


def unpack(archive: Path, wanted: Set[str], into: Path, held: dict[str, Path]) -> None:
    """Write the wanted members of an archive, and of the ZIP files inside it.

    Args:
        archive: ZIP or tar.
        wanted: Last parts of names.
        into: An existing folder.
        held: The archive of each wanted file in the folder; those that are written are added.

    Raises:
        DamagedArchive: The archive cannot be unpacked.
        DataError: The archive holds a wanted file twice, or one that another archive held too.
        OutputError: The disk is too small for the wanted files.
    """
    try:
        _take(archive, archive, wanted, into, held)
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedArchive(archive, f"the archive is damaged: {reason}; fetch it again") from None


def _take(whole: Path, archive: Path, wanted: Set[str], into: Path, held: dict[str, Path]) -> None:
    """Write the wanted members of an archive that is `whole`, or inside it."""
    with _members(archive) as members:
        chosen = [member for member in members if member.name in wanted or member.name.endswith(".zip")]
        require_space(into, sum(member.size for member in chosen), f"unpacking {archive.name}")
        for member in chosen:
            path = into / member.name
            if path.name in held:
                raise DataError(
                    whole,
                    f"{path.name} must be in the archives once, found it in {held[path.name]} too; name the "
                    "right archive itself as the source, or unpack the right file yourself",
                )
            with member.open() as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            if path.name in wanted:
                held[path.name] = whole
            else:
                _take(whole, path, wanted, into, held)
                path.unlink()


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
                _Member(_last(info.name), info.size, partial(tar.extractfile, info))  # pyright: ignore[reportArgumentType]
                for info in tar.getmembers()
                if info.isfile()
            ]


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
