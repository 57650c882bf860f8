"""Download one file over HTTP: it appears when all of it has arrived, and each attempt starts anew.

The standard library's client is enough for that and keeps the default install small.
"""

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mgoe import __version__
from mgoe._util.files import atomic_file, require_space
from mgoe.datasets.dataset import Download
from mgoe.errors import DataError

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that have arrived, and the total if the server reports it."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 3  # each waits longer than the one before
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
    """Download a file, unless it is there.

    Args:
        source: The file.
        folder: Where it goes; must exist.
        home: Page where people get the file, for messages.
        on_progress: Called after every chunk.
        wait: Seconds before the second attempt; twice that before the third.

    Returns:
        The file, checked against its published checksum if there is one.

    Raises:
        DataError: The server refuses, cannot be reached or keeps breaking the connection, or sends something
            other than the published file.
        OutputError: The disk is too small, or the folder cannot be written.
    """
    path, attempt = folder / source.name, 1
    arrives = not path.exists()
    while not path.exists():
        try:
            _fetch(source, path, home, on_progress)
        except _Interrupted as error:
            if attempt == _ATTEMPTS:
                raise DataError(
                    source.address,
                    f"the download was interrupted ({error}); run the same command again, "
                    f"or get it from {home} yourself and give its folder as the source",
                ) from None
            logger.info(f"{source.name}: {error}, trying again")
            time.sleep(wait * attempt)
            attempt += 1
    try:
        check(source, path, home)
    except DataError:
        if arrives:
            path.unlink()
        raise
    return path


def _fetch(source: Download, path: Path, home: str, on_progress: OnProgress) -> None:
    with closing(_open(source, home)) as answer:
        size, done = int(answer.headers.get("Content-Length") or 0), 0
        require_space(path.parent, size, source.name)
        with atomic_file(path) as unfinished, unfinished.open("wb") as file:
            while chunk := _read(answer):
                done += file.write(chunk)
                on_progress(source.name, done, size or None)
            if done < size:
                raise _Interrupted(f"{done:,} of {size:,} bytes arrived")


def _open(source: Download, home: str) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"mgoe/{__version__}", "Accept-Encoding": "identity"}
    try:
        return urllib.request.urlopen(
            urllib.request.Request(source.address, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
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


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def check(source: Download, path: Path, home: str) -> None:
    """Check a file against its published checksum, or else against the type in its name.

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
        kind, start = _KINDS.get(Path(source.name).suffix, ("", b""))
        found = file.read(24)
    return None if found.startswith(start) else f"it must be {kind}, found a file that begins with {found!r}"
