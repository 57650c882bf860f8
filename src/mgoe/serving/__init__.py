"""From a bundle to a live ranking service: events that are durable, and nodes that move with them.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Z` resolutions, `R` recents, `E` live pairs, `n` touched
nodes."""

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
