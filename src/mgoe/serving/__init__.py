"""From a bundle to a live ranking service: events that are durable, and nodes that move with them.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Z` resolutions, `R` recents, `E` live pairs, `n` touched
nodes.

A module is imported when one of its names is first used: the supervisor of a service needs none.
"""

from typing import TYPE_CHECKING

from mgoe._util.lazy import lazy

if TYPE_CHECKING:
    from mgoe.bundle.held import Mark
    from mgoe.bundle.items import Item
    from mgoe.serving.events.event import Event, EventReader
    from mgoe.serving.events.log import ServiceLog, check_no_events, every
    from mgoe.serving.events.stores import open_log
    from mgoe.serving.online.live import Consumer, LiveNodes
    from mgoe.serving.online.overlay import LiveBundle
    from mgoe.serving.scoring.scorer import Scorer

__all__ = [
    "Consumer",
    "Event",
    "EventReader",
    "Item",
    "LiveBundle",
    "LiveNodes",
    "Mark",
    "Scorer",
    "ServiceLog",
    "check_no_events",
    "every",
    "open_log",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".bundle.held": ("Mark",),
        ".bundle.items": ("Item",),
        "events.event": ("Event", "EventReader"),
        "events.log": ("ServiceLog", "check_no_events", "every"),
        "events.stores": ("open_log",),
        "online.live": ("Consumer", "LiveNodes"),
        "online.overlay": ("LiveBundle",),
        "scoring.scorer": ("Scorer",),
    },
)
