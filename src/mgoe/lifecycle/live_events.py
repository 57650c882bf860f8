"""Live events that a bundle's graph lacks, and how they are read."""

import logging
from collections.abc import Iterator

import ibis
import pyarrow as pa

from mgoe._util.tables import hand_over, open_duckdb
from mgoe.bundle import Bundle
from mgoe.bundle.held import START, Mark
from mgoe.config import RunSettings
from mgoe.graph import MacroGraph
from mgoe.lifecycle.graphs import saved_settings, settings_of
from mgoe.serving import Event, EventReader, ServiceLog
from mgoe.serving.events.event import Interaction, SeenEvents, with_ids_of

logger = logging.getLogger(__name__)


def later(log: ServiceLog, held: Mark, reader: EventReader) -> tuple[list[Interaction], Mark]:
    """Return the interactions after a mark, each once, and where the log ends."""
    found, end, strange = list[Interaction](), held, 0
    for end, event, new in counted(log, reader):
        if end.number > held.number:
            strange += event is None  # the bundle cannot hold its ids
            found += sorted(new, key=lambda interaction: interaction[-1])
    if strange:
        logger.info(
            f"{strange:,} events are left out, because their ids have another type than those of the bundle"
        )
    logger.info(f"{len(found):,} new events are in the log of the service")
    return found, end


def counted(log: ServiceLog, reader: EventReader) -> Iterator[tuple[Mark, Event | None, set[Interaction]]]:
    """Yield the mark of each event, the event if its ids are of the reader's type, and what counts of it."""
    seen, after = SeenEvents(), START
    while part := log.read(after):
        marked = [(mark, one) for mark, one in part if isinstance(one, Event)]
        events = with_ids_of([one for _, one in marked], reader.kinds)
        for (mark, _), event in zip(marked, events, strict=True):
            mask = 0 if event is None else reader.behaviors.get(event.behavior, 0)
            yield mark, event, seen.add(event, mask) if event is not None and mask else set()
        after = part[-1][0]


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
        "memory": log.memory,
        "graph": log.graph.model_dump(),
    }
    return saved_settings(graph, raw)
