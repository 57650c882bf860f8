"""Top-N lists of a fitted model with one seed on one log, as its bundle would give them: candidates retrieved
and ranked, or every item ranked where nothing is retrieved.

Axes: `Q` users that are asked for, `N` places of a list, `B` pairs, `T` tasks, `G` generators.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json
from mgoe.bundle.sampling import in_whole_space
from mgoe.bundle.scored_model import ScoredModel
from mgoe.config import TopNSettings
from mgoe.evaluation import FEWEST, Influence
from mgoe.experiments.blending import fit_blend
from mgoe.experiments.fitted import load_calibration, load_model
from mgoe.experiments.folder import FIT
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell
from mgoe.experiments.topn_cell import queries_of, relevant_tasks, value_of, write_result
from mgoe.features import View
from mgoe.retrieval import Retrieval
from mgoe.topn import Queries, best_items, measure_lists, popularity_places

READINGS = (1.0, 0.5, 0.0)
"""Shares of the sampling of negatives that are undone in the order of a list; validation chooses one where no
blend is fitted."""
PAIRS = 1 << 16
"""Pairs that are scored at a time."""
EXACT, SAMPLED = "exact", "sampled"
"""Folders of the lists of every item and of candidates, for the same sample of users."""
RECALL = "recall"
"""Folder of how much each generator finds."""
MIX = "mix"
"""Name of all generators together."""
Candidates = Callable[[int], NDArray[np.int64]]
"""A user to the items that are ranked."""


def measure_model(cell: Cell, topn: TopNSettings, searched: bool) -> str:
    """Measure the lists of a finished cell on test.

    If it retrieves candidates, two things are measured beside its lists: what each generator finds, and for a
    sample of users what ranking every item would give.

    Args:
        cell: A finished cell with its weights.
        topn: What is measured.
        searched: The model has the settings that its search found.

    Returns:
        The result in a few words.
    """
    name, seed = cell.variant.name, cell.seed
    settings = cell.settings.model_copy(update={"retrieval": topn.retrieval})
    folder = cell.log.lists(name, seed)
    inputs = Inputs.open(cell.log.stage(seed), settings, cell.graph)
    model = load_model(cell, inputs, searched)
    valid, test = queries_of(cell.log, settings, inputs.prepared, topn)
    depth, deepest = topn.k[0], max(topn.k)
    before, how, calibration = inputs.retrieval_before_validation, inputs.retrieval, load_calibration(cell)
    blend = fit_blend(model, inputs, calibration)
    tasks = relevant_tasks(settings, topn)
    with TemporaryDirectory(prefix="mgoe-") as scratch:
        best, trials = 1.0, list[dict[str, Any]]()
        if blend is None:
            scored = inputs.scored(model, inputs.graph.snapshots[valid.snapshot], calibration, before)
            retrieved = None if before is None else Retrieved(before, scored.view)
            score = ItemScores(scored, tasks)
            lists = ranked_lists(score, valid, candidates_of(valid, retrieved), READINGS, depth)
            values = [value_of(measure_lists(one, valid, [depth]), f"ndcg@{depth}") for one in lists]
            best = READINGS[int(np.argmax(values))]
            trials = [{"settings": {"undone": r}, "value": v} for r, v in zip(READINGS, values, strict=True)]
        scored = inputs.scored(model, inputs.graph.snapshots[test.snapshot], calibration)
        if how is not None:
            scored.retrieval = Retrieval.build(scored.view, Path(scratch, "test"), how, blend=blend)
        retrieved = None if scored.retrieval is None else Retrieved(scored.retrieval, scored.view)
        score = ItemScores(scored, tasks)
        [lists] = ranked_lists(score, test, candidates_of(test, retrieved), [best], deepest)
        if retrieved is not None:
            wanted = np.split(test.item, np.searchsorted(test.user, test.users)[1:])
            found, _ = recall(retrieved, test, wanted)
            write_result(folder / RECALL, name, seed, {}, found)
        if retrieved is not None and topn.exact_users:
            some = test.sample(topn.exact_users, topn.seed)
            [every] = ranked_lists(score, some, candidates_of(some, None), [best], deepest)
            mine = lists[np.isin(test.users, some.users)]
            beside = {"recall": recall(retrieved, some, [*every[:, :depth]])[1], "depth": depth}
            write_result(folder / EXACT, name, seed, beside, measure_lists(every, some, topn.k))
            write_result(folder / SAMPLED, name, seed, {}, measure_lists(mine, some, topn.k))
    fit = read_json(cell.folder / FIT)
    chosen = {"undone": best} if blend is None else blend._asdict()
    about = {"trials": trials, "best": chosen}
    about |= {key: fit.get(key) for key in ("training_seconds", "cpu_seconds")}
    return write_result(folder, name, seed, about, measure_lists(lists, test, topn.k))


class Retrieved(NamedTuple):
    """What candidates of users come from.

    Attributes:
        retrieval: Computed from the view's snapshot.
        view: The view.
    """

    retrieval: Retrieval
    view: View

    def __call__(self, user: int, without: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the candidates of a user, ascending, without some items that rise."""
        return np.sort(self.retrieval.candidates(self.view, user, without=without))


