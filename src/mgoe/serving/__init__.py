"""From a bundle to a live ranking service: events that are durable, and nodes that move with them.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Z` resolutions, `R` recents, `E` live pairs, `n` touched
nodes.

A module is imported when one of its names is first used: the supervisor of a service needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgoe.bundle.held import Mark
    from mgoe.bundle.items import Item
    from mgoe.serving.events.event import Event, EventLog, EventReader, every
    from mgoe.serving.events.exposure_log import ExposureLog
    from mgoe.serving.events.sqlite_log import SqliteLog, check_no_events
    from mgoe.serving.events.stores import Stores, open_events, open_exposures
    from mgoe.serving.online.live import Consumer, LiveNodes
    from mgoe.serving.online.overlay import LiveBundle
    from mgoe.serving.scoring.scorer import Scorer

__all__ = [
    "Consumer",
    "Event",
    "EventLog",
    "EventReader",
    "ExposureLog",
    "Item",
    "LiveBundle",
    "LiveNodes",
    "Mark",
    "Scorer",
    "SqliteLog",
    "Stores",
    "check_no_events",
    "every",
    "open_events",
    "open_exposures",
]

_MODULE_OF = {
    "Consumer": "serving.online.live",
    "Event": "serving.events.event",
    "EventLog": "serving.events.event",
    "EventReader": "serving.events.event",
    "ExposureLog": "serving.events.exposure_log",
    "Item": "bundle.items",
    "LiveBundle": "serving.online.overlay",
    "LiveNodes": "serving.online.live",
    "Mark": "bundle.held",
    "Scorer": "serving.scoring.scorer",
    "SqliteLog": "serving.events.sqlite_log",
    "Stores": "serving.events.stores",
    "check_no_events": "serving.events.sqlite_log",
    "every": "serving.events.event",
    "open_events": "serving.events.stores",
    "open_exposures": "serving.events.stores",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mgoe.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
