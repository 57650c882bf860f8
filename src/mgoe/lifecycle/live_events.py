"""Live events that a bundle's graph lacks, and how they are read."""

import logging

import ibis
import pyarrow as pa

from mgoe._util.tables import hand_over, open_duckdb
from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark, mark_of, read_held
from mgoe.config import RunSettings
from mgoe.experiments.graphs import saved_settings, settings_of
from mgoe.graph import MacroGraph
from mgoe.serving import EventLog, EventReader
from mgoe.serving.events.event import Interaction, SeenEvents, with_ids_of

logger = logging.getLogger(__name__)


def since(bundle: Bundle, log: EventLog) -> tuple[list[Interaction], Mark]:
    """Return the live events that a bundle's graph lacks, and where the log ends.

    Raises:
        StoreError: The log is away, or does not continue where the bundle holds it.
    """
    held = mark_of(read_held(bundle.path), log.identity)
    log.check(held)
    found, mark, strange = later(log, held, EventReader.of(bundle))
    if strange:
        logger.info(
            f"{strange:,} events are left out, because their ids have another type than those of the bundle"
        )
    logger.info(f"{len(found):,} events are newer than the bundle's graph")
    return found, mark


def later(log: EventLog, held: Mark, reader: EventReader) -> tuple[list[Interaction], Mark, int]:
    """Return the interactions after a mark, each once.

    Also return where the log ends, and the number of events after the mark whose ids are of another type.
    """
    seen, found = SeenEvents(), list[Interaction]()
    mark, limit, strange, after = held, log.order(held), 0, START
    while part := log.read(after):
        marks, events = zip(*part, strict=True)
        for mark, event in zip(marks, with_ids_of(events, reader.kinds), strict=True):
            later = log.order(mark) > limit
            if event is None:  # the bundle cannot hold its ids
                strange += later
            elif event.behavior in reader.behaviors:
                new = seen.add(event, reader.behaviors[event.behavior])
                found += sorted(new, key=lambda interaction: interaction[-1]) if later else []
        after = marks[-1]
    return found, mark, strange


def table_of(interactions: list[Interaction], bundle: Bundle) -> ibis.Table:
    """Return interactions as a table in which each task is a behaviour of its own name."""
    users, items, times, tasks = zip(*interactions, strict=True)
    rows = pa.table(
        {
            "user": pa.array(users, bundle.encoders.users.type),
            "item": pa.array(items, bundle.encoders.items.type),
            "time": pa.array(times, pa.int64()),
            "behavior": pa.array([bundle.tasks[task] for task in tasks], pa.string()),
        }
    )
    return hand_over(open_duckdb(), "events", rows)


def settings_of_events(graph: MacroGraph) -> RunSettings:
    """Return how live events are read, whatever the form of the log was."""
    log = settings_of(graph, [])
    raw = {
        "data": {
            "log": ["-"],
            "form": "events",
            "user": "user",
            "item": "item",
            "time": "time",
            "time_unit": "us",
            "bucket": log.data.bucket,
        },
        "tasks": [task.name for task in log.tasks],
        "graph": graph.meta["settings"],
    }
    return saved_settings(graph, raw)
