"""The log of live events as a stream of Redis, for several machines.

An acknowledged event is as durable as the server: with `appendonly yes` and `appendfsync always` it survives
a crash of Redis itself.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mgoe._util.extras import load
from mgoe.errors import StoreError
from mgoe.serving.events.event import BATCH, START, Event, Position

if TYPE_CHECKING:
    import redis

TIMEOUT = 2.0
"""Seconds after which a server that does not answer counts as away."""


class RedisLog:
    """A log in one stream of a Redis server (6.2 or newer), for any number of services.

    Args:
        url: As in redis://host:6379/0; rediss:// for TLS. It contains the password if there is one.
        name: Name of the stream.

    Raises:
        StoreError: The server cannot be reached.
        MissingExtra: The client is not installed.
    """

    def __init__(self, url: str, name: str = "mgoe:events"):
        library = load(
            "redis", "redis", "a log on Redis needs its client, which", "pip install 'mgoe[serve]'"
        )
        self.name, self._errors = name, library.exceptions
        try:
            self._redis: redis.Redis = library.Redis.from_url(
                url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=library.retry.Retry(library.backoff.NoBackoff(), 1),
            )
        except ValueError as error:
            raise StoreError("redis", f"the address must be as in redis://host:6379/0 ({error})") from None
        with self._store_errors():
            self._redis.ping()

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        key = f"{self.name}:identity"
        with self._store_errors():
            self._redis.set(key, uuid.uuid4().hex, nx=True)
            return _text(self._redis.get(key))

    @property
    def durable(self) -> bool | None:
        """Whether acknowledged events survive a crash of the server; None if it hides its settings."""
        with self._store_errors():
            try:
                text = {
                    _text(key): _text(value)
                    for name in ("appendonly", "appendfsync")
                    for key, value in self._redis.config_get(name).items()  # type: ignore[union-attr]
                }
            except self._errors.ResponseError:  # hosted servers do not show their settings
                return None
        return text.get("appendonly") == "yes" and text.get("appendfsync") == "always"

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""
        if not events:
            return
        with self._store_errors(), self._redis.pipeline(transaction=True) as all_or_none:
            for event in events:
                all_or_none.xadd(self.name, {b"e": event.encode()})
            all_or_none.execute()

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """See `EventLog`."""
        with self._store_errors():
            found: Any = self._redis.xrange(
                self.name, min=f"({after}" if after else "-", max="+", count=limit
            )
        return [(position.decode(), Event.decode(fields.get(b"e", b""))) for position, fields in found]

    def may_have(self, after: Position) -> bool:
        """See `EventLog`."""
        return True

    def order(self, position: Position) -> tuple[int, ...]:
        """See `EventLog`."""
        return tuple(map(int, position.split("-"))) if position else (0, 0)

    def forget(self, before: Position) -> None:
        """Drop the events before a position."""
        if before:
            with self._store_errors():
                self._redis.execute_command("XTRIM", self.name, "MINID", before)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._errors.RedisError, OSError) as error:
            raise StoreError(
                "redis",
                f"the log of events cannot be used: {error}; "
                "check that it runs and can be reached; events are accepted again once it is back",
            ) from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
