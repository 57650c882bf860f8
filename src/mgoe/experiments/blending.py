"""The blend of a cell's model and item-to-item links, fitted on validation, and what its bundle would answer.

Axes: `B` pairs, `T` tasks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.bundle.calibration import Calibration, calibrate
from mgoe.bundle.sampling import log_odds_of_anything, shift_of, shifted_tasks, undo_sampling
from mgoe.config import RunSettings
from mgoe.data import Prepared
from mgoe.experiments.inputs import Inputs
from mgoe.features import View
from mgoe.models import RankingModel
from mgoe.retrieval import Blend, Done
from mgoe.training import PairScorer

USERS = 1000
"""Users of the validation window, at most, whose items a blend is fitted to."""


class Answers:
    """What the bundle of a cell answers for pairs, as of one view.

    Args:
        model: With its weights.
        view: What is known of users and items.
        inputs: The log that the model was trained on.
        settings: Of the run.
        calibration: Of the model.
    """

    def __init__(
        self,
        model: RankingModel,
        view: View,
        inputs: Inputs,
        settings: RunSettings,
        calibration: Calibration,
    ):
        self.tasks, self.shifted = settings.tasks, shifted_tasks(settings.tasks)
        self._score, self._maps = PairScorer(model, view), calibration.numbers(settings.tasks)
        self._prior, self._context = inputs.prior(view.snapshot), inputs.prepared.context_features

    def __call__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], shares: Sequence[float] = (1.0,)
    ) -> list[NDArray[np.float32]]:
        """Return the probabilities of pairs for each share of the sampling that is undone. Shape (B, T)
        each."""
        learned, sampling = self._score(users, items, self._context.encode({}, len(users))), self.shift(items)
        return [
            calibrate(undo_sampling(learned, share * sampling, self.shifted), *self._maps) for share in shares
        ]

    def shift(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what undoing the sampling adds to the log-odds of items by index. Shape (B,)."""
        return shift_of(self._prior, items)


class Question(NamedTuple):
    """What a list is to find.

    Attributes:
        user: By index.
        later: What the user has done since the snapshot; None if nothing is known.
        wanted: What the user then does.
    """

    user: int
    later: Done | None
    wanted: NDArray[np.int64]


def fit_blend(
    model: RankingModel, inputs: Inputs, settings: RunSettings, calibration: Calibration
) -> Blend | None:
    """Fit a blend to the candidates of users of the validation window.

    Half of the questions are those of a list made ahead: the snapshot before the window is known, and wanted
    is what is done in the window. The others are those of a visit: what the user has done in the window is
    known too, except for the last item, which is wanted if it is new to the user. The model does not see the
    visit, as it would in a service, so the weight of links is rather too large than too small.

    Args:
        model: With its weights.
        inputs: The log that it was trained on.
        settings: Of the run.
        calibration: Of the model.

    Returns:
        None if all items are ranked, or too few users do anything.
    """
    retrieval, prepared = inputs.retrieval_before_validation, inputs.prepared
    if retrieval is None:
        return None
    snapshot = inputs.graph.snapshots[prepared.valid_window]
    view = View.of(snapshot, prepared.user_side, prepared.item_side)
    answers = Answers(model, view, inputs, settings, calibration)
    signals, wanted = [], []
    for question in _questions(prepared, snapshot.n_items):
        known = None
        if question.later is not None:
            known = np.union1d(view.snapshot.known_items(question.user), question.later.item)
        found = np.sort(retrieval.candidates(view, question.user, None, known, question.later))
        done = np.isin(found, question.wanted)
        if done.any():
            [scores] = answers(np.full(len(found), question.user), found)
            log_odds = log_odds_of_anything(scores, answers.shifted)
            read = retrieval.signals(
                view, question.user, found, log_odds, answers.shift(found), question.later
            )
            signals.append(read.astype(np.float32))
            wanted.append(done)
    return Blend.fit(signals, wanted)


def _questions(prepared: Prepared, n_items: int) -> Iterator[Question]:
    """Yield the questions of random users of the validation window about items that are known before it."""
    columns = ["user", "time", "item", "task"]
    events = prepared.history.filter(prepared.history["snapshot"] == ibis.literal(prepared.valid_window + 1))
    table = events.select(*columns).order_by(columns).to_pyarrow()
    user, time, item, task = (table[name].to_numpy().astype(np.int64) for name in columns)
    there = item < n_items
    user, time, item, mask = user[there], time[there], item[there], 1 << task[there]
    users = np.unique(user)
    for one in np.sort(np.random.default_rng(0).permutation(users)[:USERS]).tolist():
        rows = slice(*np.searchsorted(user, [one, one + 1]))
        items, place = np.unique(item[rows], return_inverse=True)
        yield Question(one, None, items)
        if len(items) > 1:
            masks, times = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
            np.bitwise_or.at(masks, place, mask[rows])
            np.maximum.at(times, place, time[rows])
            before = items != item[rows][-1]
            yield Question(one, Done(items[before], masks[before], times[before]), items[~before])
