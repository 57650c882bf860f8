"""The log of live events as a stream of Redis, for several machines.

An acknowledged event is as durable as the server: with `appendonly yes` and `appendfsync always` it survives
a crash of Redis itself.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mgoe.bundle.held import START, Mark
from mgoe.bundle.items import MARK, Item
from mgoe.bundle.membership import DEPLOYMENT
from mgoe.errors import OtherLogError
from mgoe.serving.events.event import Event, EventLog, Records, every
from mgoe.serving.events.redis_server import FORMAT, RedisServer, text

_APPEND = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
redis.call('SETNX', KEYS[2], ARGV[1])
local digest = last[1] and last[1][2][4] or redis.call('GET', KEYS[2])
for number = 2, #ARGV do
    digest = string.sub(redis.sha1hex(digest .. ARGV[number]), 1, 32)
    redis.call('XADD', KEYS[1], '*', 'e', ARGV[number], 'd', digest)
end
"""


class RedisLog(EventLog):
    """A log in one stream of a Redis server, for any number of services.

    Args:
        url: See `RedisServer`, which connects when it is first asked.

    Raises:
        StoreError: The address is not one of a Redis.
        MissingExtra: The client is not installed.
    """

    place = "redis"

    def __init__(self, url: str):
        self._server = RedisServer(url)
        self._redis, self.name = self._server.client, f"{self._server.prefix}:events"
        self._append = self._redis.register_script(_APPEND)

    @property
    def identity(self) -> str:
        """See `EventLog`."""
        return self._server.identity("events")

    @property
    def durable(self) -> bool | None:
        """See `RedisServer`."""
        return self._server.durable

    @property
    def deployment(self) -> str | None:
        """See `EventLog`."""
        with self._server.errors():
            found = self._redis.get(f"{self._server.prefix}:{DEPLOYMENT}")
        return None if found is None else text(found)

    def move(self, deployment: str, anyway: bool = True) -> None:
        """See `EventLog`."""
        with self._server.errors():
            self._redis.set(f"{self._server.prefix}:{DEPLOYMENT}", deployment, nx=not anyway)

    def claim(self, tasks: Sequence[str], deployment: str | None = None) -> None:
        """See `EventLog`. The prefix remembers the tasks, too."""
        super().claim(tasks, deployment)
        ours, prefix = ", ".join(tasks), self._server.prefix
        theirs = self._server.remember("tasks", ours)
        if theirs != ours:
            raise OtherLogError(
                "redis",
                f"the prefix {prefix} is of a deployment with the tasks {theirs}, found a bundle with {ours}"
                f"; name another prefix, or remove {prefix}:tasks if the tasks have changed",
            )

    def check_room(self) -> None:
        """See `EventLog`. A Redis that cannot write refuses to remember even what it has."""
        self._server.identity("events")

    def append(self, events: Sequence[Event | Item]) -> None:
        """See `EventLog`."""
        if events:
            records = [f"{FORMAT}-{uuid.uuid4().hex}", *(event.encode() for event in events)]
            with self._server.errors():
                self._append(keys=[self.name, f"{self.name}:identity"], args=records)

    def forget(self, before: Mark) -> None:
        """See `EventLog`."""
        self.check(before)
        if before != START:
            with self._server.errors():
                self._redis.execute_command("XTRIM", self.name, "MINID", before.position)

    @property
    def erased(self) -> int:
        """See `EventLog`."""
        with self._server.errors():
            return int(text(self._redis.get(f"{self.name}:erased") or b"0"))

    def erase(self, until: Mapping[str, int], erasures: int) -> int:
        """See `EventLog`."""
        gone = sum(event.is_of(until) for _, event in every(self))

        def left(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
            is_event = fields[b"e"] and not fields[b"e"].startswith(MARK)
            is_gone = is_event and Event.decode(fields[b"e"]).is_of(until)
            return {**fields, b"e": b""} if is_gone else fields

        self._server.rewrite(self.name, left)
        with self._server.errors():
            self._redis.set(f"{self.name}:erased", erasures)
        return gone

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _records(self, first: Mark, count: int) -> Records:
        """See `EventLog`."""
        with self._server.errors():
            found: Any = self._redis.xrange(self.name, min=first.position or "-", max="+", count=count)
        return [
            (Mark(text(position), text(fields.get(b"d", b""))), fields.get(b"e", b""))
            for position, fields in found
        ]
