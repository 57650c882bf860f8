"""What a bundle lacks: new rows of files, live events, and exposures that a service has taken.

They are read and checked once, into files under our own column names. Graph, calibration, training,
population and release test then read these files.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.tables import write_table
from mgoe.bundle import Bundle
from mgoe.bundle.held import (
    FILES,
    NEW_STORE,
    Held,
    Mark,
    is_new,
    last_of_files,
    latest_mark,
    mark_of,
    read_held,
)
from mgoe.bundle.held import Sources as HeldSources
from mgoe.bundle.items import Item, new_items
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.membership import check_deployment, deployment_of
from mgoe.config import RunSettings, seconds
from mgoe.data import Encoders, Examples, later_events, newest_window, place_of
from mgoe.data.arrow import one_array
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.log import NO_ROWS, reading
from mgoe.data.schema import NODES, checked_rows
from mgoe.data.waiting import longest_delay
from mgoe.data.window import later_exposures
from mgoe.errors import BundleError, ConfigError, DataError
from mgoe.graph import MacroGraph
from mgoe.graph.sweep import Events, follow
from mgoe.lifecycle.erased_bundle import list_for
from mgoe.lifecycle.graphs import add_events, changing, settings_of, take_items
from mgoe.lifecycle.taken import later, settings_of_events, table_of, write_rows
from mgoe.pipeline.whole_log import OpenedRows, opened_log, vocabularies
from mgoe.serving import EventReader, open_log
from mgoe.serving.events.log import records
from mgoe.serving.events.marked import NUMBER, check_apart, check_later, read_marks

logger = logging.getLogger(__name__)

GAP = 2
"""Time buckets without a row from which a gap is reported."""


@dataclass(frozen=True)
class Sources:
    """Where new rows are: in files of the log, or in the live events and exposures of a service.

    Args:
        log: Parquet or CSV files, folders or globs; one or several.
        events: State folder of a service, or the address of its Redis.
        later: Whether files may hold rows that were learned before. These are left out, and so are rows whose
            labels are not known yet, as the `delay` of a task says. By default files hold only new rows.
        adopt: Whether events may be of another deployment than the bundle, which is then taken for one of it.

    Raises:
        ConfigError: Both are given, or none.

    Example:
        >>> Sources("logs/today.parquet").files
        ['logs/today.parquet']
    """

    log: str | Sequence[str] = ()
    events: Path | str | None = None
    later: bool = False
    adopt: bool = False

    def __post_init__(self) -> None:
        if (self.events is None) == (not self.log):
            raise ConfigError("new rows", "are live events or files, found both or none; give one of the two")

    @property
    def files(self) -> list[str]:
        """Files, folders and globs; empty for live events."""
        return [self.log] if isinstance(self.log, str) else [*self.log]


@dataclass(frozen=True)
class Part:
    """New rows of one kind, checked.

    Attributes:
        settings: How they were read.
        place: What they are, for messages.
        file: A Parquet file that holds them as `read_rows` returns them.
        live: Whether they are live events.
    """

    settings: RunSettings
    place: str
    file: Path
    live: bool = False

    @contextmanager
    def opened(self, folder: Path, trains: bool = False) -> Iterator[OpenedRows]:
        """Yield the rows, and what they are.

        Args:
            folder: An existing folder for what does not fit in memory.
            trains: Whether the weights of the rows are among their columns.
        """
        with opened_log(self.settings, [str(self.file)], folder, None) as rows, reading(self.place):
            yield rows if trains or "weight" not in rows.columns else rows.drop("weight"), self.place

    @property
    def times(self) -> NDArray[np.int64]:
        """Time of each row, in microseconds since 1970."""
        return pq.read_table(self.file, columns=["time"])["time"].to_numpy()

    @property
    def span(self) -> tuple[int, int]:
        """Times of the first and of the last row, in microseconds since 1970."""
        times = self.times
        return int(times.min()), int(times.max())


@dataclass
class NewRows:
    """What a bundle lacks.

    Attributes:
        bundle: The bundle.
        sources: Where the rows are from.
        folder: An existing folder for files of the rows, and for what does not fit in memory.
        parts: The rows, events before exposures: newcomers among events have numbers in the live service.
        held: What is held of each source: by the bundle, or by each of several bundles.
        ends: What a bundle with the rows holds of their sources.
        now: The present, in microseconds since 1970.
        deployment: What a bundle with the rows belongs to.
    """

    bundle: Bundle
    sources: Sources
    folder: Path
    parts: list[Part] = field(default_factory=list)
    held: list[HeldSources] = field(default_factory=list)
    ends: dict[str, Held] = field(default_factory=dict)
    now: int = field(default_factory=lambda: time.time_ns() // 1000)
    deployment: str | None = None

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        sources: Sources,
        folder: Path,
        *,
        trains: bool = False,
        beside: Sequence[Bundle] = (),
        now: int | None = None,
    ) -> Self:
        """Read what is new.

        Rows of a service, or of files that say which of its rows they hold, are new by their positions. Rows
        of other files are new by their times, or all.

        Args:
            bundle: The bundle.
            sources: Where to look.
            folder: An existing folder, where the rows are kept while they are read.
            trains: Whether rows have weights, as in training.
            beside: Other bundles; rows of a service that one of them holds are not new either. Of later rows
                of files, those are new that one of them has not learned.
            now: When the work began of which this is a part.

        Raises:
            MgoeError: A log cannot be read, a row breaks a rule, the log of live events is damaged, or rows
                may be held already.
        """
        bundles = [bundle, *beside]
        new = cls(bundle, sources, folder, held=[read_held(one.path) for one in bundles])
        new.now, new.deployment = now or new.now, deployment_of(bundle)
        if sources.events is None:
            after = min(map(learned_until, bundles)) if sources.later else None
            new._read_files("rows", sources.files, trains, after)
        else:
            new._read_service(sources.events, trains, bundles)
        return new

    def _read_files(self, name: str, log: list[str], trains: bool, after: int | None = None) -> None:
        """Check and keep the rows of files, of those that no service has written the rows after a moment."""
        settings, (marked, others) = settings_of(self.bundle.graph, log), read_marks(log)
        weight = self.bundle.settings.data.weight if trains else None
        unread = {"where": None} if marked else {}  # rows of a service have no other columns
        data = settings.data.model_copy(update={"weight": weight} | unread)
        settings = settings.model_copy(update={"data": data})
        if len(marked) + bool(others) > 1:
            raise ConfigError(
                "new rows",
                "must be of one log of a service, or of files that none has written, found several of these; "
                "add them in several updates",
            )
        with opened_log(settings, log, self.folder, None) as source:
            for identity, files in marked.items():
                mark = latest_mark(self.held, identity)
                files.check(mark, source)
                new = source.filter(cast(Expr, source[NUMBER]) > mark.number)
                self._hold(identity, files.upto, self._keep(name, new, settings, place_of(log)))
            if others and (part := self._keep(name, source, settings, place_of(log), after, empty=False)):
                first, last = part.span
                check_later(first, self.held[0], part.place)
                self.ends[FILES] = Held("", "", last)
                gap = 0 if after is None else (first - after) // 1_000_000
                if gap // seconds(settings.data.bucket) >= GAP:
                    logger.info(f"no row is in the {gap:,} s before {iso_time(first)}; is a file missing?")

    def _read_service(self, service: Path | str, trains: bool, bundles: Sequence[Bundle]) -> None:
        """Check and keep the live events of a service, and the exposures that it has taken. Bundles learn of
        the items that were registered there."""
        log, part = open_log(service, make=False), None
        ours = None if self.sources.adopt else self.deployment
        self.deployment = check_deployment(log.place, log.deployment, ours) or self.deployment
        for one in self.held:
            log.check(mark_of(one, log.identity))
        items = [one for _, one in records(log) if isinstance(one, Item)]
        for bundle in bundles:
            bundle.take_items(new_items(items, bundle.encoders))
        found, mark = later(log, latest_mark(self.held, log.identity), EventReader.of(self.bundle))
        if found:
            settings, table = settings_of_events(self.bundle.graph), table_of(found, self.bundle)
            part = self._keep("events", table, settings, "the live events")
        self._hold(log.identity, mark, part)
        if self.bundle.settings.form == "exposures":
            file = self.folder / "taken.parquet"
            write_rows(self.bundle, log, "exposures", file, self.held, now=self.now)
            self._read_files("exposures", [str(file)], trains)
        if is_new(log.identity, dict(one for held in self.held for one in held.items())):
            logger.warning(NEW_STORE)

    def _hold(self, identity: str, mark: Mark, part: Part | None) -> None:
        """Note up to where a log of a service is read, and the times of its new rows."""
        mark = max(mark, latest_mark(self.held, identity), key=lambda one: one.number)
        self.ends[identity] = Held(*mark, None if part is None else part.span[1])
        until, former = last_of_files(self.held[0]), self.held[0].get(identity)
        if part is None or until is None or (part.live and self.bundle.settings.form == "exposures"):
            return  # files of exposures hold no events
        if former is None or (former.last or until) <= until:
            check_apart(part.times, until, part.place)

    def _keep(
        self,
        name: str,
        source: Table,
        settings: RunSettings,
        place: str,
        after: int | None = None,
        empty: bool = True,
    ) -> Part | None:
        """Check rows, and keep them in a file; None if there are none, which must be so only if it may be
        `empty`."""
        data = settings.data.model_copy(update={"erased": list_for(self.bundle)})
        with reading(place):
            rows, number = checked_rows(source, settings.model_copy(update={"data": data}), place)
            if after is not None:
                rows = _known_after(rows, settings, after, self.now)
            elif not number and not empty:
                raise DataError(place, NO_ROWS)
            file = self.folder / f"{name}.parquet"
            if not write_table(rows, file):
                return None
            self.parts.append(Part(settings, place, file, live=name == "events"))
            return self.parts[-1]

    @property
    def by_time(self) -> bool:
        """Whether times say which rows are new, and not positions in the log of a service."""
        return {*self.ends} <= {FILES}

    def after(self, moment: int) -> Self:
        """Return the rows after a moment."""
        parts = []
        for part in self.parts:
            file = part.file.with_stem(f"after-{moment}-{part.file.stem}")
            with part.opened(self.folder, trains=True) as (rows, _):
                if write_table(rows.filter(rows.time > moment), file):
                    parts.append(replace(part, file=file))
        return replace(self, parts=parts)

    def require(self, learns: bool) -> None:
        """Require that something is new.

        Args:
            learns: Whether macro nodes that no longer fit the graph will do: they are learned again.

        Raises:
            BundleError: Nothing is.
        """
        moved = any(one.mark != mark_of(self.held[0], identity) for identity, one in self.ends.items())
        taken = moved and self.bundle.settings.form == "exposures"
        if not self.parts and not taken and not (learns and self.bundle.graph.drift):
            raise BundleError(
                self.bundle.path,
                "holds every event of that log; try again when there are new ones, or when exposures have "
                "waited for their labels",
            )

    def examples(
        self, training: Encoders | None = None, items: int | None = None, since: Self | None = None
    ) -> Examples | None:
        """Return the newest rows as labelled examples, see `newest_window`.

        Where they read what was known at their moment, the bundle receives the events after its graph.

        Args:
            training: Gives the indices of ids of rows that are trained on, with their weights. By default
                rows are measured, and ids are those of the bundle.
            items: How many items were known before the rows, if the graph of the bundle holds the rows.
            since: All rows that its graph lacks, if there are more than these.

        Returns:
            None of live events alone that do not say what was shown.

        Raises:
            DataError: The rows do no task.
        """
        ours = self.bundle.settings
        whole = [part for part in self.parts if not part.live or ours.form == "events"]
        if not whole:
            return None
        spaces = {task.name: task.given for task in ours.tasks}
        tasks = [task.model_copy(update={"given": spaces[task.name]}) for task in whole[-1].settings.tasks]
        negatives = ours.negatives.of_training if training else ours.negatives
        settings = whole[-1].settings.model_copy(update={"tasks": tasks, "negatives": negatives})
        known, as_prepared = training or self.bundle.encoders, items is not None
        if ours.data.history != "cut" and not as_prepared:
            known, items = (since or self).follow(known, whole[-1].span[0])
        with whole[-1].opened(self.folder, trains=training is not None) as (rows, place):
            return newest_window(rows, settings, known, place, self.now, items, as_prepared)

    def follow(self, known: Encoders, moment: int) -> tuple[Encoders, int]:
        """Give the events and exposures of the rows to the bundle.

        Args:
            known: Give the indices of other ids.
            moment: Microseconds since 1970.

        Returns:
            Encoders in which the ids of the rows follow in the order in which they came, and how many items
            were known before the moment.
        """
        known, items, found, shown = copy(known), known.items.size, [], []
        for part in self.parts:
            with part.opened(self.folder) as (rows, _):
                for node in NODES:
                    came = rows.group_by(node).aggregate(first=rows.time.min()).order_by(["first", node])
                    ids, held = one_array(came.to_pyarrow()[node]), getattr(known, f"{node}s")
                    setattr(known, f"{node}s", held.with_ids(ids))
                before = rows.filter(rows.time < moment).select("item").distinct().to_pyarrow()["item"]
                items = max(items, int(known.items.indices(before).max(initial=-1)) + 1)
                found.append(later_events(rows, part.settings, known))
                if part.settings.form == "exposures":
                    shown.append(later_exposures(rows, part.settings, known))
        events = Events.of(*map(np.concatenate, zip(*found, strict=True)))
        records = ibis.memtable(pa.concat_tables(shown)) if shown else None
        self.bundle.moments = {0: follow(self.bundle.graph, 0, events, records)}
        return known, items

    def add_to(self, graph: MacroGraph, learns: bool) -> MacroGraph:
        """Add everything to the graph of a new bundle, and learn its macro nodes again if asked to.

        The new bundle takes the ids of users and items from its graph.
        """
        for part in self.parts:
            last = learns and part is self.parts[-1]
            with changing(graph) as work:
                graph = add_events(
                    graph,
                    part.settings,
                    part.opened(work),
                    work,
                    recluster=last,
                    about=self.bundle.encoders,
                )
        if not self.parts:
            graph = take_items(graph, self.bundle.encoders, learns)
        for name, file in vocabularies(graph.path).items():
            shutil.copyfile(file, graph.path.parent / name)
        return graph


def learned_until(bundle: Bundle) -> int:
    """Return the time of the newest row that a bundle has learned from, in microseconds since 1970.

    A graph says when its newest label was known, by the delay of the labels after its row, or by the end of
    its bucket where rows read up to moments: some later rows may be before this. What is held also counts
    rows on which nothing was done.
    """
    held = [one.last for one in read_held(bundle.path).values() if one.last is not None]
    if held and bundle.settings.data.history != "cut":
        return max(held)
    return max([bundle.graph.manifest.last - longest_delay(bundle.settings.tasks), *held])


def _known_after(rows: Table, settings: RunSettings, after: int, now: int) -> Table:
    """Return the rows after a moment for which the delay of every task has passed, and report others."""
    counts = only_row(rows.aggregate(before=(rows.time <= after).sum(), ahead=(rows.time > now).sum()))
    if counts["before"]:
        logger.info(f"{counts['before']:,} rows are left out: they are from before {iso_time(after)}")
    if counts["ahead"]:
        logger.info(
            f"{counts['ahead']:,} rows of the log wait, because they are later than the clock of this "
            f"machine, {iso_time(now)}; is it right?"
        )
    return rows.filter(rows.time > after, rows.time + longest_delay(settings.tasks) <= now)
