"""Top-N lists with one seed on one log, of a fitted model or of a baseline.

Those of a model are made by the code that makes the lists of a bundle, as of the snapshot before the window.
Settings of a baseline are chosen on validation, and its lists measured on test.

Axes: `Q` users that are asked for, `N` places of a list.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json, write_json
from mgoe.bundle.ranking import Query, choose, rank_users
from mgoe.bundle.scored_model import ScoredModel
from mgoe.config import RunSettings, TopNSettings, seconds
from mgoe.data import Prepared
from mgoe.errors import MgoeError
from mgoe.evaluation import ALL, Influence, Row, write_rows
from mgoe.pipeline.blending import fit_blend
from mgoe.pipeline.folder import DONE, FIT, INFLUENCE
from mgoe.pipeline.held_out import held_pairs
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.lists import list_objective, relevant_tasks
from mgoe.pipeline.plan import Cell, Log
from mgoe.pipeline.refit import load_calibration, load_model
from mgoe.pipeline.tuning import best_trial, propose
from mgoe.retrieval import Retrieval
from mgoe.simulation import Truth, check_reachable
from mgoe.simulation.expected import expected_actions
from mgoe.topn import Budget, Events, NextItems, Queries, Scores, find_baseline, make_lists, measure_lists
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
TRIALS = "trials.json"
"""Settings that were tried on validation."""


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


def queries_of(
    log: Log, settings: RunSettings, prepared: Prepared, topn: TopNSettings
) -> tuple[Queries, Queries]:
    """Return the queries of a log: some users on validation, and all on test.

    Validation is by time in every log, so that what is chosen there is chosen on what models do not know.
    """
    tasks = [t for t, task in enumerate(settings.tasks) if task.name in relevant_tasks(settings, topn)]
    hide, kind = topn.hides(log.whole is not None), NextItems if topn.next_item else Queries
    valid = kind.by_time(prepared, "valid", tasks, hide).sample(topn.tuning_users, topn.seed)
    if log.whole is None:
        return valid, kind.by_time(prepared, "test", tasks, hide)
    return valid, Queries.held_out(prepared, *held_pairs(log.rest, prepared), hide)


def measure_baseline(log: Log, name: str, seed: int, topn: TopNSettings, seeds: Sequence[int]) -> str:
    """Search the settings of a baseline on validation, and measure its lists on test.

    An interrupted search resumes.

    Args:
        log: The log.
        name: Of the baseline.
        seed: Of the baseline.
        topn: What is measured, and the number of trials.
        seeds: The prepared data of one of them are read; history and test rows are the same for all.

    Returns:
        The result in a few words.

    Raises:
        TrainingError: Every trial failed.
    """
    folder, baseline = log.lists(name, seed), find_baseline(name)
    settings, prepared = _prepared_of(log, seeds)
    valid, test = queries_of(log, settings, prepared, topn)
    depth = topn.k[0]
    file = folder / TRIALS
    trials = read_json(file)["trials"] if file.exists() else []
    spent = np.zeros(2)  # by the clock, and by the processor

    def fit(changed: Mapping[str, Any], budget: Budget, events: Events) -> Scores:
        begin = np.array([time.perf_counter(), time.process_time()])
        scores = baseline.fit(events, changed, seed, budget)
        spent[:] += np.array([time.perf_counter(), time.process_time()]) - begin
        return scores

    while len(trials) < topn.trials:
        changed = propose(baseline.space, trials, topn.seed, lower_is_better=False, first=[baseline.start])
        started, value, failed = time.process_time(), None, ""
        budget = Budget(60 * topn.trial_minutes)
        try:
            lists = valid.lists(partial(fit, changed, budget), depth)
            value = value_of(measure_lists(lists, valid, [depth]), f"ndcg@{depth}")
        except (MgoeError, ArithmeticError, np.linalg.LinAlgError) as error:
            failed = " ".join(str(error).split())
        seconds = round(time.process_time() - started, 1)
        trials.append(
            {
                "settings": changed,
                "value": value,
                "failed": failed,
                "cpu_seconds": seconds,
                "stopped_after_epochs": budget.stopped,
            }
        )
        write_json(file, {"trials": trials})
    best = best_trial(f"topn, {name}", trials, lower_is_better=False)
    budget, started, spent[:] = Budget(60 * topn.trial_minutes), time.process_time(), 0
    lists = test.lists(partial(fit, best, budget), max(topn.k))
    seconds = time.process_time() - started - spent[1]
    about = {
        "training_seconds": round(spent[0], 2),
        "cpu_seconds": round(spent[1], 2),
        "stopped_after_epochs": budget.stopped,
        "lists_cpu_seconds": round(seconds, 2),
    }
    if isinstance(test, NextItems):
        about |= {"queries": len(test.row), "unseen": float(test.unseen.mean())}
    found = measure_lists(lists, test, topn.k)
    return write_result(folder, name, seed, {"trials": trials, "best": best, **about}, found)


def measure_reachable(log: Log, name: str, seed: int, topn: TopNSettings, seeds: Sequence[int]) -> str:
    """Measure the best reachable lists on the test windows of a log with a truth.

    Args:
        log: The log.
        name: Noted with the result.
        seed: Noted with the result; nothing is drawn.
        topn: What is measured.
        seeds: The prepared data of one of them are read; history and test rows are the same for all.

    Returns:
        The result in a few words.
    """
    settings, prepared = _prepared_of(log, seeds)
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


def _prepared_of(log: Log, seeds: Sequence[int]) -> tuple[RunSettings, Prepared]:
    """Open the first prepared data of a log."""
    seed = next(seed for seed in seeds if (log.stage(seed) / "data").exists())
    return log.settings(seed), Prepared.open(log.stage(seed) / "data")


def value_of(found: Influence, metric: str) -> float:
    return float(found.values[found.names.index((ALL, metric))])


def write_result(folder: Path, name: str, seed: int, about: Mapping[str, Any], found: Influence) -> str:
    """Write what lists are worth, the metrics last, and return the first ones in words."""
    rows = [
        Row(model=name, seed=seed, split="test", slice=ALL, task=task, metric=metric, value=float(value))
        for (task, metric), value in zip(found.names, found.values, strict=True)
    ]
    write_json(folder / FIT, dict(about))
    found.save(folder / INFLUENCE)
    write_rows(folder / DONE, rows)
    return ", ".join(
        f"{metric} {value:.4f}" for (_, metric), value in zip(found.names[:2], found.values[:2], strict=True)
    )
