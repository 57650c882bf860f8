"""How far what a service answers has moved from what its bundle was made from, as gauges.

Of a share of the requests one pair of the answer is counted, after the answer is sent.
"""

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np

from mgoe.bundle.population import Columns, Histogram, input_columns, score_columns
from mgoe.features import Reader
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.watch import LOW, lower_priority
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.ranking import Pairs

SHARE = 0.1
"""Share of the requests that are counted."""
MOST, FEWEST, EVERY = 2000, 500, 50
"""Newest pairs that count; from how many on gauges are set; and after how many they are set again."""


def moved(expected: Mapping[str, Sequence[Histogram]], rows: Sequence[Columns]) -> dict[str, float]:
    """Return the population stability index of pairs by name, of the column that has moved farthest.

    Args:
        expected: The histograms in whose bins they are counted.
        rows: One pair each.
    """
    return {
        name: max(
            one.moved(one.count(values))
            for one, values in zip(several, np.concatenate([row[name] for row in rows]).T, strict=True)
        )
        for name, several in expected.items()
    }


class Stability:
    """Counts pairs of answers, and sets the gauges of a service."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "stability", lower_priority, (LOW,))
        self._counting, self._failed, self._bundle = Future[None](), "", ""
        self._counting.set_result(None)

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Count what is noted while the block runs."""
        self._gauges = telemetry.score_psi, telemetry.input_psi
        try:
            yield
        finally:
            self._thread.shutdown(cancel_futures=True)

    async def note(self, engine: Engine, pairs: Pairs) -> None:
        """Count a pair of an answer some time, if it is one of the share. Returns at once."""
        if self._counting.done() and len(pairs.shown) and pairs.user_ids and random.random() < SHARE:
            self._counting = self._thread.submit(self._count, engine, pairs, random.choice(pairs.shown))

    def _count(self, engine: Engine, pairs: Pairs, row: int) -> None:
        try:
            self._add(engine, pairs, row)
        except Exception as error:  # whatever is wrong, the service goes its way
            if str(error) != self._failed:
                log("stability is not measured", logging.ERROR, error, error=str(error), bundle=engine.name)
            self._failed = str(error)

    def _add(self, engine: Engine, pairs: Pairs, row: int) -> None:
        bundle, population = engine.bundle, engine.bundle.population
        if engine.name != self._bundle:
            self._bundle, self._pairs = engine.name, 0
            self._recent = deque[tuple[Columns, Columns]](maxlen=MOST)
            self._read = Reader(bundle.model.needs, bundle.model.spec)
        context = engine.context(pairs.context) or bundle.encoders.context_features.encode({}, 1)
        with engine.scorer.reading() as view:
            read = self._read(view, pairs.users[[row]], pairs.items[[row]], context)
        of_scores = score_columns(pairs.scores[[row]], bundle.tasks)
        self._recent.append((of_scores, input_columns(read, bundle.model.spec)))
        self._pairs += 1
        if self._pairs >= FEWEST and self._pairs % EVERY == 0:
            scores, inputs = zip(*self._recent, strict=True)
            found = moved(population.scores, scores), moved(population.inputs, inputs)
            for gauge, indices in zip(self._gauges, found, strict=True):
                for name, index in indices.items():
                    gauge.labels(name).set(index)
