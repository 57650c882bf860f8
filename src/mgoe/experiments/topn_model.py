"""Top-N lists of a fitted model with one seed on one log, as its bundle would give them: candidates retrieved
and ranked, or every item ranked where nothing is retrieved.

Axes: `Q` users that are asked for, `N` places of a list, `B` pairs, `T` tasks, `G` generators.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe._util.files import read_json
from mgoe.bundle.sampling import in_whole_space, shift_of, shifted_tasks, undo_sampling
from mgoe.config import RetrievalSettings, RunSettings, TopNSettings, retrieval_of
from mgoe.evaluation import FEWEST, Influence
from mgoe.experiments.cell import Inputs
from mgoe.experiments.folder import FIT
from mgoe.experiments.plan import Cell, is_boosted
from mgoe.experiments.quotas import with_quotas
from mgoe.experiments.topn_cell import queries_of, relevant_tasks, value_of, write_result
from mgoe.features import FeatureSpec, View
from mgoe.models import BoostedTrees, RankingModel, make_model
from mgoe.retrieval import Retrieval
from mgoe.topn import Queries, best_items, measure_lists, popularity_places
from mgoe.training import PairScorer, load_weights
from mgoe.training.boosted import load_trees

READINGS = (1.0, 0.5, 0.0)
"""Shares of the sampling of negatives that are undone in the order of a list; validation chooses one."""
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
    settings, name, seed = cell.settings, cell.contestant.name, cell.seed
    folder = cell.log.lists(name, seed)
    inputs = Inputs.open(cell.log.stage(seed), settings, cell.graph)
    model = load_model(cell, inputs, searched)
    valid, test = queries_of(cell.log, settings, inputs.prepared, topn)
    depth, deepest = topn.k[0], max(topn.k)
    how = retrieval_of(topn.retrieval, inputs.graph.latest.n_items)
    how = None if how is None else with_quotas(how, settings, inputs.prepared, inputs.graph)
    tasks = relevant_tasks(settings, topn)
    with TemporaryDirectory(prefix="mgoe-") as scratch:
        score, retrieved = _opened(model, valid, inputs, settings, tasks, how, Path(scratch) / "valid")
        lists = ranked_lists(score, valid, candidates_of(valid, retrieved), READINGS, depth)
        values = [value_of(measure_lists(one, valid, [depth]), f"ndcg@{depth}") for one in lists]
        best = READINGS[int(np.argmax(values))]
        score, retrieved = _opened(model, test, inputs, settings, tasks, how, Path(scratch) / "test")
        [lists] = ranked_lists(score, test, candidates_of(test, retrieved), [best], deepest)
        if retrieved is not None:
            found, _ = recall(retrieved, test, [test.item[test.user == user] for user in test.users])
            write_result(folder / RECALL, name, seed, {}, found)
        if retrieved is not None and topn.exact_users:
            some = test.sample(topn.exact_users, topn.seed)
            [every] = ranked_lists(score, some, candidates_of(some, None), [best], deepest)
            mine = lists[np.isin(test.users, some.users)]
            beside = {"recall": recall(retrieved, some, [*every[:, :depth]])[1], "depth": depth}
            write_result(folder / EXACT, name, seed, beside, measure_lists(every, some, topn.k))
            write_result(folder / SAMPLED, name, seed, {}, measure_lists(mine, some, topn.k))
    fit = read_json(cell.folder / FIT)
    trials = [{"settings": {"undone": r}, "value": v} for r, v in zip(READINGS, values, strict=True)]
    about = {"trials": trials, "best": {"undone": best}}
    about |= {key: fit.get(key) for key in ("training_seconds", "cpu_seconds")}
    return write_result(folder, name, seed, about, measure_lists(lists, test, topn.k))


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
        self.view = view
        self._score, self._tasks = PairScorer(model, view), settings.tasks
        self._prior = inputs.prior(view.snapshot)
        self._context = inputs.prepared.context_features
        self._columns = [t for t, task in enumerate(settings.tasks) if task.name in tasks]

    def __call__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], readings: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the scores of pairs for each share of the sampling that is undone. Shape (readings, B)."""
        learned = self._score(users, items, self._context.encode({}, len(users)))
        shifted, prior = shifted_tasks(self._tasks), shift_of(self._prior, items)
        whole = (
            in_whole_space(undo_sampling(learned, share * prior, shifted), self._tasks) for share in readings
        )
        return np.stack([one[:, self._columns].sum(axis=1, dtype=np.float64) for one in whole])