class ItemScores:
    """Scores by which a model orders items: the sum of the probabilities of some tasks, blended with links.

    A task within a sample space counts with the probability that it is done at all.

    Args:
        scored: The model.
        tasks: Names of the tasks.
    """

    def __init__(self, scored: ScoredModel, tasks: Sequence[str]):
        self._scored, self._tasks = scored, scored.settings.tasks
        self._columns = [t for t, task in enumerate(self._tasks) if task.name in tasks]

    def __call__(
        self, users: NDArray[np.int64], items: Sequence[NDArray[np.int64]], readings: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the scores of pairs for each share of the sampling that is undone.

        Args:
            users: Shape (Q,).
            items: Of each, ascending. Q arrays.
            readings: The shares.

        Returns:
            Of the items of all users, one after the other. Shape (readings, B).
        """
        each, every = np.repeat(users, [len(one) for one in items]), np.concatenate(items)
        learned = self._scored.score_indices(each, every, recalibrated=False)
        bounds, found = np.cumsum([len(one) for one in items])[:-1], list[NDArray[np.float64]]()
        for scored in map(self._scored.undoing, readings):
            apart = np.split(scored.recalibrate(learned, every), bounds)
            asked = zip(users.tolist(), items, apart, strict=True)
            whole = in_whole_space(
                np.concatenate([scored.blended(scored, *one) for one in asked]), self._tasks
            )
            found.append(whole[:, self._columns].sum(axis=1, dtype=np.float64))
        return np.stack(found)


def candidates_of(queries: Queries, retrieved: Retrieved | None) -> Candidates:
    """Return what is ranked for a user: candidates or every item, without known ones if these are hidden."""
    everything, known = np.arange(queries.events.shape[1]), queries.events.matrix()

    def candidates(user: int) -> NDArray[np.int64]:
        hidden = np.sort(known[[user]].indices).astype(np.int64) if queries.hide else None
        if retrieved is not None:
            return retrieved(user, hidden)
        return everything if hidden is None else np.setdiff1d(everything, hidden)

    return candidates


def ranked_lists(
    score: ItemScores, queries: Queries, candidates: Candidates, readings: Sequence[float], n: int
) -> list[NDArray[np.int64]]:
    """Return the best candidates of every user, for each reading of the same scores. Shape (Q, N) each."""
    places = popularity_places(queries.events)
    found = [np.full((len(queries.users), n), -1, np.int64) for _ in readings]
    for rows, items in _blocks(queries, candidates):
        sizes = [len(one) for one in items]
        scores = score(queries.users[rows], items, readings)
        bounds = np.cumsum(sizes)[:-1]
        for lists, of_reading in zip(found, scores, strict=True):
            for row, mine, own in zip(rows, items, np.split(of_reading, bounds), strict=True):
                best = mine[best_items(own, places[mine], n)]
                lists[row, : len(best)] = best
    return found


def _blocks(queries: Queries, candidates: Candidates) -> Iterator[tuple[list[int], list[NDArray[np.int64]]]]:
    """Yield rows of users with their candidates, about `PAIRS` pairs at a time."""
    rows, items, pairs = list[int](), list[NDArray[np.int64]](), 0
    for row, user in enumerate(queries.users):
        mine = candidates(int(user))
        if len(mine):
            rows.append(row)
            items.append(mine)
            pairs += len(mine)
        if pairs >= PAIRS:
            yield rows, items
            rows, items, pairs = [], [], 0
    if rows:
        yield rows, items


def recall(
    retrieved: Retrieved, queries: Queries, wanted: Sequence[NDArray[np.int64]]
) -> tuple[Influence, dict[str, float]]:
    """Return the share of some items of each user that each generator finds, and that the mix finds.

    Args:
        retrieved: Generators and their mix.
        queries: The users.
        wanted: Items of each user, without -1. Q arrays.

    Returns:
        The mean over users, `recall@N` by generator in place of a task, with every user's influence; and the
        means alone.
    """
    retrieval, view = retrieved
    depth = sum(retrieval.quotas.values())  # as many of every generator as there are candidates
    shares, candidates = list[dict[str, float]](), candidates_of(queries, retrieved)
    for user, items in zip(queries.users.tolist(), wanted, strict=True):
        found = {MIX: candidates(user), **retrieval.generate(view, user, depth)}
        shares.append({name: float(np.isin(items, mine).mean()) for name, mine in found.items()})
    names = list(shares[0])
    values = np.array([[share[name] for name in names] for share in shares])  # (Q, G)
    means = values.mean(axis=0)
    parts = (values - means) / len(values) if len(values) >= FEWEST else np.full_like(values, np.nan)
    columns = tuple((name, f"recall@{depth}") for name in names)
    influence = Influence(columns, means, queries.users, parts.astype(np.float32))
    return influence, dict(zip(names, means.tolist(), strict=True))
