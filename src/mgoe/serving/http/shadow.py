"""A shadow: an arm whose answers nobody gets, which scores a share of the requests after they are answered.

What it says is logged beside what was answered, and `mgoe registry compare` reads both. The shadow follows
its path and the live events as an arm does. It must not have seen more than the served version had when that
one answered: of an answer that it scores late it would know the click. So a request is scored only if no
event has moved the shadow since.

Axes: `B` pairs, `T` tasks.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from mgoe.bundle.steps import finished
from mgoe.serving.events.answer_log import Answer
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.telemetry import log
from mgoe.serving.http.watch import Watch, check_tasks
from mgoe.serving.scoring import ranking
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.ranking import Answered

TOP, SAMPLE = 10, 10
"""Pairs that are scored: the first of the answer, and some of all that were scored."""


class Shadow(Watch):
    """Scores requests with the version at a path, which may lead nowhere for a while.

    Args:
        served: What answers.
        given, named: As for `Watch`.

    Attributes:
        engine: What scores; None while there is none.
    """

    def __init__(self, served: Reloader, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.engine: Engine | None = None
        self._served = served

    def scoring(self, served: Engine, answered: Answered, **named: Any) -> Callable[[], list[Answer]] | None:
        """Return what scores some pairs of an answer, for `in_turn`; None if there is nothing to score.

        That returns what is to be logged, one for each user; nothing if an event has moved the shadow since.

        Args:
            served: What answered, just now.
            answered: The answer. One to a session has no user.
            named: Further fields of what is logged.
        """
        engine, pairs = self.engine, answered.pairs
        # items that were never seen have no index to be noted by
        if not pairs.user_ids or not (pairs.items >= 0).any() or engine is None or engine.name == served.name:
            return None
        return partial(_scored, engine, engine.live.version, served, answered, named)

    async def take(self, engine: Engine) -> None:
        """Score with another engine."""
        check_tasks("a shadow", engine.bundle, self._served.engine.bundle)
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

    def catch_up(self) -> None:
        if self.engine is not None:
            with suppress(Exception):  # the service reads the same logs and reports it
                self.engine.catch_up()


def _scored(
    engine: Engine, version: int, served: Engine, answered: Answered, named: dict[str, Any]
) -> list[Answer]:
    """Score some pairs of an answer, unless the live state has another version by now."""
    pairs, began = answered.pairs, time.perf_counter_ns()
    if engine.live.version != version:
        return []
    check_tasks("a shadow", engine.bundle, served.bundle)
    known = np.flatnonzero(pairs.items >= 0)
    top = [row for row in pairs.shown[: TOP if "items" in answered.body else 0] if pairs.items[row] >= 0]
    drawn = np.random.default_rng().choice(known, min(SAMPLE, len(known)), replace=False)
    rows = np.array([*top, *drawn])
    items, ids = served.live.ids("item", pairs.items[rows]), pairs.user_ids
    users = [ids[row] for row in rows.tolist()] if len(ids) > 1 else [*ids] * len(rows)
    said = finished(ranking.score(engine, users, items, pairs.context)).pairs.scores
    both = [[[float(str(one)) for one in row] for row in of] for of in (said, pairs.scores[rows])]  # shortest
    latency, texts = (time.perf_counter_ns() - began) // 1000, [str(user) for user in users]
    return [
        Answer(
            **named, user=user, unit=None, experiment=None, phase=None, arm=None, brought=False, use="shadow",
            version=engine.name, status="ok", reason=None, latency=latency, served=served.name,
            items=[str(items[row]) for row in own], shown=sum(row < len(top) for row in own),
            scores=[both[0][row] for row in own], served_scores=[both[1][row] for row in own],
        )
        for user in dict.fromkeys(texts)
        for own in [[row for row, text in enumerate(texts) if text == user]]
    ]  # fmt: skip
