"""Bearer tokens: what each may do, and which there are now. They are read again while a service runs."""

import hmac
import logging
import os
import time
from collections.abc import Callable, Mapping

from mgoe.errors import ConfigError
from mgoe.serving.http.settings import ServeSettings, is_loopback
from mgoe.serving.http.telemetry import log

TOKEN = "MGOE_TOKEN"
"""Environment variable with the tokens if no file is named."""
SHORTEST = 16
"""Characters of a token, at least."""
EVERY = 1.0
"""Seconds after which the tokens are read again."""
RANK, WRITE, ADMIN = "rank", "write", "admin"
Scopes = frozenset[str]
"""What a token may do."""
ALL: Scopes = frozenset({RANK, WRITE, ADMIN})
NONE: Scopes = frozenset()
NEEDED = {"/v1/events": WRITE, "/v1/items": WRITE, "/metrics": ADMIN}
"""The scope that a path needs; any other needs `rank`."""
Granted = Mapping[bytes, Scopes]
"""Scopes by token; without any token everybody may do everything."""


class Tokens:
    """The tokens of a service. When they cannot be read again, the former ones stay.

    Args:
        read: Reads them, see `read_tokens`.

    Attributes:
        granted: What was read last.
        failed: Called whenever they cannot be read again.

    Raises:
        ConfigError: They cannot be read.
    """

    def __init__(self, read: Callable[[], Granted] = dict):
        self._read, self.granted = read, read()
        self.failed: Callable[[], object] = lambda: None
        self._due, self._failure = time.monotonic() + EVERY, ""

    def known(self, authorization: str) -> str:
        """Return the token of a request that has scopes; an empty text if it needs none."""
        return authorization.partition(" ")[2].strip() if self.granted else ""

    def scopes(self, authorization: str) -> Scopes:
        """Return what a request with this header may do; nothing unless it has a token of this service."""
        if time.monotonic() >= self._due:
            self._read_again()
        if not self.granted:
            return ALL
        scheme, _, given = authorization.partition(" ")
        found, sent = NONE, given.strip().encode("latin-1")
        for token, scopes in self.granted.items():  # all are compared, so that the time says nothing
            if hmac.compare_digest(sent, token):
                found = scopes
        return found if scheme.lower() == "bearer" else NONE

    def _read_again(self) -> None:
        self._due = time.monotonic() + EVERY
        try:
            found = self._read()
        except ConfigError as error:
            self.failed()
            if str(error) != self._failure:
                log("tokens kept", logging.ERROR, error=str(error))
            self._failure = str(error)
            return
        if found != self.granted or self._failure:
            log("tokens taken", tokens=len(found))
        self.granted, self._failure = found, ""


def read_tokens(settings: ServeSettings) -> Granted:
    """Return the tokens that open the service.

    Each line is a token, which may do everything, or a token and its scopes: `TOKEN rank,write`.

    Raises:
        ConfigError: The token file cannot be read or is empty, a token is short, a scope does not exist, or
            the service would be open to the network.
    """
    place = settings.token_file or TOKEN
    if settings.token_file is None:
        text = os.environ.get(TOKEN, "")
    else:
        try:
            text = settings.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                place, f"the token file cannot be read ({error}); name a text file with one token per line"
            ) from None
        if not text.split():
            raise ConfigError(
                place, "must hold one token per line, found none; `openssl rand -hex 32` makes one"
            )
    lines = enumerate(text.splitlines(), start=1)
    granted = dict(_read_line(f"{place}, line {number}", line) for number, line in lines if line.strip())
    if not granted and not settings.public and not is_loopback(settings.host):
        raise ConfigError(
            "host",
            f"{settings.host} can be reached from other machines, so a token is needed, found none; "
            f"name a `token_file` (or set {TOKEN}), or set `public` to let everybody ask",
        )
    return granted


def _read_line(place: str, line: str) -> tuple[bytes, Scopes]:
    token, *rest = line.split(maxsplit=1)
    if len(token) < SHORTEST:
        raise ConfigError(
            place,
            f"a token has at least {SHORTEST} characters, found one of {len(token)}; "
            "`openssl rand -hex 32` makes one",
        )
    scopes = frozenset(one.strip() for one in rest[0].split(",")) if rest else ALL
    for wrong in sorted(scopes - ALL):
        raise ConfigError(
            place,
            f"scopes are rank, write and admin, found {wrong!r}; write a line as in `TOKEN rank,write`",
        )
    return token.encode(), ALL if ADMIN in scopes else scopes
