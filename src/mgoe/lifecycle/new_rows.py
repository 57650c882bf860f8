"""What a bundle's graph lacks: new files of its log, live events, and exposures that a service has taken."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from mgoe._util.tables import hand_over
from mgoe.bundle import Bundle
from mgoe.bundle.training_state import waiting_of
from mgoe.config import RunSettings
from mgoe.data import Encoders, Examples
from mgoe.errors import BundleError
from mgoe.experiments.graphs import add_events, saved_settings, settings_of, vocabularies
from mgoe.experiments.stages import Say, ShowBuild
from mgoe.graph import MacroGraph, update_graph
from mgoe.lifecycle.new_files import check_new, known_rows, learned_until, span_of
from mgoe.lifecycle.sources import Sources
from mgoe.lifecycle.taken import TakenExposures
from mgoe.lifecycle.window import new_examples
from mgoe.serving import EventLog, EventReader, Position, open_events
from mgoe.serving.events.event import START, Interaction, SeenEvents, with_ids_of
from mgoe.serving.online.live import position_of


@dataclass(frozen=True)
class Part:
    """New rows of one kind.

    Attributes:
        settings: How they are read.
        log: Files that hold them.
        table: Read instead of files.
        whole: Whether rows on which nothing was done are among them or can be drawn.
    """

    settings: RunSettings
    log: list[str]
    table: ir.Table | None = None
    whole: bool = True


@dataclass
class NewRows:
    """What the graph of a bundle lacks.

    Attributes:
        bundle: The bundle.
        parts: The rows, events before exposures: newcomers among events have numbers in the live service.
        ends: Where the logs of live events and exposures end, by identity.
        live: The log of live events; None for files.
        taken: Exposures of a service; None if it takes none.
        waiting: Files of exposures that are left to the next time.
    """

    bundle: Bundle
    parts: list[Part]
    ends: dict[str, Position] = field(default_factory=dict)
    live: EventLog | None = None
    taken: TakenExposures | None = None
    waiting: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, bundle: Bundle, sources: Sources, say: Say) -> Self:
        """Find what is new; exposures of a service are read by `fetch`.

        Args:
            bundle: The bundle.
            sources: Where new rows are; files hold no others.
            say: Callback for lines of progress.

        Raises:
            MgoeError: The log of live events is missing or damaged.
        """
        log, events = sources.files, sources.events
        if events is None:
            return cls(bundle, [Part(settings_of(bundle.graph, log), log)])
        live = open_events(events, make=False) if isinstance(events, str | Path) else events
        taken = None if live is events else TakenExposures.of(bundle, str(events))
        parts, ends = _since(bundle, live, say)
        return cls(bundle, parts, ends, live, taken)

    def __bool__(self) -> bool:
        return bool(self.parts) or (self.taken is not None and self.taken.upto > self.taken.after)

    def wait_for_labels(self, folder: Path, now: int, say: Say) -> None:
        """Leave rows of files whose labels are not all known to the next update; take those that waited.

        Args:
            folder: An existing folder for files, which stay while rows are read.
            now: The present in microseconds since 1970.
            say: Callback for lines of progress.

        Raises:
            DataError: Some rows do not come after those of the bundle, or break another rule.
        """
        self.waiting = waiting_of(self.bundle)
        if self.live is None:
            [part] = self.parts
            check_new(self.bundle, part.log, folder, say)
            files, self.waiting = known_rows(self.bundle, part.log, self.waiting, folder, now)
            self.parts = [Part(settings_of(self.bundle.graph, files), files)] if files else []
            if self.waiting:
                say("exposures whose labels are not all known wait, and are read with the next log")

    def require(self, learns: bool) -> None:
        """Require that something is new.

        Args:
            learns: Whether macro nodes that no longer fit the graph will do: they are learned again.

        Raises:
            BundleError: Nothing is.
        """
        if not self and not (learns and self.bundle.graph.drift):
            wait = ", or when exposures have waited for their labels" if self.taken else ""
            raise BundleError(
                self.bundle.path,
                f"holds every event of that log; try again when there are new ones{wait}",
            )

    def fetch(self, file: Path, say: Say) -> None:
        """Write the exposures that a service has taken to a file, which must stay while rows are read."""
        if self.taken is None:
            return
        self.ends |= {self.taken.log.identity: str(self.taken.upto)}
        if self.taken.write(file, say):
            self.parts.append(Part(settings_of(self.bundle.graph, [str(file)]), [str(file)]))

    def until(self, folder: Path) -> int:
        """Return the time of the newest row that a bundle with these has learned from, see `learned_until`.

        Args:
            folder: An existing folder for the work.
        """
        files = [part for part in self.parts if part.log]
        ends = [span_of(part.settings, part.log, folder)[1] for part in files]
        return max([learned_until(self.bundle), *ends])

    def examples(self, folder: Path, training: Encoders | None = None) -> Examples | None:
        """Return the newest rows as labelled examples, none of which the graph of the bundle holds.

        Args:
            folder: A folder to make for the work, and to remove.
            training: Gives the indices of ids of rows that are trained on, see `new_examples`.

        Returns:
            None where no part is whole.
        """
        whole = [part for part in self.parts if part.whole]
        if not whole:
            return None
        part = whole[-1]
        return new_examples(self.bundle, part.settings, part.log, folder, part.table, training)

    def add_to(self, graph: MacroGraph, recluster: bool, say: Say) -> MacroGraph:
        """Add everything to the graph of a new bundle, and learn its macro nodes again if asked to.

        The new bundle takes the ids of users and items from its graph.
        """
        for part in self.parts:
            last = recluster and part is self.parts[-1]
            graph = add_events(graph, part.settings, part.log, recluster=last, table=part.table, say=say)
        if not self.parts and recluster:
            graph = update_graph(graph, None, ShowBuild(say), recluster)
        for name, file in vocabularies(graph.path).items():
            shutil.copyfile(file, graph.path.parent / name)
        return graph

    def forget(self) -> None:
        """Remove from the logs of a service what the bundle already held."""
        if self.live is not None:
            self.live.forget(position_of(self.bundle.path, self.live))
            if self.taken is not None:
                self.taken.forget()


def _since(bundle: Bundle, log: EventLog, say: Say) -> tuple[list[Part], dict[str, Position]]:
    """Return the live events that a bundle's graph lacks, if any, and where the log ends, by its identity."""
    found, position, strange = later(log, position_of(bundle.path, log), EventReader.of(bundle))
    if strange:
        say(f"{strange:,} events are left out, because their ids have another type than those of the bundle")
    say(f"{len(found):,} events are newer than the bundle's graph")
    ends = {log.identity: position}
    if not found:
        return [], ends
    settings, table = _settings(bundle.graph), _table(found, bundle)
    return [Part(settings, [], table, bundle.settings.form == "events")], ends


def later(log: EventLog, held: Position, reader: EventReader) -> tuple[list[Interaction], Position, int]:
    """Return the interactions after a position, each once.

    Also return where the log ends, and the number of events after the position whose ids are of another type.
    """
    seen, found = SeenEvents(), list[Interaction]()
    position, limit, strange, after = held, log.order(held), 0, START
    while part := log.read(after):
        positions, events = zip(*part, strict=True)
        for position, event in zip(positions, with_ids_of(events, reader.kinds), strict=True):
            later = log.order(position) > limit
            if event is None:  # the bundle cannot hold its ids
                strange += later
            elif event.behavior in reader.behaviors:
                new = seen.add(event, reader.behaviors[event.behavior])
                found += sorted(new, key=lambda interaction: interaction[-1]) if later else []
        after = positions[-1]
    return found, position, strange


def _table(interactions: list[Interaction], bundle: Bundle) -> ibis.Table:
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
    return hand_over(ibis.duckdb.connect(), "events", rows)


def _settings(graph: MacroGraph) -> RunSettings:
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
