"""The log of live events as a stream of Redis, for several machines.

An acknowledged event is as durable as the server: with `appendonly yes` and `appendfsync always` it survives
a crash of Redis itself.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mgoe._util.extras import load
from mgoe.bundle.held import START, Mark
from mgoe.errors import StoreError
from mgoe.serving.events.chain import check_record
from mgoe.serving.events.event import BATCH, Event, events_after

if TYPE_CHECKING:
    import redis

TIMEOUT = 2.0
"""Seconds after which a server that does not answer counts as away."""
FORMAT = 1
"""Of what is in the stream; the identity of a log begins with it."""
_APPEND = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
redis.call('SETNX', KEYS[2], ARGV[1])
local digest = last[1] and last[1][2][4] or redis.call('GET', KEYS[2])
for number = 2, #ARGV do
    digest = string.sub(redis.sha1hex(digest .. ARGV[number]), 1, 32)
    redis.call('XADD', KEYS[1], '*', 'e', ARGV[number], 'd', digest)
end
"""


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
            self._append = self._redis.register_script(_APPEND)
        except ValueError as error:
            raise StoreError("redis", f"the address must be as in redis://host:6379/0 ({error})") from None
        with self._store_errors():
            self._redis.ping()
        self.identity  # noqa: B018 - one of another format is refused now

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        key = f"{self.name}:identity"
        with self._store_errors():
            self._redis.set(key, _new_identity(), nx=True)
            found = _text(self._redis.get(key))
        if not found.startswith(f"{FORMAT}-"):
            raise StoreError(
                "redis",
                f"{self.name} must be a log of format {FORMAT}, found one of another version of mgoe; use "
                "that version, or an empty database",
            )
        return found

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
        if events:
            records = [_new_identity(), *(event.encode() for event in events)]
            with self._store_errors():
                self._append(keys=[self.name, f"{self.name}:identity"], args=records)

    def read(self, after: Mark = START, limit: int = BATCH) -> list[tuple[Mark, Event]]:
        """See `EventLog`."""
        return events_after("redis", self._records(after, limit + (after != START)), after, None)

    def check(self, mark: Mark) -> None:
        """See `EventLog`."""
        if mark != START:
            found = [one for one, _ in self._records(mark, 1)]
            digest = found[0].digest if found and found[0].position == mark.position else None
            check_record("redis", mark, digest, bool(found))

    def may_have(self, after: Mark) -> bool:
        """See `EventLog`."""
        return True

    def order(self, mark: Mark) -> tuple[int, ...]:
        """See `EventLog`."""
        return tuple(map(int, mark.position.split("-"))) if mark.position else (0, 0)

    def forget(self, before: Mark) -> None:
        """See `EventLog`."""
        self.check(before)
        if before != START:
            with self._store_errors():
                self._redis.execute_command("XTRIM", self.name, "MINID", before.position)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _records(self, first: Mark, count: int) -> list[tuple[Mark, bytes]]:
        """Return records from a mark on, its own included."""
        with self._store_errors():
            found: Any = self._redis.xrange(self.name, min=first.position or "-", max="+", count=count)
        return [
            (Mark(_text(position), _text(fields.get(b"d", b""))), fields.get(b"e", b""))
            for position, fields in found
        ]

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


def _new_identity() -> str:
    return f"{FORMAT}-{uuid.uuid4().hex}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
