"""From a bundle to a live ranking service: events that are durable, and nodes that move with them.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Z` resolutions, `R` recents, `E` live pairs, `n` touched
nodes."""

from mgoe.serving.events import (
    Event,
    EventLog,
    EventReader,
    FileLog,
    Position,
    check_no_events,
    every,
    open_events,
)
from mgoe.serving.online.consumer import Consumer
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.live_bundle import LiveBundle
from mgoe.serving.scoring.scorer import Scorer

__all__ = [
    "Consumer",
    "Event",
    "EventLog",
    "EventReader",
    "FileLog",
    "LiveBundle",
    "LiveNodes",
    "Position",
    "Scorer",
    "check_no_events",
    "every",
    "open_events",
]
