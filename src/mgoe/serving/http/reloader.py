"""The engine that serves now, the store of events it lives by, and the watch over the bundle's folder.

A bundle is refreshed by replacing its folder, or the link that leads to it. Every worker of every server that watches the path takes the
new one by itself: nothing has to reach all of them, and no route lets a client change what is served. A refused one is tried again
when its files change, so that a copy that is under way is taken when it is whole.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, TypeVar

from mgoe.bundle import MANIFEST
from mgoe.errors import BundleError, EventError, MgoeError, StoreError
from mgoe.serving.events.log import EventLog
from mgoe.serving.http.telemetry import log
from mgoe.serving.scoring.engine import Engine, Scoring

if TYPE_CHECKING:
    from mgoe.serving.http.telemetry import Figures

LOW = 8
"""Priority of threads that come after requests: those that write and apply events, and the one that opens a bundle. Where requests leave no
rest, they have a seventh of the core, and a bundle is still open in half a minute. Give each worker a core: a ranking waits for an event
that is being applied, and that for whatever else the core does."""
PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds until a bundle that could not be opened for want of store, space or memory is tried again; twice as long each time."""
LOOKS = 3
"""Without finding a bundle, until that is said."""
WRITERS = 8
"""Batches of events that are written at once."""
OPENS = "bundle"
"""Name of the thread that opens one."""
FOLLOW = 0.1
"""Seconds between looks at what other processes wrote to the log."""
T = TypeVar("T")


class Current:
    """What serves.

    Args:
        path: The bundle's folder, or a link to it.
        log: Of live events.
        index: See `Engine`.
        scorer: See `Engine`.
        every: Seconds between looks at the folder.
        url: Where it listens, for its log.

    Attributes:
        engine: Of the bundle that serves now. A request takes it once, and keeps it.
        refused: Why the bundle that lies there now is not the one that serves; None: it is.
        away: Why the log of events cannot be read; None: it can.
    """

    def __init__(
        self,
        path: Path,
        log: EventLog,
        index: Path | None = None,
        scorer: Scoring | None = None,
        every: float = 1.0,
        url: str = "",
    ):
        self.path, self.log, self.every, self.url = path, log, every, url
        self._open = partial(Engine.open, path, log, index, scorer)
        self._seen, self.engine = self._open_whole()
        self.refused: str | None = None
        self.away: str | None = None
        self._writers = ThreadPoolExecutor(WRITERS, "append", initializer=_step_back)
        self._reader = ThreadPoolExecutor(1, "follow", initializer=_step_back)

    @asynccontextmanager
    async def running(self, figures: Figures) -> AsyncIterator[None]:
        """Watch the folder and follow the log while the block runs."""
        tasks = [asyncio.create_task(work) for work in (self._watch(figures), self._follow())]
        log("serving", url=self.url, bundle=self.engine.name, path=str(self.path))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writers.shutdown()
            self._reader.shutdown()
            self.log.close()
            log("stopped")

    async def add(self, raw: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Make events durable, and let them count in what this process answers from now on.

        Returns:
            What is wrong with each; None: nothing.

        Raises:
            StoreError: The log is away; none of them may count on being kept.
        """
        reader, now, errors, events = self.engine.events, time.time_ns() // 1000, [], []
        for one in raw:
            try:
                events.append(reader.read(one, now))
                errors.append(None)
            except EventError as error:
                errors.append(str(error))
        if events:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(
                self._writers, self.log.append, events
            )  # several at once share a write to the disk
            await loop.run_in_executor(self._reader, self._catch_up)
        return errors

    def _catch_up(self) -> None:
        """Apply what is new in the log, in the one thread that does so. What cannot be read now, whatever the reason, is read later."""
        try:
            self.engine.catch_up()
            if self.away is not None:
                log("events are back")
            self.away = None
        except Exception as error:
            if self.away is None:
                log(
                    "events are away",
                    logging.ERROR,
                    None if isinstance(error, MgoeError) else error,
                    error=str(error),
                )
            self.away = str(error) or type(error).__name__

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW)
            if (
                self.away is not None or self.engine.may_be_behind
            ):  # another thread would take its turns from a request
                await asyncio.get_running_loop().run_in_executor(self._reader, self._catch_up)

    async def _watch(self, figures: Figures) -> None:
        pause, looks = PAUSE, 0
        while True:
            await asyncio.sleep(self.every)
            found = fingerprint(self.path)
            if found is None:
                looks += 1
                if looks == LOOKS:  # not only between two names
                    self._seen = None
                    self._refuse(
                        BundleError(
                            self.path,
                            f"its {MANIFEST} is missing or cannot be read; put a whole bundle there",
                        ),
                        figures,
                    )
                continue
            looks = 0
            if found == self._seen:
                continue
            self._seen = found
            try:
                self._seen, engine = await _behind_requests(self._open_whole)
                before = await asyncio.get_running_loop().run_in_executor(self._reader, self._take, engine)
            except Exception as error:  # whatever is wrong with it, the old one goes on
                self._refuse(error, figures)
                if isinstance(
                    error, StoreError | OSError | MemoryError
                ):  # nothing is wrong with the bundle itself: try it again
                    await asyncio.sleep(pause)
                    pause, self._seen = min(2 * pause, LONGEST_PAUSE), None
            else:
                pause = PAUSE
                figures.swaps.labels("taken").inc()
                log("bundle taken", path=str(self.path), bundle=engine.name, before=before)

    def _open_whole(self) -> tuple[tuple[Any, ...] | None, Engine]:
        """An engine of one bundle, and its fingerprint: opened again where another bundle took the place meanwhile."""
        while True:
            found, engine = fingerprint(self.path), self._open()
            if fingerprint(self.path) == found:
                return found, engine

    def _refuse(self, error: Exception, figures: Figures) -> None:
        self.refused = f"the bundle at {self.path} was refused: {error}"
        figures.swaps.labels("refused").inc()
        trace = None if isinstance(error, MgoeError) else error
        log(
            "bundle refused",
            logging.ERROR,
            trace,
            path=str(self.path),
            error=str(error),
            goes_on_with=self.engine.name,
        )

    def _take(self, engine: Engine) -> str:
        """In the thread that follows the log, so that no event that the old engine shows is missing from the new one. The old name."""
        before = self.engine.name
        with suppress(StoreError):
            engine.catch_up()
        self.engine, self.refused = engine, None
        return before


def fingerprint(path: Path) -> tuple[Any, ...] | None:
    """Changes when a bundle or any of its files does; None where there is none to read."""
    try:
        real = path.resolve()
        files = sorted(json.loads((real / MANIFEST).read_text(encoding="utf-8"))["checksums"])
        return (str(real), *(_stamp(real / name) for name in (MANIFEST, *files)))
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
    ):  # RuntimeError: links that lead to each other
        return None


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


async def _behind_requests(work: Callable[[], T]) -> T:
    """Run in a thread that has a small part of the core while requests need all of it, and that a process which ends does not wait for."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # from here on nobody cancels it

    def run() -> None:
        _step_back()
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name=OPENS, daemon=True).start()
    return await asyncio.wrap_future(done)


def is_opening() -> bool:
    """Whether a bundle is being opened behind requests."""
    return any(thread.name == OPENS for thread in threading.enumerate())


def _step_back() -> None:
    with suppress(OSError, AttributeError):  # where a thread has no priority of its own, it shares
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)
