"""The engine that serves now, the events that it lives by, and the watch over the bundle's folder.

A bundle is refreshed by replacing its folder, or the link that leads to it. Every worker of every server that
watches the path takes the new one by itself: nothing has to reach all of them, and no route lets a client
change what is served. A refused bundle is tried again when its files change, so that a copy in progress is
taken when it is complete.
"""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mgoe.bundle import MANIFEST
from mgoe.errors import BundleError, EventError, RequestError, StoreError
from mgoe.serving.events.event import EventLog
from mgoe.serving.events.exposure import label_too_early
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.runtime import Runtime

LOW = 8
"""Priority of the threads that come after requests: the one that applies events, and the one that opens a
bundle. Under full load they get a seventh of the core, and a bundle is still open in half a minute. Give each
worker a core of its own: a ranking waits for an event that is being applied."""
LOWER = 3
"""Priority of the threads that write events and exposures, which get a third of the core if they need it."""
PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds until a bundle that lacked store, space or memory is tried again; they double each time."""
LOOKS = 3
"""Looks in a row that find no bundle, until that is reported."""
WRITERS = 8
"""Batches of events that are written at once."""
OPENS = "bundle"
"""Name of the thread that opens a bundle."""
FOLLOW = 0.1
"""Seconds between looks at what other processes wrote to the log."""
T = TypeVar("T")
Record = Mapping[str, Any]
"""A record as JSON has it."""


class Reloader:
    """Holds the engine that serves, and replaces it when its bundle is.

    Args:
        path: The bundle's folder, or a link to it.
        log: Live events.
        index: See `Engine`.
        runtime: See `Engine`.
        every: Seconds between looks at the folder.
        url: Where the service listens, for its log.
        exposures: Where exposures and labels go; without one they are refused.

    Attributes:
        engine: The engine that serves now. A request takes it once, and keeps it.
        refused: Why the bundle at the path is not the one that serves; None if it is.
        away: Why the log of events cannot be read; None if it can.
        prepared: Done when the first event no longer waits for kernels.
    """

    def __init__(
        self,
        path: Path,
        log: EventLog,
        index: Path | None = None,
        runtime: Runtime = Runtime(),
        every: float = 1.0,
        url: str = "",
        exposures: ExposureLog | None = None,
    ):
        self.path, self.log, self.every, self.url = path, log, every, url
        self.exposures = exposures
        self._open = partial(Engine, path, log, index, runtime, exposures)
        self._seen, self.engine = self._open_unchanged()
        self.refused: str | None = None
        self.away: str | None = None
        self.prepared: Future[None] = Future()
        self._writers = ThreadPoolExecutor(WRITERS, "append", _lower_priority, (LOWER,))
        self._reader = ThreadPoolExecutor(1, "follow", _lower_priority, (LOW,))

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Watch the folder and follow the log while the block runs."""
        tasks = [asyncio.create_task(work) for work in (self._watch(telemetry), self._follow())]
        log("serving", url=self.url, bundle=self.engine.name, path=str(self.path))
        # in the thread that applies events, so that they wait
        self.prepared = self._reader.submit(_prepare, self.engine)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writers.shutdown()
            self._reader.shutdown()
            self.log.close()
            if self.exposures is not None:
                self.exposures.close()
            log("stopped")

    async def add(
        self,
        events: Sequence[Record],
        exposures: Sequence[Record] = (),
        labels: Sequence[Record] = (),
    ) -> list[str | None]:
        """Make records durable, and let events count in whatever this process answers from now on.

        Returns:
            What is wrong with each, in the order of the arguments; None if nothing is.

        Raises:
            RequestError: There are exposures or labels, and this service takes none.
            StoreError: The log is away; no record of the batch may be relied on.
        """
        loop, now, reader = asyncio.get_running_loop(), time.time_ns() // 1000, self.engine.events
        others = await self._add_exposures(exposures, labels, now) if exposures or labels else []
        read, errors = _checked(events, lambda one: reader.read(one, now))
        if read:  # several batches share a sync
            await loop.run_in_executor(self._writers, self.log.append, [*read.values()])
            await loop.run_in_executor(self._reader, self._catch_up)
        return errors + others

    async def _add_exposures(
        self, exposures: Sequence[Record], labels: Sequence[Record], now: int
    ) -> list[str | None]:
        reader, store = self.engine.exposures, self.exposures
        place = "exposures" if exposures else "labels"
        if reader is None:
            raise RequestError(
                place, "are for a bundle of an exposure log, found one of an event log; send them as events"
            )
        if store is None:
            raise RequestError(
                place,
                "are stored in the state folder of one service, found a log on Redis; serve without --redis",
            )
        shown, errors = _checked(exposures, lambda one: reader.read_exposure(one, now))
        read, unread = _checked(labels, lambda one: reader.read_labels(one, now))
        known = [(record, label) for record, several in read.items() for label in several]
        if shown or known:
            append = partial(store.append, [*shown.values()], [label for _, label in known], reader.delay)
            refused = await asyncio.get_running_loop().run_in_executor(self._writers, append)
            for number, exposure in refused.items():
                unread[known[number][0]] = str(label_too_early(exposure))
        return errors + unread

    @property
    def detail(self) -> str | None:
        """What is not as it should be; None if nothing is."""
        if self.refused or self.away:
            return self.refused or self.away
        if not self.prepared.done():
            return "starting: events wait until their kernels are compiled"
        if self.engine.scorer.awaits_graphs:
            return "starting: PyTorch runs the model until its graphs are exported"
        return None

    @property
    def exposure_counts(self) -> dict[str, int]:
        """See `ExposureLog.counts`; empty where there is none, or the store is away."""
        with suppress(StoreError):
            if self.exposures is not None and self.engine.exposures is not None:
                return self.exposures.counts
        return {}

    def _catch_up(self) -> None:
        """Apply new events, in the one thread that does so. What cannot be read now is read later."""
        try:
            self.engine.catch_up()
        except Exception as error:
            if self.away is None:
                log("events are away", logging.ERROR, error, error=str(error))
            self.away = str(error) or type(error).__name__
        else:
            if self.away is not None:
                log("events are back")
            self.away = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW)
            if self.away is not None or self.engine.may_be_behind:  # a thread takes time from requests
                await asyncio.get_running_loop().run_in_executor(self._reader, self._catch_up)

    async def _watch(self, telemetry: Telemetry) -> None:
        pause, missing = PAUSE, 0
        await _behind_requests(partial(_await_graphs, self.engine))
        while True:
            await asyncio.sleep(self.every)
            found = fingerprint(self.path)
            missing = missing + 1 if found is None else 0
            if missing == LOOKS:  # not only while one folder takes the place of another
                self._refuse(
                    BundleError(
                        self.path, f"its {MANIFEST} is missing or cannot be read; put a complete bundle there"
                    ),
                    telemetry,
                )
                self._seen = None
            if found is None or found == self._seen:
                continue
            self._seen = found
            try:
                self._seen, engine = await _behind_requests(self._open_prepared)
                before = await asyncio.get_running_loop().run_in_executor(self._reader, self._take, engine)
            except Exception as error:  # whatever is wrong with the new bundle, the old one keeps serving
                self._refuse(error, telemetry)
                # not the bundle's fault: try it again
                if isinstance(error, StoreError | OSError | MemoryError):
                    await asyncio.sleep(pause)
                    pause, self._seen = min(2 * pause, LONGEST_PAUSE), None
            else:
                pause = PAUSE
                telemetry.swaps.labels("taken").inc()
                log("bundle taken", path=str(self.path), bundle=engine.name, before=before)

    def _open_unchanged(self) -> tuple[tuple[Any, ...] | None, Engine]:
        """Open the bundle, again if it was replaced meanwhile. Return its fingerprint and an engine."""
        while True:
            found, engine = fingerprint(self.path), self._open()
            if fingerprint(self.path) == found:
                return found, engine

    def _open_prepared(self) -> tuple[tuple[Any, ...] | None, Engine]:
        """As `_open_unchanged`, with all done that a service at its start leaves until it serves."""
        found, engine = self._open_unchanged()
        _prepare(engine)
        _await_graphs(engine)
        return found, engine

    def _refuse(self, error: Exception, telemetry: Telemetry) -> None:
        self.refused = f"the bundle at {self.path} was refused: {error}"
        telemetry.swaps.labels("refused").inc()
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


