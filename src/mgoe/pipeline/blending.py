"""The blend of a cell's model and item-to-item links, fitted on validation."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle.calibration import Calibration
from mgoe.data import Prepared
from mgoe.data.columns import Table
from mgoe.models import RankingModel
from mgoe.pipeline.inputs import Inputs
from mgoe.retrieval import Blend, Done

USERS = 1000
"""Users of the validation window, at most, whose items a blend is fitted to."""


def fit_blend(model: RankingModel, inputs: Inputs, calibration: Calibration) -> Blend | None:
    """Fit a blend to the candidates of users of the validation window.

    Half of the questions are those of a list made ahead: the snapshot before the window is known, and wanted
    is what is done in the window. The others are those of a visit: what the user has done in the window is
    known too, except for the last item, which is wanted if it is new to the user. The model does not see the
    visit, as it would in a service, so the weight of links is rather too large than too small.

    Args:
        model: With its weights.
        inputs: The log that it was trained on.
        calibration: Of the model.

    Returns:
        None if all items are ranked, or too few users do anything.
    """
    retrieval, prepared = inputs.retrieval_before_validation, inputs.prepared
    if retrieval is None:
        return None
    snapshot = inputs.graph.snapshots[prepared.valid_window]
    scored = inputs.scored(model, snapshot, calibration, retrieval)
    view, signals, wanted = scored.view, list[NDArray[np.float32]](), []
    for user, later, then in _questions(prepared, len(view.base["item"]["sum"])):
        own = retrieval.own_items(view, user, later)
        known = None if later is None else own.all
        found = np.sort(retrieval.candidates(view, user, None, known, own))
        done = np.isin(found, then)
        if done.any():
            scores = scored.score_indices(np.full(len(found), user), found)
            signals.append(scored.signals(own, found, scores).astype(np.float32))
            wanted.append(done)
    return Blend.fit(signals, wanted)


def _questions(prepared: Prepared, n_items: int) -> Iterator[tuple[int, Done | None, NDArray[np.int64]]]:
    """Yield what lists are to find for random users of the validation window, of the items that have history
    or content before it.

    Yields:
        The user, by index; what the user has done since the snapshot, None if nothing is known; and the items
        of what the user then does.
    """
    columns = ["user", "time", "item", "task"]
    events: Table = prepared.history
    events = events.filter(events.snapshot == prepared.valid_window + 1, events.item < n_items)
    active = events.select("user").distinct().order_by("user").to_pyarrow()["user"].to_numpy()
    users = np.sort(np.random.default_rng(0).permutation(active)[:USERS]).tolist()
    table = events.filter(events.user.isin(users)).select(columns).order_by(columns).to_pyarrow()
    user, time, item, task = (table[name].to_numpy().astype(np.int64) for name in columns)
    mask = 1 << task
    for one in users:
        rows = slice(*np.searchsorted(user, [one, one + 1]))
        items, place = np.unique(item[rows], return_inverse=True)
        yield one, None, items
        if len(items) > 1:
            masks, times = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
            np.bitwise_or.at(masks, place, mask[rows])
            np.maximum.at(times, place, time[rows])
            before, counts = items != item[rows][-1], np.bincount(place)
            yield one, Done(items[before], masks[before], times[before], counts[before]), items[~before]
