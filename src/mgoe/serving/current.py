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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgoe.bundle import MANIFEST
from mgoe.errors import MgoeError
from mgoe.serving.engine import Engine
from mgoe.serving.telemetry import log

if TYPE_CHECKING:
    from mgoe.serving.telemetry import Figures

LOWEST = 19
"""Priority of the thread that opens a bundle: requests come first, on one core too."""


class Current:
    """What serves.

    Args:
        path: The bundle's folder, or a link to it.
        open_engine: Opens one; may take long.
        every: Seconds between looks at the folder.
    """

    def __init__(self, path: Path, open_engine: Callable[[Path], Engine] = Engine.open, every: float = 1.0):
        self.path, self.every = path, every
        self._open = open_engine
        self._seen = fingerprint(path)
        self.engine = open_engine(path)
        self.refused: str | None = None
        self.trouble: str | None = None
        self.under_way: Callable[[], int] = lambda: 0

    @property
    def stats(self) -> Mapping[str, float]:
        """Of the live state."""
        return {}

    @asynccontextmanager
    async def running(self, figures: Figures) -> AsyncIterator[None]:
        """Watch the folder while the block runs."""
        watching = asyncio.create_task(self._watch(figures))
        log("serving", bundle=self.engine.name, path=str(self.path))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            log("stopped")

    async def add(self, events: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Make events durable and let them count. Returns what is wrong with each; None: nothing."""
        raise NotImplementedError

    async def _watch(self, figures: Figures) -> None:
        while True:
            await asyncio.sleep(self.every)
            found = fingerprint(self.path)
            if found == self._seen or found is None:
                continue
            self._seen = found
            try:
                engine = await _behind_requests(self._open, self.path)
            except Exception as error:  # whatever is wrong with it, the old one goes on
                self.refused = f"the bundle at {self.path} was refused: {error}"
                figures.swaps.labels("refused").inc()
                trace = None if isinstance(error, MgoeError) else error
                log("bundle refused", logging.ERROR, trace, path=str(self.path), error=str(error), goes_on_with=self.engine.name)
            else:
                before, self.engine, self.refused = self.engine.name, engine, None
                figures.swaps.labels("taken").inc()
                log("bundle taken", path=str(self.path), bundle=engine.name, before=before)


def fingerprint(path: Path) -> tuple[Any, ...] | None:
    """Changes when a bundle or any of its files does; None where there is none to read."""
    try:
        real = path.resolve()
        files = sorted(json.loads((real / MANIFEST).read_text(encoding="utf-8"))["checksums"])
        return (str(real), *(_stamp(real / name) for name in (MANIFEST, *files)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


async def _behind_requests(open_engine: Callable[[Path], Engine], path: Path) -> Engine:
    """Open in a thread that has the core only when no request needs it."""
    pool = ThreadPoolExecutor(1, "bundle", initializer=_step_back)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, open_engine, path)
    finally:
        pool.shutdown(wait=False)


def _step_back() -> None:
    with suppress(OSError, AttributeError):  # where a thread has no priority of its own, it shares
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
