"""Top-N lists of a fitted model with one seed on one log: made by the code that makes the lists of a bundle,
as of the snapshot before the window.

Axes: `Q` users that are asked for, `N` places of a list.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json
from mgoe.bundle.ranking import Query, choose, rank_users
from mgoe.bundle.scored_model import ScoredModel
from mgoe.config import TopNSettings
from mgoe.evaluation import Influence
from mgoe.experiments.blending import fit_blend
from mgoe.experiments.folder import FIT
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell
from mgoe.experiments.refit import load_calibration, load_model
from mgoe.experiments.topn_cell import queries_of, value_of, write_result
from mgoe.experiments.topn_objective import list_objective
from mgoe.retrieval import Retrieval
from mgoe.topn import Queries, measure_lists
from mgoe.topn.measure import mean_over_users

READINGS = (1.0, 0.5, 0.0)
"""Shares of the sampling of negatives that are undone in the order of a list; validation chooses one where no
blend is fitted."""
EXACT, SAMPLED = "exact", "sampled"
"""Folders of the lists of every item and of candidates, for the same sample of users."""
RECALL = "recall"
"""Folder of how much each generator finds."""
MIX = "mix"
"""Name of all generators together."""


def measure_model(cell: Cell, topn: TopNSettings) -> str:
    """Measure the lists of a finished cell on test.

    If it retrieves candidates, two things are measured beside its lists: what each generator finds, and for a
    sample of users what ranking every item would give.

    Args:
        cell: A finished cell.
        topn: What is measured.

    Returns:
        The result in a few words.
    """
    name, seed = cell.variant.name, cell.seed
    settings = cell.settings.model_copy(update={"retrieval": topn.retrieval})
    folder = cell.log.lists(name, seed)
    inputs = Inputs.open(cell.log.stage(seed), settings, cell.graph)
    model, calibration = load_model(cell, inputs), load_calibration(cell, "valid")
    chosen = load_model(cell, inputs, "chosen")  # has not learned what lists of validation are to find
    valid, test = queries_of(cell.log, settings, inputs.prepared, topn)
    before, after = (inputs.graph.snapshots[queries.snapshot] for queries in (valid, test))
    depth, best, trials = topn.k[0], 1.0, list[dict[str, Any]]()
    objective, blend = list_objective(settings, topn), fit_blend(chosen, inputs, calibration)
    shown = Query(max(topn.k), objective, {}, np.empty(0, np.int64), (), {}, exact=False)
    if blend is None:
        scored = inputs.scored(chosen, before, calibration, inputs.retrieval_before_validation)
        lists = ranked_lists(scored.readings(READINGS), valid, replace(shown, k=depth))
        values = [value_of(measure_lists(one, valid, [depth]), f"ndcg@{depth}") for one in lists]
        best = READINGS[int(np.argmax(values))]
        trials = [{"settings": {"undone": r}, "value": v} for r, v in zip(READINGS, values, strict=True)]
    with TemporaryDirectory(prefix="mgoe-") as scratch:
        [scored] = inputs.scored(model, after, calibration).readings([best])
        if inputs.retrieval is not None:
            scored.retrieval = Retrieval.build(
                scored.view, Path(scratch, "test"), inputs.retrieval, blend=blend
            )
        started = time.process_time()
        [lists] = ranked_lists([scored], test, shown)
        seconds = round(time.process_time() - started, 2)
        if scored.retrieval is not None:
            wanted = np.split(test.item, np.searchsorted(test.user, test.users)[1:])
            found, _ = recall(scored, test, shown, wanted)
            write_result(folder / RECALL, name, seed, {}, found)
        if scored.retrieval is not None and topn.exact_users:
            some = test.sample(topn.exact_users, topn.seed)
            [every] = ranked_lists([scored], some, replace(shown, exact=True))
            mine = lists[np.isin(test.users, some.users)]
            beside = {"recall": recall(scored, some, shown, [*every[:, :depth]])[1], "depth": depth}
            write_result(folder / EXACT, name, seed, beside, measure_lists(every, some, topn.k))
            write_result(folder / SAMPLED, name, seed, {}, measure_lists(mine, some, topn.k))
    fit = read_json(cell.folder / FIT)
    order = {"undone": best} if blend is None else blend._asdict()
    about = {"trials": trials, "best": order, "lists_cpu_seconds": seconds}
    about |= {key: fit.get(key) for key in ("training_seconds", "cpu_seconds")}
    return write_result(folder, name, seed, about, measure_lists(lists, test, topn.k))


def ranked_lists(models: Sequence[ScoredModel], queries: Queries, query: Query) -> list[NDArray[np.int64]]:
    """Return the best items of every user by each of some models with one snapshot.

    Args:
        models: What ranks; readings of one model are asked in turn.
        queries: The users, and whether items that they know are hidden.
        query: What is asked for each.

    Returns:
        Items by index, best first, -1 where a list ends earlier. Shape (Q, N) for each model.
    """
    users, query = queries.users.tolist(), _of_known(query, queries, models[0])
    found = [np.full((len(users), query.k), -1, np.int64) for _ in models]
    ranked = (rank_users(one, one, users, query) for one in models)
    for row, of_models in enumerate(zip(*ranked, strict=True)):
        for lists, one in zip(found, of_models, strict=True):
            lists[row, : len(one.items)] = one.items
    return found


def recall(
    scored: ScoredModel, queries: Queries, query: Query, wanted: Sequence[NDArray[np.int64]]
) -> tuple[Influence, dict[str, float]]:
    """Return the share of some items of each user that each generator finds, and that the mix finds.

    Args:
        scored: Retrieves candidates.
        queries: The users, and whether items that they know are hidden.
        query: What is asked for each.
        wanted: Items of each user, without -1. Q arrays.

    Returns:
        The mean over users, `recall@N` by generator in place of a task, with every user's influence; and the
        means alone.
    """
    assert scored.retrieval is not None
    depth = sum(scored.retrieval.quotas.values())  # as many of every generator as there are candidates
    shares = list[dict[str, float]]()
    for user, items in zip(queries.users.tolist(), wanted, strict=True):
        mix = choose(scored, scored, _of_known(query, queries, scored), user).items
        found = {MIX: mix, **scored.retrieval.generate(scored.view, user, depth)}
        shares.append({name: float(np.isin(items, mine).mean()) for name, mine in found.items()})
    columns = {(name, f"recall@{depth}"): np.array([share[name] for share in shares]) for name in shares[0]}
    means = mean_over_users(columns, queries.users)
    return means, dict(zip(shares[0], means.values.tolist(), strict=True))


def _of_known(query: Query, queries: Queries, model: ScoredModel) -> Query:
    """Return a query that leaves out what may not be in a list: items that nobody did before, of which
    content tells, and items that users know if these are hidden."""
    unseen = np.arange(model.n_items, len(model.view.base["item"]["sum"]))
    return replace(query, left_out=np.union1d(query.left_out, unseen), exclude_known=queries.hide)
