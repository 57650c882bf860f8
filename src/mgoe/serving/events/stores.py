"""Open the log of live events by its name: a folder of one machine, or a Redis server of several."""

from pathlib import Path

from mgoe.errors import OutputError, StoreError
from mgoe.serving.events.file_log import FileLog
from mgoe.serving.events.log import IDENTITY, EventLog

REDIS = ("redis://", "rediss://", "unix://")
EVENTS = "events"
"""Folder of the log below that of a service's state."""


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """Open the log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or a Redis server as in redis://host:6379/0.
        make: Whether to create a log that is missing and to repair one. Otherwise the folder is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.
    """
    if str(where).startswith(REDIS):
        from mgoe.serving.events.redis_log import RedisLog

        return RedisLog(str(where))
    folder = Path(where) / EVENTS
    if not make and not folder.is_dir():
        fix = "name the state folder of `mgoe serve`, or a redis://"
        raise StoreError(where, f"holds no log of events (a folder {EVENTS!r} is missing); {fix}")
    return FileLog(folder, make=make)


def check_no_events(folder: Path) -> None:
    """Check that a folder that is about to be replaced contains no log of live events.

    Raises:
        OutputError: It contains one.
    """
    for identity in folder.rglob(f"{EVENTS}/{IDENTITY}"):
        rule = "holds live events of a service, which would be lost with it; move it to another folder first"
        raise OutputError(identity.parents[1], rule)
