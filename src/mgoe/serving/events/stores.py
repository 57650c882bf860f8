"""Where live events are kept, by its name."""

from __future__ import annotations

from pathlib import Path

from mgoe.errors import OutputError, StoreError
from mgoe.serving.events.log import IDENTITY, EventLog, FileLog

REDIS = ("redis://", "rediss://", "unix://")
EVENTS = "events"
"""Folder of the log below that of a service's state."""


def check_no_events(folder: Path) -> None:
    """See that no log of live events lies in a folder that is about to be replaced.

    Raises:
        OutputError: One does.
    """
    for identity in folder.rglob(f"{EVENTS}/{IDENTITY}"):
        state = identity.parents[1]
        raise OutputError(
            state,
            "holds live events that a service took, and would go with what it lies in; move it away first",
        )


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """The log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or a Redis server as in redis://host:6379/0.
        make: Whether to begin a log where the folder holds none, and to mend one. Without it the folder is only read.

    Raises:
        StoreError: It cannot be reached, or there is none.
    """
    if str(where).startswith(REDIS):
        from mgoe.serving.events.redis import RedisLog

        return RedisLog(str(where))
    if not make and not (Path(where) / EVENTS).is_dir():
        raise StoreError(
            where,
            f"holds no log of events (a folder {EVENTS!r} is missing); name the state folder of `mgoe serve`, or a redis://",
        )
    return FileLog(Path(where) / EVENTS, make=make)
