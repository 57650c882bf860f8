"""Top-N lists of one baseline or one model with one seed on one log: settings chosen on validation, lists
measured on test.

Axes: `Q` users that are asked for, `I` items, `N` places of a list, `B` pairs, `T` tasks.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json, write_json
from mgoe.bundle.sampling import in_whole_space, shifted_tasks, undo_sampling
from mgoe.config import RunSettings, TopNSettings
from mgoe.data import Prepared
from mgoe.errors import MgoeError, TrainingError
from mgoe.evaluation import ALL, Influence, Row, write_rows
from mgoe.experiments.cell import Inputs
from mgoe.experiments.folder import DONE, FIT, INFLUENCE
from mgoe.experiments.held_out import held_pairs
from mgoe.experiments.plan import Cell, Log, is_boosted
from mgoe.experiments.tuning import propose
from mgoe.features import FeatureSpec, View
from mgoe.models import BoostedTrees, RankingModel, make_model
from mgoe.topn import BASELINES, Queries, best_items, make_lists, measure_lists, popularity_places
from mgoe.training import PairScorer, load_weights
from mgoe.training.boosted import load_trees

TRIALS = "trials.json"
"""Settings that were tried on validation, and the best of them."""
READINGS = (1.0, 0.5, 0.0)
"""Shares of the sampling of negatives that are undone in the order of a model's list; validation chooses."""
PAIRS = 1 << 16
"""Pairs that are scored at a time."""
Candidates = Callable[[int], NDArray[np.int64]]
"""A user to the items that are ranked."""


def queries_of(
    log: Log, settings: RunSettings, prepared: Prepared, topn: TopNSettings
) -> tuple[Queries, Queries]:
    """Return the queries of a log: some users on validation, and all on test.

    Validation is by time in every log, so that what is chosen there is chosen on what models do not know.
    """
    tasks = [t for t, task in enumerate(settings.tasks) if task.name in relevant_tasks(settings, topn)]
    hide = topn.hide_known if topn.hide_known != "auto" else log.whole is not None
    valid = Queries.by_time(prepared, "valid", tasks, hide).sample(topn.tuning_users, topn.seed)
    if log.whole is None:
        return valid, Queries.by_time(prepared, "test", tasks, hide)
    return valid, Queries.held_out(prepared, *held_pairs(log.rest, prepared), hide)


def relevant_tasks(settings: RunSettings, topn: TopNSettings) -> list[str]:
    """Return the names of the tasks that make an item relevant."""
    return topn.tasks or [task.name for task in settings.tasks if task.kind == "binary"]


def measure_baseline(log: Log, name: str, seed: int, topn: TopNSettings, data: int) -> str:
    """Search the settings of a baseline on validation, and measure its lists on test.

    An interrupted search resumes.

    Args:
        log: The log.
        name: Of the baseline.
        seed: Of the baseline.
        topn: What is measured, and the number of trials.
        data: The seed whose prepared data are read; history and test rows are the same for all.

    Returns:
        The result in a few words.

    Raises:
        TrainingError: Every trial failed.
    """
    settings, folder, baseline = log.settings(data), log.lists(name, seed), BASELINES[name]
    prepared = Prepared.open(log.stage(data) / "data")
    valid, test = queries_of(log, settings, prepared, topn)
    depth = topn.k[0]
    file = folder / TRIALS
    trials = read_json(file)["trials"] if file.exists() else []
    while len(trials) < topn.trials:
        start = dict(baseline.start)
        changed = propose(baseline.space, trials, topn.seed, lower_is_better=False) if trials else start
        started, value, failed = time.process_time(), None, ""
        try:
            lists = make_lists(baseline.fit(valid.events, changed, seed), valid, depth)
            value = value_of(measure_lists(lists, valid, [depth]), f"ndcg@{depth}")
        except (MgoeError, ArithmeticError, np.linalg.LinAlgError) as error:
            failed = " ".join(str(error).split())
        seconds = round(time.process_time() - started, 1)
        trials.append({"settings": changed, "value": value, "failed": failed, "cpu_seconds": seconds})
        write_json(file, {"trials": trials})
    done = [trial for trial in trials if trial["value"] is not None]
    if not done:
        raise TrainingError(f"topn, {name}", f"every trial failed, the first with: {trials[0]['failed']}")
    best = max(done, key=lambda trial: trial["value"])["settings"]
    clock, started = time.perf_counter(), time.process_time()
    scores = baseline.fit(test.events, best, seed)
    cost = {
        "training_seconds": round(time.perf_counter() - clock, 2),
        "cpu_seconds": round(time.process_time() - started, 2),
    }
    found = measure_lists(make_lists(scores, test, max(topn.k)), test, topn.k)
    return write_result(folder, name, seed, {"trials": trials, "best": best, **cost}, found)


