"""Retention: rows of a service that every kept version holds are removed from its logs when they are old."""

import time
from contextlib import closing

from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, exposures_of, mark_of, read_held
from mgoe.data.waiting import longest_delay
from mgoe.lifecycle.registry import Registry
from mgoe.serving import ServiceLog, every, open_log

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
    with closing(open_log(state, make=False)) as log:
        sources = log.identity, exposures_of(log.identity)
        marks = [[mark_of(one, source) for source in sources] for one in held]
        least = min((learned for learned, _ in marks), key=lambda mark: mark.number)
        events, exposures = last_before(log, least, moment), min(shown.number for _, shown in marks)
        exposures = min(exposures, log.before(moment))
        items = min(max(one.number for one in both) for both in marks)  # all up to its last row were read
        delay = max(longest_delay(bundle.settings.tasks) for bundle in opened)
        log.forget(events.number, exposures, items, delay)
    return {"events": events.position, "exposures": str(exposures or "")}


def last_before(log: ServiceLog, upto: Mark, moment: int) -> Mark:
    """Return the last mark up to another one whose event, and all before it, were before a moment."""
    last = START
    for mark, event in every(log):
        if mark.number > upto.number or event.time >= moment:
            break
        last = mark
    return last