class Retrieved:
    """Candidates of users, as of one view.

    Args:
        retrieval: Computed from the view's snapshot.
        view: The view.
        n: Number of candidates.
    """

    def __init__(self, retrieval: Retrieval, view: View, n: int):
        self._retrieval, self._view, self.n = retrieval, view, n

    def __call__(self, user: int) -> NDArray[np.int64]:
        return self._retrieval.candidates(self._view, user, self.n)

    def by_generator(self, user: int) -> dict[str, NDArray[np.int64]]:
        """Return as many items of every generator as there are candidates, and the candidates."""
        return {MIX: self(user), **self._retrieval.generate(self._view, user, self.n)}


def _opened(
    model: RankingModel,
    queries: Queries,
    inputs: Inputs,
    settings: RunSettings,
    tasks: Sequence[str],
    how: RetrievalSettings | None,
    folder: Path,
) -> tuple[ItemScores, Retrieved | None]:
    """Return what scores and what retrieves items at the snapshot of queries; None if all are ranked."""
    prepared = inputs.prepared
    view = View.of(inputs.graph.snapshots[queries.snapshot], prepared.user_side, prepared.item_side)
    score = ItemScores(model, view, inputs, settings, tasks)
    if how is None:
        return score, None
    return score, Retrieved(Retrieval.build(view, folder, how), view, how.candidates)


def candidates_of(queries: Queries, retrieved: Retrieved | None) -> Candidates:
    """Return what is ranked for a user: candidates or every item, without known ones if these are hidden."""
    everything, known = np.arange(queries.events.shape[1]), queries.events.matrix()

    def candidates(user: int) -> NDArray[np.int64]:
        mine = everything if retrieved is None else retrieved(user)
        return np.setdiff1d(mine, _known(known, user)).astype(np.int64) if queries.hide else mine

    return candidates


def _known(known: sp.csr_array, user: int) -> NDArray[np.integer]:
    return known.indices[known.indptr[user] : known.indptr[user + 1]]


def ranked_lists(
    score: ItemScores, queries: Queries, candidates: Candidates, readings: Sequence[float], n: int
) -> list[NDArray[np.int64]]:
    """Return the best candidates of every user, for each reading of the same scores. Shape (Q, N) each."""
    places = popularity_places(queries.events)
    found = [np.full((len(queries.users), n), -1, np.int64) for _ in readings]
    for rows, items in _blocks(queries, candidates):
        sizes = [len(one) for one in items]
        scores = score(np.repeat(queries.users[rows], sizes), np.concatenate(items), readings)
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
    shares: list[dict[str, float]] = []
    for user, items in zip(queries.users, wanted, strict=True):
        found = retrieved.by_generator(int(user))
        shares.append({name: float(np.isin(items, mine).mean()) for name, mine in found.items()})
    names = list(shares[0])
    values = np.array([[share[name] for name in names] for share in shares])  # (Q, G)
    means = values.mean(axis=0)
    parts = (values - means) / len(values) if len(values) >= FEWEST else np.full_like(values, np.nan)
    columns = tuple((name, f"recall@{retrieved.n}") for name in names)
    influence = Influence(columns, means, queries.users, parts.astype(np.float32))
    return influence, dict(zip(names, means.tolist(), strict=True))
