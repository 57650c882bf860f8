"""From a bundle to a live ranking service: events that are durable, and nodes that move with them.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Z` resolutions, `R` recents, `E` live pairs, `n` touched nodes.
"""

from mgoe.serving.events import Event, EventReader
from mgoe.serving.follow import Follower
from mgoe.serving.live import LiveNodes
from mgoe.serving.live_bundle import LiveBundle
from mgoe.serving.log import EventLog, FileLog, Position, every
from mgoe.serving.scorer import Scorer
from mgoe.serving.stores import check_no_events, open_events

__all__ = [
    "Event",
    "EventLog",
    "EventReader",
    "FileLog",
    "Follower",
    "LiveBundle",
    "LiveNodes",
    "Position",
    "Scorer",
    "check_no_events",
    "every",
    "open_events",
]