def _prepare(engine: Engine) -> None:
    try:
        engine.prepare()
    except Exception as error:  # what is not compiled now is compiled by the first event
        log("not prepared for events", logging.ERROR, error, error=str(error), bundle=engine.name)


def _await_graphs(engine: Engine) -> None:
    """Have the model's graphs exported unless they were found. Without them PyTorch runs the model."""
    if engine.scorer.awaits_graphs:
        try:
            engine.scorer.await_graphs()
            log("graphs exported", bundle=engine.name)
        except Exception as error:
            log("PyTorch runs the model", logging.WARNING, error, error=str(error), bundle=engine.name)


def _checked(records: Sequence[Record], read: Callable[[Record], T]) -> tuple[dict[int, T], list[str | None]]:
    """Read records, and return those that are right by their number, and what is wrong with each."""
    found: dict[int, T] = {}
    errors: list[str | None] = [None] * len(records)
    for number, record in enumerate(records):
        try:
            found[number] = read(record)
        except EventError as error:
            errors[number] = str(error)
    return found, errors


def fingerprint(path: Path) -> tuple[Any, ...] | None:
    """Return what changes when a bundle or any of its files does; None if there is none to read."""
    try:
        real = path.resolve()
        files = sorted(json.loads((real / MANIFEST).read_text(encoding="utf-8"))["checksums"])
        return (str(real), *(_stamp(real / name) for name in (MANIFEST, *files)))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # RuntimeError: links in a circle
        return None


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


async def _behind_requests(work: Callable[[], T]) -> T:
    """Run work in a thread of low priority, for which the process does not wait when it ends."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody cancels it

    def run() -> None:
        _lower_priority(LOW)
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=OPENS, daemon=True).start()
    return await asyncio.wrap_future(done)


def is_opening() -> bool:
    """Return whether a bundle is being opened behind requests."""
    return any(thread.name == OPENS for thread in threading.enumerate())


def _lower_priority(priority: int) -> None:
    with suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
