"""Download one file over HTTP: resume an interrupted download, and start again if the server's file has
changed.

The bytes that have arrived are in `NAME.part`, and the size and version that the server reported in
`NAME.part.json`. With these a later request asks for the rest of exactly that file (RFC 9110, If-Range), so
two versions are never joined. The standard library's client is enough for that and keeps the default install
small."""

import hashlib
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mgoe import __version__
from mgoe._util.files import output_errors, require_space, write_json
from mgoe.datasets.dataset import Download
from mgoe.errors import DataError

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that have arrived, and the total if the server reports it."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 3  # in a row without a new byte; each waits longer than the one before
_KINDS = {
    ".zip": ("a ZIP archive", b"PK"),
    ".gz": ("packed by gzip", b"\x1f\x8b"),
    ".tgz": ("packed by gzip", b"\x1f\x8b"),
}
"""What a file is and how its bytes begin, by the ending of its name."""
_REFUSED = {
    401: "needs an account",
    403: "refuses access",
    404: "no longer has the file",
    410: "no longer has the file",
}


@dataclass(frozen=True)
class _Version:
    """What a server reports about a file.

    Args:
        size: Bytes.
        mark: What If-Range takes: a strong entity tag, else the date.
    """

    size: int | None = None
    mark: str | None = None


class _Interrupted(Exception):
    """The download did not end; another request may end it."""


def download(
    source: Download,
    folder: Path,
    *,
    home: str,
    on_progress: OnProgress = lambda name, done, total: None,
    wait: float = 1.0,
) -> Path:
    """Download a file, or resume its download.

    Args:
        source: The file.
        folder: Where it goes; must exist.
        home: Page where people get the file, for messages.
        on_progress: Called after every chunk.
        wait: Seconds before the second attempt; twice that before the third.

    Returns:
        The file, checked against its published checksum or size if there is one.

    Raises:
        DataError: The server refuses, cannot be reached, keeps breaking the connection or changing the file,
            or sends something other than the published file.
        OutputError: The disk is too small, or the folder cannot be written.
    """
    path, part = folder / source.name, folder / f"{source.name}.part"
    arrives = not path.exists()
    if arrives:
        attempt = 0
        while True:
            before = _size(part)
            try:
                _fetch_rest(source, part, home, on_progress)
                break
            except _Interrupted as error:
                attempt = attempt + 1 if _size(part) <= before else 1
                if attempt >= _ATTEMPTS:
                    raise DataError(
                        source.address,
                        f"the download was interrupted ({error}); run the same command to resume, "
                        f"or get it from {home} yourself and give its folder as the source",
                    ) from None
                logger.info(f"{source.name}: {error}, trying again")
                time.sleep(wait * attempt)
        part.replace(path)
        _state(part).unlink(missing_ok=True)
    try:
        check(source, path, home)
    except DataError:
        if arrives:
            path.unlink()
        raise
    return path


def remaining(source: Download, folder: Path) -> int:
    """Return the bytes of a file that are still missing; 0 if its size is not published."""
    if (folder / source.name).exists() or source.bytes is None:
        return 0
    return max(0, source.bytes - _size(folder / f"{source.name}.part"))


def _fetch_rest(source: Download, part: Path, home: str, on_progress: OnProgress) -> None:
    """Append the missing bytes, or write all of them if the server sends the whole file."""
    have, known = _size(part), _remembered(part)
    if have and have == known.size:
        return  # interrupted between the last byte and the check
    if known.mark is None:
        have = 0  # the server's file may have changed since the download was started
    with closing(_open(source, part, home, have, known)) as answer:
        if answer.status != 206:
            have, known = 0, _Version()
            _forget(part)  # before the state of another file is written
        found = _version(answer, known)
        follows = (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        if have and not (follows and found == known):
            raise _changed(part)
        write_json(_state(part), vars(found))
        require_space(part.parent, (found.size or have) - have, source.name)
        # without a buffer, what does not fit on the disk is all that is lost
        with output_errors(part), part.open("ab" if have else "wb", buffering=0) as file:
            while chunk := _read(answer):
                have += len(chunk)
                while chunk:
                    chunk = chunk[file.write(chunk) :]
                on_progress(source.name, have, found.size)
    if found.size is not None and have < found.size:
        raise _Interrupted(f"{have:,} of {found.size:,} bytes arrived")


def _open(source: Download, part: Path, home: str, have: int, known: _Version) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"mgoe/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.mark or ""}
    try:
        return urllib.request.urlopen(
            urllib.request.Request(source.address, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _changed(part) from None
        if error.code >= 500 or error.code == 429:
            raise _Interrupted(f"the server answers {error.code} {error.reason}") from None
        raise DataError(
            source.address,
            f"the server {_REFUSED.get(error.code, 'does not give the file')} ({error.code} {error.reason}); "
            f"get it from {home} yourself, and give its folder as the source",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(
            f"the server cannot be reached: {getattr(error, 'reason', None) or error}"
        ) from None


def _changed(part: Path) -> _Interrupted:
    """Remove a part that does not belong to the server's file."""
    _forget(part)
    return _Interrupted("the file has changed on the server")


def _version(answer: http.client.HTTPResponse, known: _Version) -> _Version:
    """Return what a response reports about the file; what it leaves out is as known."""
    headers = answer.headers
    size = (headers.get("Content-Range") or headers.get("Content-Length") or "").rpartition("/")[2]
    tag = headers.get("ETag") or "W/"
    mark = headers.get("Last-Modified") if tag.startswith("W/") else tag
    return _Version(int(size) if size.isdigit() else known.size, mark or known.mark)


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def check(source: Download, path: Path, home: str) -> None:
    """Check a file against its published checksum, or else against its published size and the type in its
    name.

    Raises:
        DataError: The file is not the published one.
    """
    wrong = _wrong(source, path)
    if wrong is not None:
        raise DataError(
            path,
            f"{wrong}; remove it if it still exists and fetch it again; if that fails, get it from {home} "
            "yourself and give its folder as the source",
        )


def _wrong(source: Download, path: Path) -> str | None:
    """Return the rule that a file breaks and what was found; None if it is the published file."""
    with path.open("rb") as file:
        if source.md5 is not None:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            return None if md5 == source.md5 else f"its MD5 must be {source.md5}, found {md5}"
        if source.bytes not in (None, _size(path)):
            return f"its size must be {source.bytes}, found {_size(path)}"
        kind, start = _KINDS.get(Path(source.name).suffix, ("", b""))
        found = file.read(24)
    return None if found.startswith(start) else f"it must be {kind}, found a file that begins with {found!r}"


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remembered(part: Path) -> _Version:
    try:
        return _Version(**json.loads(_state(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Version()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
