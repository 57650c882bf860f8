"""Top-N lists of a simulated world that no model can beat except by luck: those of the world's own truth."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings, TopNSettings, seconds
from mgoe.data import Prepared
from mgoe.experiments.plan import Log
from mgoe.experiments.topn_cell import queries_of, write_result
from mgoe.experiments.topn_objective import relevant_tasks
from mgoe.simulation import Truth, check_reachable
from mgoe.simulation.expected import expected_actions
from mgoe.topn import Scores, make_lists, measure_lists


def measure_reachable(log: Log, name: str, seed: int, topn: TopNSettings, data: int) -> str:
    """Measure the best reachable lists on the test windows of a log with a truth.

    Args:
        log: The log.
        name: Noted with the result.
        seed: Noted with the result; nothing is drawn.
        topn: What is measured.
        data: The seed whose prepared data are read; history and test rows are the same for all.

    Returns:
        The result in a few words.
    """
    settings = log.settings(data)
    prepared = Prepared.open(log.stage(data) / "data")
    _, test = queries_of(log, settings, prepared, topn)
    scores = true_scores(Truth.open(Path(settings.data.truth or "")), settings, topn, prepared)
    found = measure_lists(make_lists(scores, test, max(topn.k)), test, topn.k)
    return write_result(log.lists(name, seed), name, seed, {}, found)


def true_scores(truth: Truth, settings: RunSettings, topn: TopNSettings, prepared: Prepared) -> Scores:
    """Return scores of known items by how often a user is expected to make them relevant in the test windows.

    Args:
        truth: The world.
        settings: Settings of a run on its log.
        topn: Which tasks make an item relevant.
        prepared: The log.
    """
    behaviors = dict(zip(settings.task_names, check_reachable(truth.settings, settings), strict=True))
    wanted = [behaviors[name] for name in relevant_tasks(settings, topn)]
    snapshot = prepared.valid_window + 1
    ends = np.array([prepared.cuts[snapshot], prepared.examples("test").bucket.max()], np.int64) + 1
    start, end = (ends * seconds(settings.data.bucket)).astype("datetime64[s]")
    items = prepared.items.ids(np.arange(prepared.items_at[snapshot])).to_numpy(zero_copy_only=False)

    def scores(users: NDArray[np.int64]) -> NDArray[np.float64]:
        ids = prepared.users.ids(users).to_numpy(zero_copy_only=False)
        return expected_actions(truth, ids, items, wanted, start, end)

    return scores
