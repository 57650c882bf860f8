"""A model read at a view: the one place where a model, what is known, the sampling of its negatives, its
calibration and a blend become scores.

A bundle is one, as of its latest snapshot. What is measured before there is a bundle is one as of an earlier
snapshot, with what was fitted before that.

Axes: `B` pairs, `T` tasks, `F` signals, `I` items.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle.calibration import Calibration, calibrate
from mgoe.bundle.item_index import ItemIndex
from mgoe.bundle.items import NewItems
from mgoe.bundle.sampling import (
    Sampling,
    log_odds_of_anything,
    prior_of,
    shift_of,
    shifted_tasks,
    undo_sampling,
)
from mgoe.bundle.steps import Steps
from mgoe.config import RunSettings
from mgoe.data import Encoders, Examples
from mgoe.features import Source, View
from mgoe.graph import Snapshot
from mgoe.graph.moments import Moments
from mgoe.models import RankingModel
from mgoe.retrieval import OwnItems, Retrieval
from mgoe.training import PairScorer


class ScoredModel:
    """Probabilities (or values) of pairs as a bundle answers them, and what `ranking.rank` needs for lists.

    Args:
        model: With its weights.
        snapshot: What is known of users and items.
        encoders: Give side features, and encode context.
        settings: Settings of the run.
        sampling: How negatives were drawn; None if none were.
        calibration: Of the model; by default its probabilities stay.
        retrieval: Finds candidates, and blends what is said of them with links; None if every item is ranked.

    Attributes:
        withdrawn: Items that are never recommended, by index, rising.
        moments: How nodes change after the snapshot, by 0; empty unless later events are known.
    """

    withdrawn = np.empty(0, np.int64)
    moments: Mapping[int, Moments] = MappingProxyType({})

    def __init__(
        self,
        model: RankingModel,
        snapshot: Snapshot,
        encoders: Encoders,
        settings: RunSettings,
        sampling: Sampling | None = None,
        calibration: Calibration = Calibration(),
        retrieval: Retrieval | None = None,
    ):
        self.model, self.snapshot, self.encoders, self.settings = model, snapshot, encoders, settings
        self.sampling, self.calibration, self.retrieval = sampling, calibration, retrieval
        self.tasks = settings.task_names

    @cached_property
    def view(self) -> View:
        """The snapshot with the side features, as the model reads it."""
        return View.of(self.snapshot, self.encoders.user_side, self.encoders.item_side)

    @cached_property
    def item_index(self) -> ItemIndex:
        """Items by feature values and popularity."""
        return ItemIndex(self.encoders.item_side, self.snapshot.arrays["item_sum"])

    def take_items(self, new: NewItems, index: NDArray[np.int64] | None = None) -> None:
        """Take what is known of new items.

        Args:
            new: The items.
            index: Their indices; by default they get some after all others unless they have any. Shape (B,).
        """
        if index is None:
            self.encoders.items = self.encoders.items.with_ids(new.ids)
            index = self.encoders.items.indices(new.ids)
        self.encoders.item_side.add(index, new.encoded, new.names)
        self.withdrawn = np.union1d(self.withdrawn, index[new.withdrawn])

    def are_registered(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which items the bundle holds or were registered; others came with events. Shape (B,)."""
        return (items < self.encoders.items.size) | self.encoders.item_side.are_added(items)

    @property
    def n_items(self) -> int:
        """Items that can be ranked."""
        return self.snapshot.n_items

    @cached_property
    def prior(self) -> NDArray[np.float32]:
        """What undoing the sampling adds to the log-odds of each item, see `prior_of`. Shape (I + 1,)."""
        return prior_of(self.sampling, self.snapshot)

    @cached_property
    def shifted(self) -> NDArray[np.bool_]:
        """Which tasks sampled negatives enter. Shape (T,)."""
        return shifted_tasks(self.settings.tasks)

    def readings(self, shares: Sequence[float]) -> list[Self]:
        """Return the same model once per share of its sampling that is undone.

        What they are asked in turn about the same pairs is computed once.
        """
        scorer, found = _LatestPairs(self.model, self._source), []
        for share in shares:
            other = copy(self)
            other._scorer, other.prior = scorer, share * self.prior
            found.append(other)
        return found

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which the view that is scored does not change."""
        return self._source.reading()

    def in_blocks(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Mapping[str, NDArray] | None = None
    ) -> Steps[NDArray[np.float32]]:
        """Score pairs, see `Scores`. Shape (B, T)."""
        if context is not None:
            context = {name: np.repeat(values, len(items), axis=0) for name, values in context.items()}
        return self.score_indices(users, items, context)
        yield

    def score_indices(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray] | None = None,
        recalibrated: bool = True,
    ) -> NDArray[np.float32]:
        """Score pairs of indices, in blocks.

        Args:
            users, items: Indices; -1 is unseen. Shape (B,).
            context: Encoded context features, one row per pair; None if all are unknown.
            recalibrated: Undo the sampling of negatives and calibrate.

        Returns:
            Shape (B, T).
        """
        if context is None:
            context = self.encoders.context_features.encode({}, len(items))
        scores = self._scorer(users, items, context)
        return self.recalibrate(scores, items) if recalibrated else scores

    def learned(self, examples: Examples) -> NDArray[np.float32]:
        """Return what the model itself gives for examples: as of the snapshot, or of their moments.

        Shape (N, T).
        """
        nodes = examples.user, examples.item
        if examples.moment is None or not self.moments:
            return self.score_indices(*nodes, examples.context, recalibrated=False)
        view = replace(self.view, moments=self.moments[0])
        return PairScorer(self.model, view)(*nodes, examples.context, examples.moment)

    def recalibrate(self, scores: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Undo the sampling of negatives in the model's scores (B, T) of items by index (B,), then calibrate.

        Every score that a bundle gives passes here: in this process, over HTTP, and by ONNX Runtime.
        """
        return calibrate(undo_sampling(scores, self.shift(items), self.shifted), *self._maps)

    def shift(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what undoing the sampling adds to the log-odds of items by index. Shape (B,)."""
        return shift_of(self.prior, items)

    def signals(
        self, own: OwnItems, items: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return what a blend reads of items for a user. This needs retrieval, which holds the links.

        Args:
            own: The user's items.
            items: By index, each once. Shape (B,).
            scores: Of these items. Shape (B, T).

        Returns:
            Shape (B, F).
        """
        assert self.retrieval is not None
        log_odds = log_odds_of_anything(scores, self.shifted)
        return self.retrieval.signals(own, items, log_odds, self.shift(items))

    def blended(
        self, own: OwnItems, items: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the probabilities by which a list is ordered: the odds that anything is done follow the
        blend. Those that an answer shows stay.

        Args:
            own: The user's items.
            items: By index, each once. Shape (B,).
            scores: Of these items. Shape (B, T).

        Returns:
            Shape (B, T).
        """
        if self.retrieval is None or self.retrieval.blend is None:
            return scores
        added = self.retrieval.blend.added(self.signals(own, items, scores))
        return undo_sampling(scores, added, self.shifted)

    @property
    def _source(self) -> Source:
        """What pairs are read from."""
        return self.view

    @cached_property
    def _scorer(self) -> PairScorer:
        return PairScorer(self.model, self._source)

    @cached_property
    def _maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.calibration.numbers(self.settings.tasks)


class _LatestPairs(PairScorer):
    """A scorer that keeps the scores of the latest pairs."""

    _pairs: tuple[NDArray[np.int64], ...] = ()
    _found = np.empty(0, np.float32)

    def __call__(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        context: Mapping[str, NDArray] | None = None,
        moments: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        if not self._pairs or not all(map(np.array_equal, self._pairs, (users, items))):
            self._pairs, self._found = (users, items), super().__call__(users, items, context)
        return self._found
