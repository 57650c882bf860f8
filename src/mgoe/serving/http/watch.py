"""The watch over a bundle's folder: what replaces the bundle is opened behind requests.

A bundle is replaced by replacing its folder, or the link that leads to it. Every worker of every server that
watches the path takes the new one by itself: nothing has to reach all of them, and no route lets a client
change what is served. A refused bundle is tried again when its files change, so that a copy in progress is
taken when it is complete.
"""

import asyncio
import json
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from mgoe.bundle import MANIFEST, Bundle
from mgoe.errors import BundleError, StoreError
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.scoring.engine import Clock, Engine
from mgoe.serving.scoring.runtime import Runtime

LOW, LOWER = 8, 3
"""Priorities of the threads that come after requests. Those that apply events, export a graph, or score for a
shadow have the first, and get a seventh of the core under full load. Give each worker a core of its own: a
ranking waits for an event that is being applied. Those that open a bundle, or write what was sent, have the
second, and get a third: they hold Python's lock now and then, and a request would wait for a thread that
other processes keep from running."""
FOLLOW = 0.1
"""Seconds between looks at what was written to the log."""
PAUSE = 30.0
"""Seconds until a bundle that lacked store, space or memory is tried again."""
LOOKS = 3
"""Looks in a row that find no bundle, until that is reported."""
OPENS = "bundle"
"""Name of the thread that opens a bundle."""
T = TypeVar("T")
Fingerprint = tuple[Any, ...] | None


class Watch(ABC):
    """Opens the bundle at a path whenever it is another one, and lets it follow the log.

    Args:
        path: The bundle's folder, or a link to it.
        log: What it follows, which nothing else reads through this object.
        index: See `Engine`. In this folder the processes of a service also take turns, so that one of them
            opens a bundle at a time and the others keep their cores; None if there is one process.
        runtime: See `Engine`.
        every: Seconds between looks at the folder.
        clock: See `Engine`. Whoever supplies one calls `Reloader.caught_up` before each request: nothing
            follows the log in between, so that no pause decides what an answer knows.

    Attributes:
        refused: Why the bundle at the path is not the one that is open; None if it is.
    """

    def __init__(
        self,
        path: Path,
        log: ServiceLog,
        index: Path | None = None,
        runtime: Runtime = Runtime(),
        every: float = 1.0,
        clock: Clock | None = None,
    ):
        self.path, self.every, self.log, self._clock = path, every, log, clock
        self._turn = nullcontext() if index is None else FileLock(index / "open.lock")
        self._open = partial(Engine, path, log, index, runtime, clock)
        self._seen: Fingerprint = None  # of what is open; None opens what is there first
        self._reader = ThreadPoolExecutor(1, "follow", lower_priority, (LOW,))
        self.refused: str | None = None

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Watch the folder and follow the log while the block runs."""
        tasks = [asyncio.create_task(work) for work in (self.watch(), self._follow())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._reader.shutdown()
            self.log.close()

    @abstractmethod
    async def take(self, engine: Engine) -> None:
        """Use the engine of a bundle that has come.

        Raises:
            MgoeError: It may not be used.
        """

    @abstractmethod
    def refuse(self, error: Exception) -> None:
        """Report that what has come cannot be used."""

    @abstractmethod
    def miss(self) -> None:
        """Report that no bundle is there any more."""

    @abstractmethod
    def catch_up(self) -> None:
        """Apply new events, in the one thread that does so."""

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do some work in the thread that applies events, in turn with these."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    async def _follow(self) -> None:
        while self._clock is None:
            await asyncio.sleep(FOLLOW)
            await self.in_turn(self.catch_up)

    async def watch(self) -> None:
        """Watch until cancelled."""
        missing = 0
        while True:
            await asyncio.sleep(self.every)
            found = fingerprint(self.path)
            missing = missing + 1 if found is None else 0
            if missing == LOOKS:  # not only while one folder takes the place of another
                self.miss()
                self._seen = None
            if found is None or found == self._seen:
                continue
            self._seen = found
            try:
                self._seen, engine = await behind_requests(self._open_prepared)
                await self.take(engine)
            except Exception as error:  # whatever is wrong with the new bundle, the old one stays
                self.refuse(error)
                # not the bundle's fault: try it again
                if isinstance(error, StoreError | OSError | MemoryError):
                    await asyncio.sleep(PAUSE)
                    self._seen = None

    def _open_prepared(self) -> tuple[Fingerprint, Engine]:
        """As `open_unchanged`, with all done that a service at its start leaves until it serves.

        Raises:
            StoreError: The log cannot be read from where the bundle holds it.
        """
        with self._turn:
            found, engine = open_unchanged(self.path, self._open)
            if engine.away is not None:
                raise engine.away
            prepare(engine)
            await_graphs(engine)
            return found, engine


def open_unchanged(path: Path, open_engine: Callable[[], Engine]) -> tuple[Fingerprint, Engine]:
    """Open the bundle at a path, again if it was replaced meanwhile. Return its fingerprint and an engine."""
    while True:
        found, engine = fingerprint(path), open_engine()
        if fingerprint(path) == found:
            return found, engine


def prepare(engine: Engine) -> None:
    """Compile what live events need."""
    try:
        engine.prepare()
    except Exception as error:  # what is not compiled now is compiled by the first event
        log("not prepared for events", logging.ERROR, error, error=str(error), bundle=engine.name)


def await_graphs(engine: Engine) -> None:
    """Have the model's graphs exported unless they were found. Without them PyTorch runs the model."""
    if engine.scorer.awaits_graphs:
        lower_priority(LOW)
        try:
            engine.scorer.await_graphs()
            log("graphs exported", bundle=engine.name)
        except Exception as error:
            log("PyTorch runs the model", logging.WARNING, error, error=str(error), bundle=engine.name)


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes when a bundle or any of its files does; None if there is none to read."""
    try:
        real = path.resolve()
        files = sorted(json.loads((real / MANIFEST).read_text(encoding="utf-8"))["checksums"])
        return (str(real), *(stamp(real / name) for name in (MANIFEST, *files)))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # RuntimeError: links in a circle
        return None


def stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


async def behind_requests(work: Callable[[], T]) -> T:
    """Run work in a thread of low priority, for which the process does not wait when it ends."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody cancels it

    def run() -> None:
        lower_priority(LOWER)
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=OPENS, daemon=True).start()
    return await asyncio.wrap_future(done)


def check_tasks(what: str, bundle: Bundle, served: Bundle) -> None:
    """Check that another bundle answers the question of the served one.

    Args:
        what: What the other one is, for messages.

    Raises:
        BundleError: It has other tasks.
    """
    if bundle.manifest.tasks != served.manifest.tasks:
        raise BundleError(
            bundle.path,
            f"{what} must have the tasks of the bundle that answers ({', '.join(served.tasks)}), found "
            f"{', '.join(bundle.tasks)}; name another version",
        )


def is_opening() -> bool:
    """Return whether a bundle is being opened behind requests."""
    return any(thread.name == OPENS for thread in threading.enumerate())


def lower_priority(priority: int) -> None:
    """Lower the priority of this thread."""
    with suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), priority)