def measure_model(cell: Cell, topn: TopNSettings, searched: bool) -> str:
    """Measure the lists of a finished cell on test.

    Args:
        cell: A finished cell with its weights.
        topn: What is measured.
        searched: The model has the settings that its search found.

    Returns:
        The result in a few words.
    """
    settings, folder = cell.settings, cell.log.lists(cell.contestant.name, cell.seed)
    inputs = Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    model = load_model(cell, inputs, searched)
    valid, test = queries_of(cell.log, settings, inputs.prepared, topn)
    depth, tasks = topn.k[0], relevant_tasks(settings, topn)

    def lists_of(queries: Queries, readings: Sequence[float], n: int) -> list[NDArray[np.int64]]:
        prepared = inputs.prepared
        view = View.of(inputs.graph.snapshots[queries.snapshot], prepared.user_side, prepared.item_side)
        everything = np.arange(queries.events.shape[1])
        score = ItemScores(model, view, inputs, settings, tasks)
        return ranked_lists(score, queries, lambda user: everything, readings, n)

    values = [
        value_of(measure_lists(lists, valid, [depth]), f"ndcg@{depth}")
        for lists in lists_of(valid, READINGS, depth)
    ]
    best = READINGS[int(np.argmax(values))]
    trials = [{"settings": {"undone": r}, "value": v} for r, v in zip(READINGS, values, strict=True)]
    [lists] = lists_of(test, [best], max(topn.k))
    found = measure_lists(lists, test, topn.k)
    about = {"trials": trials, "best": {"undone": best}}
    cost = read_json(cell.folder / FIT)
    about |= {key: cost.get(key) for key in ("training_seconds", "cpu_seconds")}
    return write_result(folder, cell.contestant.name, cell.seed, about, found)


def load_model(cell: Cell, inputs: Inputs, searched: bool) -> RankingModel:
    """Return the model of a finished cell with its weights."""
    spec = FeatureSpec.from_json((cell.folder / "spec.json").read_text(encoding="utf-8"))
    settings = cell.model(searched)
    model = make_model(inputs.decided(settings), spec, cell.seed)
    if is_boosted(settings):
        assert isinstance(model, BoostedTrees)
        load_trees(model, cell.folder)
    else:
        load_weights(model, cell.folder / "model.safetensors")
    return model.eval()


class ItemScores:
    """Scores of pairs by which a model orders items: the sum of the probabilities of some tasks.

    A task within a sample space counts with the probability that it is done at all.

    Args:
        model: With its weights.
        view: What is known of users and items.
        inputs: The log that the model was trained on.
        settings: Of the run.
        tasks: Names of the tasks.
    """

    def __init__(
        self, model: RankingModel, view: View, inputs: Inputs, settings: RunSettings, tasks: Sequence[str]
    ):
        self._score, self._prior, self._tasks = PairScorer(model, view), inputs.prior, settings.tasks
        self._context = inputs.prepared.context_features
        self._columns = [t for t, task in enumerate(settings.tasks) if task.name in tasks]

    def __call__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], readings: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the scores of pairs for each share of the sampling that is undone. Shape (readings, B)."""
        learned = self._score(users, items, self._context.encode({}, len(users)))
        shifted, prior = shifted_tasks(self._tasks), self._prior[items]
        return np.stack(
            [
                in_whole_space(undo_sampling(learned, share * prior, shifted), self._tasks)[:, self._columns]
                .sum(axis=1)
                .astype(np.float64)
                for share in readings
            ]
        )


def ranked_lists(
    score: ItemScores, queries: Queries, candidates: Candidates, readings: Sequence[float], n: int
) -> list[NDArray[np.int64]]:
    """Return the best candidates of every user, for each reading of the same scores. Shape (Q, N) each."""
    places, known = popularity_places(queries.events), queries.events.matrix()
    found = [np.full((len(queries.users), n), -1, np.int64) for _ in readings]
    for rows, items in blocks(queries, candidates, known):
        sizes = [len(one) for one in items]
        scores = score(np.repeat(queries.users[rows], sizes), np.concatenate(items), readings)
        starts = np.cumsum([0, *sizes])
        for row, mine, start, end in zip(rows, items, starts[:-1], starts[1:], strict=True):
            for lists, of_reading in zip(found, scores, strict=True):
                best = mine[best_items(of_reading[start:end], places[mine], n)]
                lists[row, : len(best)] = best
    return found


def blocks(
    queries: Queries, candidates: Candidates, known: Any
) -> Iterator[tuple[list[int], list[NDArray[np.int64]]]]:
    """Yield rows of users with their candidates, about `PAIRS` pairs at a time."""
    rows, items = list[int](), list[NDArray[np.int64]]()
    for row, user in enumerate(queries.users):
        mine = candidates(int(user))
        if queries.hide:
            mine = np.setdiff1d(mine, known.indices[known.indptr[user] : known.indptr[user + 1]])
        if len(mine):
            rows.append(row)
            items.append(mine)
        if sum(map(len, items)) >= PAIRS:
            yield rows, items
            rows, items = [], []
    if rows:
        yield rows, items


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
