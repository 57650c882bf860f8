"""The engine that serves now, and the events that it lives by."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mgoe.bundle import MANIFEST
from mgoe.bundle.held import NEW_STORE
from mgoe.bundle.items import Item, read_item, sorted_out
from mgoe.bundle.membership import registry_of
from mgoe.data.erasures import ERASED, Erasures
from mgoe.errors import (
    BundleError,
    DamagedLogError,
    EventError,
    OtherDeploymentError,
    OtherLogError,
    OutputError,
    RequestError,
    StoreError,
)
from mgoe.serving.events.event import is_erased
from mgoe.serving.events.exposure import label_too_early
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.watch import (
    LOWER,
    Watch,
    await_graphs,
    behind_requests,
    lower_priority,
    open_unchanged,
    prepare,
)
from mgoe.serving.scoring.engine import Clock, Engine
from mgoe.serving.scoring.runtime import Runtime

WRITERS = 8
"""Batches of events that are written at once."""
LOOK = 1.0
"""Seconds between looks at whether the logs could be written."""
NEVER = DamagedLogError, OtherLogError, OtherDeploymentError
"""What is wrong with a log in which records would never count."""
T = TypeVar("T")
Record = Mapping[str, Any]
"""A record as JSON has it."""


class Reloader(Watch):
    """Holds the engine that serves, and replaces it when its bundle is.

    Args:
        path, log, index, runtime, every, clock: See `Watch`. Records go to the log.
        url: Where the service listens, for its log.

    Attributes:
        engine: The engine that serves now. A request takes it once, and keeps it.
        away: Why the logs cannot be read or written; None if they can.
        prepared: Done when the first event no longer waits for kernels.
        beside: Others that answer in the same service, to which events count as soon as here.
    """

    says = "serving", "stopped"
    """Lines of the log at the start and at the end."""

    def __init__(
        self,
        path: Path,
        log: ServiceLog,
        index: Path | None = None,
        runtime: Runtime = Runtime(),
        every: float = 1.0,
        clock: Clock | None = None,
        url: str = "",
    ):
        super().__init__(path, log, index, runtime, every, clock)
        self.url = url
        self._seen, self.engine = open_unchanged(self.path, self._open)
        self.away: Exception | None = None
        self._list, self._until, self._unread = Erasures(Path()), dict[str, int](), ""
        self.prepared: Future[None] = Future()
        self.beside: Sequence[Reloader] = ()
        self._full: StoreError | None = None
        self._due = 0.0
        self._writers = ThreadPoolExecutor(WRITERS, "append", lower_priority, (LOWER,))

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Watch the folder and follow the log while the block runs."""
        self._swaps, self._write_failures = telemetry.swaps, telemetry.write_failures
        async with super().running(telemetry):
            log(self.says[0], url=self.url, bundle=self.engine.name, path=str(self.path))
            self._note(self.engine.away)
            # in the thread that applies events, so that they wait
            self.prepared = self._reader.submit(prepare, self.engine)
            try:
                yield
            finally:
                self._writers.shutdown()
                log(self.says[1])

    async def add(
        self,
        events: Sequence[Record],
        exposures: Sequence[Record] = (),
        labels: Sequence[Record] = (),
    ) -> list[str | None]:
        """Make records durable, and let events count in whatever this process answers from now on.

        Returns:
            What is wrong with each, in the order of the arguments; None if nothing is, and `ERASED` for one
            that was left out, since its user was erased after its time.

        Raises:
            RequestError: There are exposures or labels, and the bundle is of an event log.
            StoreError: The log is away, or is damaged or another one, in which the records would never count;
                no record of the batch may be relied on.
        """
        now, reader, of_shown = self.engine.now(), self.engine.events, self.engine.exposures
        if self.engine.bundle.settings.form == "events" and (exposures or labels):
            raise RequestError(
                "exposures" if exposures else "labels",
                "are for a bundle of an exposure log, found one of an event log; send them as events",
            )
        self._require_logs()
        until = self._erased()
        read, errors = _checked(events, lambda one: reader.read(one, now), lambda one: one.is_of(until))
        shown, found = _checked(
            exposures,
            lambda one: of_shown.read_exposure(one, now),
            lambda one: is_erased(until, one.user, one.time),
        )
        errors += found
        known, unread = _checked(
            labels,
            lambda one: of_shown.read_labels(one, now),
            lambda several: is_erased(
                until, several[0].user, now if several[0].time is None else several[0].time
            ),
        )
        if read or shown or known:
            numbered = [(number, label) for number, several in known.items() for label in several]
            append = partial(
                self.log.append,
                [*read.values()],
                [*shown.values()],
                [label for _, label in numbered],
                of_shown.delay,
                now=None if self._clock is None else now,  # the time of a Redis server is its own
                after=self.engine.consumer.exposures_mark,
            )
            # several batches share a sync
            refused = await self._write("exposures" if shown or known else "events", append)
            for place, exposure in refused.items():
                unread[numbered[place][0]] = str(label_too_early(exposure))
        if read:
            await self.caught_up()
            self._require_logs()
        return errors + unread

    async def add_items(self, items: Sequence[Record]) -> list[str | None]:
        """Make items durable that are registered or withdrawn, and let them count from now on.

        What is known of an item decides, however it came here: it is read before and after the batch.

        Returns:
            What is wrong with each; None if nothing is.

        Raises:
            StoreError: As for `add`.
        """
        encoders = self.engine.bundle.encoders
        self._require_logs()
        read, errors = _checked(items, lambda one: read_item(one, encoders))
        await self.caught_up()
        wrong, new = self._sorted_out(read)
        if new:
            await self._write("events", partial(self.log.append, new))
            await self.caught_up()
            self._require_logs()
            wrong = self._sorted_out(read)[0] | wrong
        return [str(wrong[number]) if number in wrong else error for number, error in enumerate(errors)]

    def _sorted_out(self, items: Mapping[int, Item]) -> tuple[dict[int, EventError], list[Item]]:
        """Compare items with what this process knows now."""
        index = self.engine.live.look_up("item", [one.item for one in items.values()])
        return sorted_out(items, index, self.engine.bundle.encoders)

    def _erased(self) -> Mapping[str, int]:
        """Return up to when records of erased users are left out: by the list beside the registry.

        While the list cannot be read, what it said before counts. An update is refused without it.
        """
        try:
            found = Erasures.of(registry_of(self.engine.bundle.path))
        except OutputError as error:
            self._unread = f"records of users who were erased may be taken: {error}"
            return self._until
        if found is not self._list:
            self._list, self._until, self._unread = found, found.until(), ""
        return self._until

    async def _write(self, store: str, append: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writers, append)
        except Exception:
            self._write_failures.labels(store).inc()
            raise

    @property
    def detail(self) -> str | None:
        """What is not as it should be; None if nothing is."""
        if self.refused or self.away or self._unread:
            return self.refused or str(self.away or "") or self._unread or type(self.away).__name__
        if self.engine.consumer.is_new:
            return NEW_STORE
        if not self.prepared.done():
            return "starting: events wait until their kernels are compiled"
        if self.engine.scorer.awaits_graphs:
            return "starting: PyTorch runs the model until its graphs are exported"
        return None

    @property
    def figures(self) -> dict[str, float]:
        """What is the same in every process: whether the store can be read and written, the ages of the
        bundle, and the `ServiceLog.counts` unless the store is away."""
        damaged = self.engine.consumer.is_new or isinstance(self.away, NEVER)
        found = self.engine.bundle.ages() | {"store up": self.away is None, "store damaged": damaged}
        with suppress(StoreError):
            found |= self.log.counts
        return found

    async def caught_up(self) -> None:
        """Apply new events here and in all that answer beside it."""
        await asyncio.gather(*(one.in_turn(one.catch_up) for one in (self, *self.beside)))

    def catch_up(self) -> None:
        """Apply new events, in the one thread that does so. What cannot be read now is read later."""
        try:
            self.engine.catch_up()
            self._check_room()
        except Exception as error:
            self._note(error)
        else:
            self._note(None)

    def _check_room(self) -> None:
        """Look every now and then whether the logs could be written, so that a full disk shows before records
        come; what was found last holds until then."""
        if time.monotonic() >= self._due:
            self._full, self._due = None, time.monotonic() + LOOK
            try:
                self.log.check_room()
            except StoreError as error:
                self._full = error
        if self._full is not None:
            raise self._full

    def _note(self, error: Exception | None) -> None:
        """Remember why the logs cannot be read or written, and log when that begins and ends."""
        if error is not None and self.away is None:
            log("events are away", logging.ERROR, error, error=str(error))
        elif error is None and self.away is not None:
            log("events are back")
        self.away = error

    def _require_logs(self) -> None:
        """Refuse records while a log is damaged or another one than before: they would never count."""
        if isinstance(self.away, NEVER):
            raise self.away

    async def watch(self) -> None:
        """Watch until cancelled."""
        await behind_requests(partial(await_graphs, self.engine))
        await super().watch()

    async def take(self, engine: Engine) -> None:
        """Serve with another engine."""
        before = await self.in_turn(partial(self._take, engine))
        self._swaps.labels("taken").inc()
        log("bundle taken", path=str(self.path), bundle=engine.name, before=before)

    def miss(self) -> None:
        """Report that no bundle is there; the one that is open keeps serving."""
        rule = f"its {MANIFEST} is missing or cannot be read; put a complete bundle there"
        self.refuse(BundleError(self.path, rule))

    def refuse(self, error: Exception) -> None:
        """Report that what has come cannot be used; the one that is open keeps serving."""
        self.refused = f"the bundle at {self.path} was refused: {error}"
        self._swaps.labels("refused").inc()
        log(
            "bundle refused", logging.ERROR, error, path=str(self.path), error=str(error),
            serving=self.engine.name,
        )  # fmt: skip

    def _take(self, engine: Engine) -> str:
        """Serve with another engine; return the old one's name.

        Runs in the thread that follows the log, so that the new engine lacks no event that the old one shows.
        """
        before = self.engine.name
        with suppress(StoreError):
            engine.catch_up()
        self.engine, self.refused = engine, None
        return before


def _checked(
    records: Sequence[Record], read: Callable[[Record], T], is_left_out: Callable[[T], bool] = lambda _: False
) -> tuple[dict[int, T], list[str | None]]:
    """Read records, and return those that are right by their number, and what is wrong with each; `ERASED` of
    those that are left out."""
    found: dict[int, T] = {}
    errors: list[str | None] = [None] * len(records)
    for number, record in enumerate(records):
        try:
            if is_left_out(one := read(record)):
                errors[number] = ERASED
            else:
                found[number] = one
        except EventError as error:
            errors[number] = str(error)
    return found, errors
