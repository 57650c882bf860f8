"""Live events: checked as they come in, written to a durable log, read back in order."""

from mgoe.serving.events.event import Event, EventReader
from mgoe.serving.events.file_log import FileLog
from mgoe.serving.events.log import EventLog, Position, every
from mgoe.serving.events.seen import SeenEvents
from mgoe.serving.events.stores import check_no_events, open_events

__all__ = [
    "Event",
    "EventLog",
    "EventReader",
    "FileLog",
    "Position",
    "SeenEvents",
    "check_no_events",
    "every",
    "open_events",
]
