"""Retention: rows of a service that every kept version holds are removed from its logs when they are old."""

import time
from contextlib import closing

from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, mark_of, read_held
from mgoe.data.waiting import longest_delay
from mgoe.lifecycle.registry import Registry
from mgoe.serving import EventLog, every, open_events
from mgoe.serving.events.stores import open_exposures

LEAST = 86_400
"""Seconds that a row stays at least: a row that is sent again is recognised by it, and what came of an answer
is read from it."""


def trim(registry: Registry, state: str, keep: int, now: int | None = None) -> dict[str, str]:
    """Remove events and exposures that the graph of every version of a registry holds, if they are old.

    So a service may still return to any of these versions, and loses nothing. A version that was not made
    from a log of the service keeps all of it, until it is pruned.

    Args:
        registry: The registry.
        state: State folder or Redis server of its service.
        keep: How old rows must be, in seconds.
        now: Microseconds since 1970; by default the present.

    Returns:
        The positions before which events and exposures are gone; empty where all are still there.

    Raises:
        StoreError: A log is away, or damaged.
        BundleError: A version is damaged.
    """
    opened = [Bundle.open(registry.place(one.name), verify=False) for one in registry.versions]
    held = [read_held(bundle.path) for bundle in opened]
    moment = (time.time_ns() // 1000 if now is None else now) - keep * 1_000_000
    with closing(open_events(state, make=False)) as log:
        least = min((mark_of(one, log.identity) for one in held), key=lambda mark: mark.number)
        if (upto := last_before(log, least, moment)) != START:
            log.forget(upto)
    trimmed = {"events": upto.position}
    with closing(open_exposures(state, make=False)) as exposures:
        positions = [mark_of(one, exposures.identity).number for one in held]
        before = min(*positions, exposures.before(moment))
        exposures.forget(before, max(longest_delay(bundle.settings.tasks) for bundle in opened))
    return trimmed | {"exposures": str(before or "")}


def last_before(log: EventLog, upto: Mark, moment: int) -> Mark:
    """Return the last mark up to another one whose event, and all before it, were before a moment."""
    last = START
    for mark, event in every(log):
        if mark.number > upto.number or event.time >= moment:
            break
        last = mark
    return last
