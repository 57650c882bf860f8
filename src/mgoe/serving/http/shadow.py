"""A shadow: a second version that scores a share of the requests after they are answered, and answers none.

What both say is written to a log, which `mgoe registry compare` reads. The shadow follows its path and the
live events as the served version does. It must not have seen more than that one had when it answered: of an
answer that it scores late it would know the click. So a request is scored only if no event has moved the
shadow since; the others are dropped and counted, as are those that come while many wait.

Axes: `B` pairs, `T` tasks.
"""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.bundle.steps import finished
from mgoe.errors import StoreError
from mgoe.serving.events.event import EventLog
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.events.shadow_log import FOLDER, ShadowLog, ShadowRecord
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.watch import LOW, Watch, check_tasks, lower_priority
from mgoe.serving.scoring import ranking
from mgoe.serving.scoring.engine import Clock, Engine
from mgoe.serving.scoring.ranking import Answered
from mgoe.serving.scoring.runtime import Runtime

FOLLOW = 0.1
"""Seconds between looks at new events."""
WAITING = 32
"""Requests that wait at most; others are dropped."""
TOP, SAMPLE = 10, 10
"""Items of a record: the first of the answer, and some of all that were scored."""


class Asked(NamedTuple):
    """A request that was answered.

    Attributes:
        at: When it was answered, by the clock of `time.monotonic`.
        time: When it was answered, in microseconds since 1970.
        answered: The answer.
        engine: What answered.
    """

    at: float
    time: int
    answered: Answered
    engine: Engine


class Shadow(Watch):
    """Scores a share of the requests with the version at a path.

    Args:
        path: Its folder, or a link to it, which may lead nowhere for a while.
        share: Share of the requests.
        events: Live events, which no other part of the service reads through this object.
        state: Folder of the service's state, for the log of the shadow and what is made from its bundle.
        served: Returns the bundle that answers now.
        runtime: What runs the model.
        exposures: Exposures and labels, which items' rates follow; None if there are none.
        every: Seconds between looks at the path.
        clock: See `Engine`.

    Attributes:
        engine: What scores; None while there is none.
    """

    def __init__(
        self,
        path: Path,
        share: float,
        events: EventLog,
        state: Path,
        served: Callable[[], Bundle],
        runtime: Runtime = Runtime(),
        exposures: ExposureLog | None = None,
        every: float = 1.0,
        clock: Clock | None = None,
    ):
        folder = state / FOLDER
        super().__init__(path, partial(Engine, path, events, folder, runtime, exposures, clock), every)
        self.engine: Engine | None = None
        self._share, self._served = share, served
        self._logs, self._log = (events, exposures), ShadowLog(folder)
        self._waiting = queue.Queue[Asked](WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._failure, self._taken = "", 0.0

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Score what is offered while the block runs. What waits at its end is dropped."""
        self._count = telemetry.shadow
        self._thread.start()
        watching = asyncio.create_task(self.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            self._stopping.set()
            self._thread.join()
            self._log.close()
            for one in self._logs:
                if one is not None:
                    one.close()

    async def offer(self, engine: Engine, answered: Answered) -> None:
        """Score a request some time, if it is one of the share. Returns at once."""
        pairs = answered.pairs
        if self.engine is None or self.engine.name == engine.name or not pairs.user_ids:
            return
        if not (pairs.items >= 0).any() or random.random() >= self._share:
            return  # items that were never seen have no index to be noted by
        try:
            self._waiting.put_nowait(Asked(time.monotonic(), engine.now(), answered, engine))
        except queue.Full:
            self._count.labels("dropped").inc()

    async def take(self, engine: Engine) -> None:
        """Score with another engine."""
        check_tasks("a shadow", engine.bundle, self._served())
        self._taken = time.monotonic()
        self.engine, self.refused = engine, None
        log("shadow taken", path=str(self.path), bundle=engine.name)

    def refuse(self, error: Exception) -> None:
        """Score nothing until another bundle comes."""
        self.engine = None
        self.refused = f"the shadow at {self.path} was refused: {error}"
        log("shadow refused", logging.ERROR, error, path=str(self.path), error=str(error))

    def miss(self) -> None:
        """Score nothing until a bundle comes, as after a promotion, which leaves no candidate."""
        self.engine, self.refused = None, None
        log("shadow waits", path=str(self.path), error="no bundle is there")

    def _run(self) -> None:
        lower_priority(LOW)
        engine, moved, due = self.engine, time.monotonic(), 0.0
        while not self._stopping.is_set():
            try:
                asked = self._waiting.get(timeout=FOLLOW)
            except queue.Empty:
                asked = None
            if engine is not self.engine:  # which had seen no event after it was taken
                engine, moved = self.engine, self._taken
            if engine is None:
                continue
            if asked is not None:
                self._count.labels(self._scored(engine, asked) if asked.at > moved else "dropped").inc()
            if time.monotonic() >= due:
                moved, due = moved_at(engine, moved), time.monotonic() + FOLLOW

    def _scored(self, engine: Engine, asked: Asked) -> str:
        """Score a request and write the record. Return what became of it."""
        try:
            check_tasks("a shadow", engine.bundle, asked.engine.bundle)
            self._log.append(record(engine, asked))
        except Exception as error:  # whatever is wrong, the service goes its way
            if str(error) != self._failure:  # once, not for every request
                log("shadow failed", logging.ERROR, error, error=str(error), bundle=engine.name)
            self._failure = str(error)
            return "failed"
        self._failure = ""
        return "logged"


def record(engine: Engine, asked: Asked) -> ShadowRecord:
    """Return what the version that answered and the shadow said of a request."""
    pairs = asked.answered.pairs
    known = np.flatnonzero(pairs.items >= 0)
    shown = pairs.shown[: TOP if "items" in asked.answered.body else 0]
    shown = shown[pairs.items[shown] >= 0]
    drawn = np.random.default_rng().choice(known, min(SAMPLE, len(known)), replace=False)
    rows = np.concatenate([shown, drawn])
    items = asked.engine.live.ids("item", pairs.items[rows])
    users = list(pairs.user_ids)
    if len(users) > 1:
        users = [users[row] for row in rows.tolist()]
    scored = finished(ranking.score(engine, users, items, pairs.context))
    return ShadowRecord(
        time=asked.time,
        version=asked.engine.name,
        shadow=engine.name,
        tasks=list(engine.tasks),
        users=users,
        items=items,
        shown=len(shown),
        scores=_plain(pairs.scores[rows]),
        shadow_scores=_plain(scored.pairs.scores),
    )


def moved_at(engine: Engine, before: float) -> float:
    """Apply new events. Return when they last changed something."""
    version = engine.live.version
    try:
        engine.catch_up()
    except StoreError:  # the service reports it
        return before
    return before if engine.live.version == version else time.monotonic()


def _plain(scores: NDArray[np.float32]) -> list[list[Any]]:
    """Return scores as the shortest numbers that are read as the same."""
    return [[float(str(one)) for one in row] for row in scores]
