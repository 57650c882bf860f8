"""The log of a service on Redis, for several machines.

Redis holds a stream of changes, in their order. Each machine applies it to a log in a file of its own, the
replica, by the rules of a log in a file and at the moments of the stream. So positions, digests, rows and
counts are the same on every machine. A replica may be deleted, and is filled again.

An acknowledged record is as durable as the server: with `appendonly yes` and `appendfsync always` it survives
a crash of Redis itself.

Each entry of the stream has a digest, chained over all entries up to it. Where a Redis that was emptied or
exchanged, or that continues an older copy, has other digests than a replica, it takes nothing more. After
`forget` the stream begins where a copy of a replica ends, which Redis keeps beside it.
"""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgoe.bundle.held import Mark
from mgoe.errors import DamagedLogError, OtherLogError, StoreError
from mgoe.serving.events.chain import TABLES, TOO_EARLY, Change, apply, chained, end_of
from mgoe.serving.events.log import ServiceLog, check_window
from mgoe.serving.events.redis_server import RedisServer, text

REPLICA = "replica.sqlite"
"""Name of the replica in the folder of a service's state."""
ENTRIES_PER_READ = 200
"""Entries that are read and applied at once."""
BYTES_PER_PART = 8 << 20
"""Bytes of the parts in which Redis keeps a copy of a replica."""
SECONDS_KEPT = 3600
"""Seconds for which Redis keeps the parts of a copy that was never finished."""
NOW = "now"
"""Field of a change that has a moment of its own, since numbers of entries only rise."""
# last: the numbers that labels had, so that each machine gives the same ones
_FILLED = (*TABLES, "labels", "notes", "followed", "sqlite_sequence")
_SCHEMA = "CREATE TABLE IF NOT EXISTS followed(position TEXT, digest TEXT)"
_BEGIN = (
    "UPDATE identity SET id = :identity",
    "INSERT OR REPLACE INTO notes VALUES ('window', :window)",
    "INSERT INTO followed SELECT '', :identity WHERE NOT EXISTS (SELECT 1 FROM followed)",
)
_FOLLOWED = "SELECT position, digest FROM followed"
_STATE = "SELECT position, digest, id, n FROM followed, identity, notes WHERE name = 'window'"
# an entry, if Redis still holds the one that the caller has followed
_ADD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
if ARGV[2] ~= '' then
  local held = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
  if #held == 0 or held[1][2][2] ~= ARGV[3] then return false end
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local digest = #last > 0 and last[1][2][2] or ARGV[1]
digest = string.sub(redis.sha1hex(digest .. ARGV[4]), 1, 32)
return redis.call('XADD', KEYS[1], '*', 'd', digest, 'r', ARGV[4])
"""
# a copy takes the place of all entries before its last, unless a later copy already has; those that stay are
# written again, since a stream that is trimmed keeps bytes of others
_REPLACE = """
local held = redis.call('XRANGE', KEYS[1], ARGV[1], '+')
if #held == 0 or held[1][1] ~= ARGV[1] or held[1][2][2] ~= ARGV[2] then return redis.call('DEL', KEYS[3]) end
redis.call('PERSIST', KEYS[3])
redis.call('RENAME', KEYS[3], KEYS[2])
redis.call('DEL', KEYS[1])
for _, entry in ipairs(held) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
"""


class RedisLog(ServiceLog):
    """A log on a Redis server, for any number of services.

    It answers from its replica, which `follow` brings up to date.

    Args:
        url: See `RedisServer`. The folder that it names is that of the replica, which processes of one
            machine share; without one the replica is temporary.
        window: See `ServiceLog`.

    Raises:
        StoreError: The replica cannot be opened, or is damaged. What is wrong with Redis is raised when the
            log is used.
        MissingExtra: The client is not installed.
    """

    _is_replica = True

    def __init__(self, url: str, window: int | None = None):
        self._server, self._requested_window = RedisServer(url), window
        self._closing = ExitStack()
        folder = self._server.state or self._closing.enter_context(TemporaryDirectory(prefix="mgoe-"))
        super().__init__(Path(folder) / REPLICA, window)
        self.place, self._stream = "redis", f"{self._server.prefix}:events"
        self._add_entry, self._replace = map(self._server.client.register_script, (_ADD, _REPLACE))
        self._store.write(lambda connection: connection.execute(_SCHEMA))
        with suppress(StoreError):
            self.follow()

    @property
    def durable(self) -> bool | None:
        """See `RedisServer`."""
        return self._server.durable

    def claim(self, tasks: Sequence[str], deployment: str | None = None) -> None:
        """See `ServiceLog`. The prefix remembers the tasks, too."""
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
        """See `ServiceLog`. A Redis that cannot write refuses to remember even what it has."""
        self._server.identity  # noqa: B018
        super().check_room()

    def settled(self, delay: int = 0, now: int | None = None) -> int:
        """See `ServiceLog`. The present is that of Redis, which dates what is taken."""
        return super().settled(delay, self._server.now if now is None else now)

    def forget(self, events: int = 0, exposures: int = 0, items: int = 0, delay: int = 0) -> bool:
        """See `ServiceLog`. Redis then keeps a copy of the replica, with which a fresh one begins."""
        dropped = super().forget(events, exposures, items, delay)
        if dropped:
            self._keep_copy()
        return dropped

    def follow(self) -> None:
        """Apply to the replica what has come since, from every machine.

        Raises:
            OtherLogError: Redis no longer holds what the replica has followed.
            StoreError: Redis is away, or an entry is damaged.
        """
        has_more = True
        while has_more:
            if entries := self._later():
                self._store.write(partial(self._apply, entries))
            has_more = len(entries) >= ENTRIES_PER_READ - 1  # one of them may be the last that was applied

    def close(self) -> None:
        """See `ServiceLog`."""
        super().close()
        self._server.client.close()
        self._closing.close()

    def _change(self, change: Change, now: int | None = None) -> dict[int, int]:
        """Add a change to the stream, with its moment unless Redis dates it.

        The replica then follows up to it, unless there are events alone, which wait for their readers.
        """
        payload = json.dumps(change if now is None else {**change, NOW: now})
        keys, position = [self._stream, f"{self._stream}:identity"], None
        _, exposures, labels, _ = change.get("append", ((), True, (), 0))
        while not position:
            followed, identity = self._state()
            with self._server.errors():
                position = self._add_entry(keys, [identity, *followed, payload])
            if not position or exposures or labels:
                self.follow()
        return dict(self._store.read(TOO_EARLY, {"rows": json.dumps(labels)})) if labels else {}

    def _clean(self) -> None:
        """See `ServiceLog`. Replicas of other machines follow, as all else."""
        self._keep_copy()
        self._server.rewrite()
        super()._clean()

    def _state(self) -> tuple[Mark, str]:
        """Return up to where the replica has followed its log, and the identity of that: a replica that has
        followed nothing yet is named after the log on Redis."""
        if not (found := self._store.read(_STATE)):
            held = int(self._server.remember("events:window", str(self.window)))
            check_window("redis", held, self._requested_window)
            named = {"identity": self._server.identity, "window": held}
            self._store.write(lambda connection: [connection.execute(query, named) for query in _BEGIN])
            return self._state()
        ((*followed, identity, self.window),) = found
        return Mark(*followed), identity

    def _later(self) -> list[Any]:
        """Return some entries after the last that the replica has applied.

        That one comes with them: its digest shows that they are of the log that the replica has followed.
        """
        (followed, identity), client = self._state(), self._server.client
        with self._server.errors():
            entries: Any = client.xrange(self._stream, min=followed.position or "-", count=ENTRIES_PER_READ)
            if entries and Mark(text(entries[0][0]), text(entries[0][1].get(b"d"))) == followed:
                return entries[1:]
            held, has_copy = client.get(f"{self._stream}:identity"), client.exists(f"{self._stream}:copy")
        if text(held) != identity:
            raise self._lost("was emptied, or is another log than")
        if followed.position == "" and not has_copy:
            return entries
        self._read_copy(followed)
        return self._later()

    def _apply(self, entries: list[Any], connection: sqlite3.Connection) -> None:
        """Apply entries to the replica, but for those that another process has applied meanwhile."""
        position, digest = connection.execute(_FOLLOWED).fetchone()
        for at, fields in entries:
            if Mark(text(at)).number <= Mark(position).number:
                continue
            payload, position = fields.get(b"r", b""), text(at)
            digest = chained(digest, payload)
            if digest != text(fields.get(b"d")):
                raise DamagedLogError(
                    "redis", f"{self._stream} is damaged at {position}; restore Redis from an intact copy"
                )
            change = json.loads(payload)
            moment = change.pop(NOW, int(position.partition("-")[0]) * 1000)
            apply(connection, change, moment)
        connection.execute("UPDATE followed SET position = ?, digest = ?", (position, digest))

    def _keep_copy(self) -> None:
        """Have Redis keep a copy of the replica in place of the entries that are in it, but for the last."""
        name, client = f"{self._stream}:copy:{uuid.uuid4().hex}", self._server.client
        with closing(self._store.copy()) as opened:
            followed, copy = opened.execute(_FOLLOWED).fetchone(), opened.serialize()
        if not followed or not followed[0]:  # nothing has been written yet
            return
        with self._server.errors():
            for first in range(0, len(copy), BYTES_PER_PART):
                client.rpush(name, zlib.compress(copy[first : first + BYTES_PER_PART]))
                client.expire(name, SECONDS_KEPT)
            self._replace([self._stream, f"{self._stream}:copy", name], followed)

    def _read_copy(self, followed: Mark) -> None:
        """Fill the replica from the copy that Redis keeps.

        Args:
            followed: Up to where the replica has followed entries that are no longer there.

        Raises:
            OtherLogError: The copy does not continue there.
        """
        with self._server.errors():
            parts: Any = self._server.client.lrange(f"{self._stream}:copy", 0, -1)
        if not parts:
            raise self._lost()
        with closing(sqlite3.connect(":memory:")) as copy:
            copy.deserialize(b"".join(map(zlib.decompress, parts)))
            self._store.write(partial(self._fill, copy, followed))

    def _fill(self, copy: sqlite3.Connection, followed: Mark, connection: sqlite3.Connection) -> None:
        if connection.execute(_FOLLOWED).fetchone() != followed:  # another process has gone on
            return
        last, digest = end_of(connection)
        at = copy.execute(
            "SELECT id, digest FROM chain WHERE id >= ? ORDER BY id LIMIT 1", (last,)
        ).fetchone()
        later = Mark(*copy.execute(_FOLLOWED).fetchone()).number > followed.number
        if not later or (last and (at is None or (at[0] == last and at[1].hex() != digest))):
            raise self._lost()
        for table in _FILLED:
            rows = copy.execute(f"SELECT * FROM {table}")
            places = ", ".join("?" * len(rows.description))
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)

    def _lost(self, what: str = "has lost the end, or continues an older copy, of") -> OtherLogError:
        return OtherLogError(
            "redis",
            f"{self._stream} {what} what {self._store.path} has followed; restore a newer copy of Redis, or "
            f"stop the services and remove {self._store.path}* to follow this one",
        )
