"""The log of live events as a stream of Redis, for several machines.

What is acknowledged is as durable as the server: `appendonly yes` and `appendfsync always` make it survive a crash of Redis itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mgoe._util.extras import load
from mgoe.errors import StoreError
from mgoe.serving.events.event import Event
from mgoe.serving.events.log import BATCH, START, Position

if TYPE_CHECKING:
    import redis

TIMEOUT = 2.0
"""Seconds after which a server that does not answer counts as away."""
T = TypeVar("T")


class RedisLog:
    """A log in one stream of a Redis server (6.2 or newer), for any number of servers.

    Args:
        url: As in redis://host:6379/0; rediss:// for TLS. A password belongs in it.
        name: Of the stream.

    Raises:
        StoreError: The server cannot be reached.
        MissingExtra: The client is not installed.
    """

    def __init__(self, url: str, name: str = "mgoe:events"):
        self._redis, self.name = _client(url), name
        self._guarded(self._redis.ping)

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        return _text(self._guarded(self._identify))

    @property
    def durable(self) -> bool | None:
        """Whether the server itself keeps what it acknowledges through a crash; None where it does not say."""
        from redis.exceptions import ResponseError

        def ask() -> bool | None:
            try:
                held: dict[str, str] = {
                    **self._redis.config_get("appendonly"),
                    **self._redis.config_get("appendfsync"),
                }  # type: ignore[dict-item]
            except ResponseError:  # hosted servers keep their settings to themselves
                return None
            text = {_text(key): _text(value) for key, value in held.items()}
            return text.get("appendonly") == "yes" and text.get("appendfsync") == "always"

        return self._guarded(ask)

    def append(self, events: Sequence[Event]) -> None:
        """See `EventLog`."""

        def add() -> None:
            with self._redis.pipeline(transaction=True) as all_or_none:
                for event in events:
                    all_or_none.xadd(self.name, {b"e": event.encode()})
                all_or_none.execute()

        if events:
            self._guarded(add)

    def read(self, after: Position = START, limit: int = BATCH) -> list[tuple[Position, Event]]:
        """See `EventLog`."""
        first = f"({after}" if after else "-"
        found: Any = self._guarded(lambda: self._redis.xrange(self.name, min=first, max="+", count=limit))
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
            self._guarded(lambda: self._redis.execute_command("XTRIM", self.name, "MINID", before))

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _identify(self) -> Any:
        key = f"{self.name}:identity"
        self._redis.set(key, uuid.uuid4().hex, nx=True)
        return self._redis.get(key)

    def _guarded(self, work: Callable[[], T]) -> T:
        from redis.exceptions import RedisError

        try:
            return work()
        except (RedisError, OSError) as error:
            mend = "see that it runs and may be reached; events are taken again once it is back"
            raise StoreError("redis", f"the log of events cannot be used: {error}; {mend}") from None


def _client(url: str) -> redis.Redis:
    load("redis", "redis", "a log on Redis needs its client, which", "pip install 'mgoe[serve]'")
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        return redis.Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 1)
        )
    except ValueError as error:
        raise StoreError("redis", f"the address must be as in redis://host:6379/0 ({error})") from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
