"""A Redis server (6.2 or newer) that keeps the log of a deployment: its address, its password, its errors.

An address names the keys of its deployment, and may name more: in
`redis://host:6379/0?prefix=shop&password_file=secret&state=state` the prefix of all keys, a file with the
password, and the folder where this machine keeps its replica of the log.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from mgoe._util.extras import install, load
from mgoe.errors import AwayError, ConfigError, StoreError

EXAMPLE = "redis://host:6379/0?prefix=shop"
PREFIX = "mgoe"
"""Prefix of the keys unless the address names another."""
PASSWORD = "MGOE_REDIS_PASSWORD"
"""Environment variable with the password, unless the address names it or a file with it."""
FORMAT = 2
"""Of what is in the stream; the identity of a log begins with it."""
_WRITING = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
TIMEOUT = 2.0
"""Seconds after which a server that does not answer counts as away."""


class RedisServer:
    """The keys of one deployment on a Redis server. Nothing connects before the first command.

    Args:
        url: As in redis://host:6379/0?prefix=shop; rediss:// for TLS.

    Attributes:
        client: Runs commands, inside `errors`.
        prefix: Begins the name of each key.
        state: Folder of this machine that the address names; None if it names none.

    Raises:
        StoreError: The address is not one of a Redis.
        ConfigError: The file with the password cannot be read.
        MissingExtra: The client is not installed.
    """

    def __init__(self, url: str):
        library = load("redis", "redis", "a log on Redis needs its client, which", install("serve"))
        self._errors = library.exceptions
        base, _, query = url.partition("?")
        asked = dict(parse_qsl(query))
        self.prefix, self.state = asked.pop("prefix", PREFIX), asked.pop("state", None)
        password = _password(asked.pop("password_file", None))
        try:
            self.client: Any = library.Redis.from_url(
                f"{base}?{urlencode(asked)}",
                password=password,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=library.retry.Retry(library.backoff.NoBackoff(), 1),
            )
        except (ValueError, TypeError):  # their texts may hold the password
            raise StoreError("redis", f"the address must be as in {EXAMPLE}") from None

    def remember(self, name: str, value: str) -> str:
        """Return what the deployment remembers by a name: the value, unless it remembers another.

        Raises:
            StoreError: Redis is away.
        """
        with self.errors():
            self.client.set(f"{self.prefix}:{name}", value, nx=True)
            return text(self.client.get(f"{self.prefix}:{name}"))

    @property
    def identity(self) -> str:
        """The identity of the log of this deployment, which gets one if it has none.

        Raises:
            StoreError: Redis is away, or the log is of another format.
        """
        found = self.remember("events:identity", f"{FORMAT}-{uuid.uuid4().hex}")
        if not found.startswith(f"{FORMAT}-"):
            raise StoreError(
                "redis",
                f"{self.prefix}:events must be a log of format {FORMAT}, found that of another version; "
                "update once with that version, then start with another prefix",
            )
        return found

    @property
    def durable(self) -> bool | None:
        """Whether what was acknowledged survives a crash of the server; None if it hides its settings."""
        with self.errors():
            try:
                found = self.client.config_get("append*")
            except self._errors.ResponseError:  # hosted servers do not show their settings
                return None
        said = {text(key): text(value) for key, value in found.items()}
        return said.get("appendonly") == "yes" and said.get("appendfsync") == "always"

    @property
    def now(self) -> int:
        """The server's clock, in microseconds since 1970."""
        with self.errors():
            seconds, micros = self.client.time()
        return seconds * 1_000_000 + micros

    def rewrite(self) -> None:
        """Write the files of the server again: they keep the bytes of what was deleted.

        Raises:
            StoreError: Redis is away.
        """
        with self.errors():
            has_log = self.client.info("persistence")["aof_enabled"]
            self.client.bgrewriteaof() if has_log else self.client.bgsave()
            while any(int(self.client.info("persistence")[name]) for name in _WRITING):
                time.sleep(0.1)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of the client into a `StoreError` while the block runs.

        Raises:
            AwayError: The server cannot be reached.
            StoreError: It refuses what was asked.
        """
        try:
            yield
        except (self._errors.RedisError, OSError) as error:
            away = isinstance(error, self._errors.ConnectionError | self._errors.TimeoutError | OSError)
            refused = isinstance(error, self._errors.AuthenticationError)
            raise (AwayError if away and not refused else StoreError)(
                "redis",
                f"the log of events cannot be used: {error}; "
                "check that it runs and can be reached; events are accepted again once it is back",
            ) from None


def text(value: Any) -> str:
    """Return what the client gives as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _password(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(PASSWORD)
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            file, f"the file with Redis' password cannot be read ({error}); name a text file that holds it"
        ) from None
