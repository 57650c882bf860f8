"""Exposures and labels on Redis, for several machines.

Redis holds a stream of what was taken, in the order of taking. Each machine applies it to a log in a file of
its own, the replica, by the rules of a log in a file and at the moments of the stream. So positions, digests,
rows and counts are the same on every machine. A replica may be deleted, and is filled again.

Each entry of the stream has a digest, chained over all entries up to it. Where a Redis that was emptied or
exchanged, or that continues an older copy, has other digests than a replica, it takes nothing more. After
`forget` the stream begins where a copy of a replica ends, which Redis keeps beside it.
"""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgoe.bundle.held import START, Mark
from mgoe.errors import DamagedLogError, OtherLogError, StoreError
from mgoe.serving.events.chain import chained
from mgoe.serving.events.exposure_log import TOO_EARLY, ExposureLog, Record, apply, check_window
from mgoe.serving.events.redis_server import RedisServer, text
from mgoe.serving.events.store import end_of

REPLICA = "exposures.sqlite"
"""Name of the replica in the folder of a service's state."""
ENTRIES = 200
"""Entries that are read and applied at once."""
CHUNK = 8 << 20
"""Bytes of the parts in which Redis keeps a copy of a replica."""
KEPT = 3600
"""Seconds for which Redis keeps the parts of a copy that was never finished."""
_TABLES = ("exposures", "labels", "exposure_counts", "sqlite_sequence", "followed")
_SCHEMA = "CREATE TABLE IF NOT EXISTS followed(position TEXT, digest TEXT)"
_BEGIN = (
    "UPDATE identity SET id = :identity",
    "UPDATE exposure_counts SET n = :window WHERE name = 'window'",
    "INSERT INTO followed SELECT '', :identity WHERE NOT EXISTS (SELECT 1 FROM followed)",
)
_FOLLOWED = "SELECT position, digest FROM followed"
# an entry, if Redis still holds the one that the caller has followed
_ADD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
if ARGV[2] ~= '' then
  local held = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
  if #held == 0 or held[1][2][2] ~= ARGV[3] then return false end
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local digest = #last > 0 and last[1][2][2] or ARGV[1]
digest = string.sub(redis.sha1hex(digest .. ARGV[5]), 1, 32)
return redis.call('XADD', KEYS[1], ARGV[4], 'd', digest, 'r', ARGV[5])
"""
# a copy takes the place of all entries before its last, unless a later copy already has
_REPLACE = """
local held = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #held == 0 or held[1][2][2] ~= ARGV[2] then return redis.call('DEL', KEYS[3]) end
redis.call('PERSIST', KEYS[3])
redis.call('RENAME', KEYS[3], KEYS[2])
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
"""


class RedisExposures(ExposureLog):
    """A log of exposures on a Redis server, for any number of services.

    It answers from its replica, which `follow` brings up to date.

    Args:
        url: See `RedisServer`. The folder that it names is that of the replica, which processes of one
            machine share; without one the replica is temporary.
        window: See `ExposureLog`.

    Raises:
        StoreError: The replica cannot be opened, or is damaged. What is wrong with Redis is raised when the
            log is used.
        MissingExtra: The client is not installed.
    """

    _durable = False  # what a replica loses it follows again

    def __init__(self, url: str, window: int | None = None):
        self._server, self._given = RedisServer(url), window
        self._closing = ExitStack()
        folder = self._server.state or self._closing.enter_context(TemporaryDirectory(prefix="mgoe-"))
        super().__init__(Path(folder) / REPLICA, window)
        self._stream = f"{self._server.prefix}:exposures"
        self._add_entry, self._replace = map(self._server.client.register_script, (_ADD, _REPLACE))
        self._store.write(lambda connection: connection.execute(_SCHEMA))
        with suppress(StoreError):
            self.follow()

    def settled(self, delay: int = 0, now: int | None = None) -> int:
        """See `ExposureLog`. The present is that of Redis, which dates what is taken."""
        return super().settled(delay, self._server.now if now is None else now)

    def forget(self, before: int, delay: int = 0) -> bool:
        """See `ExposureLog`. Redis then keeps a copy of the replica, with which a fresh one begins."""
        dropped = super().forget(before, delay)
        if dropped:
            self._keep_copy()
        return dropped

    def erase(self, until: Mapping[str, int]) -> dict[str, int]:
        """See `ExposureLog`. Replicas of other machines follow, as all else."""
        erased = super().erase(until)
        if any(erased.values()):
            self._keep_copy()
            self._server.rewrite(self._stream, lambda fields: fields)
            self._store.vacuum()
        return erased

    def follow(self) -> None:
        """Apply to the replica what has come since, from every machine.

        Raises:
            OtherLogError: Redis no longer holds what the replica has followed.
            StoreError: Redis is away, or an entry is damaged.
        """
        while entries := self._later():
            self._store.write(partial(self._apply, entries))

    def close(self) -> None:
        """See `ExposureLog`."""
        super().close()
        self._server.client.close()
        self._closing.close()

    def _change(self, record: Record, now: int | None = None, after: Mark = START) -> dict[int, int]:
        """Add an entry to the stream, at a whole millisecond, and apply all up to it."""
        self.check(after)
        self._begin()
        moment = "*" if now is None else f"{now // 1000}-*"
        payload = json.dumps(record)
        keys, position = [self._stream, f"{self._stream}:identity"], None
        while not position:
            ((at, digest),) = self._store.read(_FOLLOWED)
            with self._server.errors():
                position = self._add_entry(keys, [self._store.identity, at, digest, moment, payload])
            self.follow()
        _, labels, _ = record.get("take", ((), (), 0))
        return dict(self._store.read(TOO_EARLY, {"rows": json.dumps(labels)}))

    def _begin(self) -> None:
        """Name a replica that has followed nothing yet after the log on Redis."""
        if not self._store.read(_FOLLOWED):
            held = int(self._server.remember("exposures:window", str(self.window)))
            check_window("redis", held, self._given)
            named = {"identity": self._server.identity("exposures"), "window": held}
            self._store.write(lambda connection: [connection.execute(query, named) for query in _BEGIN])
        self.window = self._counts["window"]

    def _later(self) -> list[Any]:
        """Return some entries after the last that the replica has applied."""
        self._begin()
        followed, client = Mark(*self._store.read(_FOLLOWED)[0]), self._server.client
        with self._server.errors(), client.pipeline() as both:
            both.get(f"{self._stream}:identity")
            both.xrange(self._stream, min=followed.position or "-", count=ENTRIES)
            identity, entries = both.execute()
            begins = followed.position == "" and not client.exists(f"{self._stream}:copy")
        if text(identity) != self._store.identity:
            raise self._lost("was emptied, or is another log than")
        if begins:
            return entries
        if entries and Mark(text(entries[0][0]), text(entries[0][1].get(b"d"))) == followed:
            return entries[1:]
        self._read_copy(followed)
        return self._later()

    def _apply(self, entries: list[Any], connection: sqlite3.Connection) -> None:
        """Apply entries to the replica, but for those that another process has applied meanwhile."""
        position, digest = connection.execute(_FOLLOWED).fetchone()
        for at, fields in entries:
            if Mark(text(at)).number <= Mark(position).number:
                continue
            payload, position = fields.get(b"r", b""), text(at)
            moment = int(position.partition("-")[0]) * 1000
            digest = chained(digest, payload)
            if digest != text(fields.get(b"d")):
                raise DamagedLogError(
                    "redis", f"{self._stream} is damaged at {position}; restore Redis from an intact copy"
                )
            apply(connection, json.loads(payload), moment)
        connection.execute("UPDATE followed SET position = ?, digest = ?", (position, digest))

    def _keep_copy(self) -> None:
        """Have Redis keep a copy of the replica in place of the entries that are in it, but for the last."""
        name, client = f"{self._stream}:copy:{uuid.uuid4().hex}", self._server.client
        with closing(self._store.copy()) as opened:
            followed, copy = opened.execute(_FOLLOWED).fetchone(), opened.serialize()
        with self._server.errors():
            for first in range(0, len(copy), CHUNK):
                client.rpush(name, zlib.compress(copy[first : first + CHUNK]))
                client.expire(name, KEPT)
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
        last, digest = end_of(connection, "exposures")
        at = copy.execute("SELECT id, digest FROM exposures WHERE id >= ? LIMIT 1", (last,)).fetchone()
        later = Mark(*copy.execute(_FOLLOWED).fetchone()).number > followed.number
        if not later or (last and (at is None or (at[0] == last and at[1].hex() != digest))):
            raise self._lost()
        for table in _TABLES:
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
