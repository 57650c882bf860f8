"""Lists with items that nobody has acted on: how many users find what they then do of them?

    python benchmarks/newcomers.py RUN [--logs daily,cold] [--models mgoe] [--seeds 0] [--users 600]

RUN is the folder of a finished `mgoe compare` of simulated logs, such as that of `examples/content.yaml`.
Lists are made as of the snapshot before the test window, once for random users who do something in it, and
once for random users who do something in it on an unseen item, of which the snapshot has no event. All items
of the log can be recommended: unseen ones stand for registered items. An item is relevant if the user does
anything on it in the window.

One line per figure, `{name, value, unit, against, ratio}`, called `newcomers.LOG.MODEL.HOW.WHAT`. HOW is

- `newest`: 500 candidates are ranked, without the generator `unseen`: of unseen items the 50 newest;
- `retrieved`: 500 candidates, with it;
- `told`: the world's own expectation ranks, which knows of an unseen item what its vector tells of its
  community, and nothing of how popular it will be;
- `truth`: the world's own expectation ranks;
- `shelf.newest`, `shelf.retrieved`, `shelf.told` and `shelf.truth`: a filter lets unseen items pass alone;
- `shelf.exact`: all of these are ranked.

WHAT is `hr@10`, `hr@50` (share of users with a relevant item in the list) and `recall` (share of a user's
relevant items among the candidates), and `unseen.hr@10`, ... of unseen items alone. `against` is the figure
of `newest` or `shelf.newest`, and the ratio is that of the two.

`newcomers.LOG.MODEL.rows.told.auc`, `.gauc` and `.rows.truth.auc`, ... are those of the test rows of unseen
items if these rank, means over tasks: what is reachable, where the slice `unseen-items` of a comparison has
what a model reaches. Negatives are as popular as positives, so `truth` is divided by how popular the item is.

`newcomers.LOG.MODEL.recommend.cpu_ms` is the processor time of a list of `retrieved`, and `against` that of
`newest`, in turn; `newcomers.LOG.MODEL.unseen.cpu_ms` is that of the generator alone, with as many unseen
items as it compares at most.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import line
from mgoe.bundle.item_index import Filter, ItemIndex
from mgoe.bundle.ranking import Query, choose, rank
from mgoe.bundle.scored_model import ScoredModel
from mgoe.bundle.steps import finished
from mgoe.config import RetrievalSettings, TopNSettings, load_comparison, seconds
from mgoe.experiments.blending import fit_blend
from mgoe.experiments.fitted import load_calibration, load_model
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell, Plan
from mgoe.experiments.topn_model import ranked_lists
from mgoe.experiments.topn_objective import list_objective
from mgoe.metrics import auc, gauc
from mgoe.retrieval import OwnItems, Retrieval
from mgoe.retrieval.generators import MOST_UNSEEN, Asked, unseen
from mgoe.simulation import Truth
from mgoe.simulation.content import told_communities
from mgoe.simulation.expected import expected_actions
from mgoe.topn import Queries, make_lists
from mgoe.topn.queries import events_until

DEPTHS = (10, 50)
USERS, ROUNDS = 50, 5
"""Of the measurement of cost: users of a round, and rounds."""
Ways = dict[str, tuple[ScoredModel, Query]]
"""What makes lists, and what it is asked, by name."""


class Registered(ScoredModel):
    """A model whose catalogue holds every item of the log."""

    @property
    def n_items(self) -> int:
        """Items that can be ranked."""
        return self.encoders.items.size


class UnseenOnly(ItemIndex):
    """Lets only items pass that the snapshot has no event of, whatever is asked."""

    def passes(
        self, items: NDArray[np.int64], filters: Sequence[Filter], left_out: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        return items >= len(self._score_sum)

    def most_popular(
        self, n: int, filters: Sequence[Filter], left_out: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        return np.empty(0, np.int64)


def main() -> None:
    """Measure the finished cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    for name in ("logs", "models", "seeds"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","))
    parser.add_argument("--users", type=int, default=600)
    given = parser.parse_args()
    plan = Plan(load_comparison(given.run / "comparison.yaml"), given.run)
    seeds = given.seeds and [*map(int, given.seeds)]
    for cell in plan.chosen(given.models, seeds, given.logs):
        if cell.done:
            measure(cell, given.users)


def measure(cell: Cell, users: int) -> None:
    """Print the figures of a cell, for so many users."""
    settings = cell.settings.model_copy(update={"retrieval": RetrievalSettings()})
    inputs = Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    prepared, at = inputs.prepared, inputs.prepared.valid_window + 1
    model, calibration = load_model(cell, inputs), load_calibration(cell, "valid")
    how, objective = inputs.retrieval, list_objective(settings, TopNSettings())
    assert how is not None
    assert how.quotas is not None
    name = f"newcomers.{cell.log.name}.{cell.variant.name}"
    for generator, quota in how.quotas.items():
        line(f"{name}.quota.{generator}", quota, "items")
    known, snapshot = int(prepared.items_at[at]), inputs.graph.snapshots[at]
    every = relevant(inputs, at)
    shown = Query(max(DEPTHS), objective, {}, np.empty(0, np.int64), (), {}, exact=False)
    filtered = replace(shown, filters=(Filter("unseen", np.ones(1, bool)),))
    with tempfile.TemporaryDirectory() as scratch:
        fitted = model, snapshot, prepared, settings, inputs.sampling, calibration
        scored = Registered(*fitted)
        blend = fit_blend(model, inputs, calibration)
        scored.retrieval = Retrieval.build(scored.view, Path(scratch, "found"), how, blend=blend)
        old, shelf, old_shelf = copy(scored), copy(scored), copy(scored)
        for one in (shelf, old_shelf):
            vars(one)["item_index"] = UnseenOnly(prepared.item_side, snapshot.arrays["item_sum"])
        for one in (old, old_shelf):
            one.retrieval = replace(scored.retrieval, quotas={**scored.retrieval.quotas, "unseen": 0})
        ways: Ways = {"newest": (old, shown), "retrieved": (scored, shown)}
        report(cell, inputs, every.sample(users, seed=0), ways, 0, name)
        unseen_users = np.unique(every.user[every.item >= known])
        ways |= {"shelf.newest": (old_shelf, filtered), "shelf.retrieved": (shelf, filtered)}
        ways |= {"shelf.exact": (shelf, replace(filtered, exact=True))}
        report(cell, inputs, replace(every, users=unseen_users).sample(users, seed=0), ways, known, name)
        cost(name, old, scored, every.sample(USERS, seed=1), shown)
    rows(cell, inputs, at, name)


def report(cell: Cell, inputs: Inputs, queries: Queries, ways: Ways, first: int, name: str) -> None:
    """Print the figures of some users and of the items from `first` on."""
    found = dict[str, dict[str, float]]()
    for way, (one, query) in ways.items():
        [lists] = ranked_lists([one], queries, query)
        found[way] = hits(lists, queries, first) | {"recall": recall(one, query, queries, first)}
    for way, lists in expected_lists(cell, inputs, queries, shelf=first > 0).items():
        found[way] = hits(lists, queries, first)
    for way, figures in found.items():
        for what, value in figures.items():
            before = found["shelf.newest" if "shelf" in way else "newest"].get(what)
            ratio = value / before if before else None
            line(f"{name}.{way}.{'unseen.' * (first > 0)}{what}", value, "share", before, ratio)


def cost(name: str, old: ScoredModel, new: ScoredModel, queries: Queries, query: Query) -> None:
    """Print what a list costs without and with the generator, and the generator alone."""
    spent: tuple[list[float], list[float]] = [], []
    for _, user in itertools.product(range(ROUNDS), queries.users.tolist()):
        for one, times in zip((old, new), spent, strict=True):
            started = time.process_time()
            finished(rank(one, one, [user], query))
            times.append((time.process_time() - started) * 1e3)
    before, after = map(median, spent)
    line(f"{name}.recommend.cpu_ms", after, "ms", before, after / before)
    view, n = new.view, MOST_UNSEEN
    vectors = np.random.default_rng(0).normal(size=(n, view.base["item"]["vectors"].shape[1]))
    many = view.base["item"] | {"vectors": vectors.astype(np.float32)}
    view = replace(
        view,
        base={**view.base, "item": many},
        snapshot=replace(view.snapshot, arrays={**view.snapshot.arrays, "item_sum": np.empty(0)}),
    )
    none = np.empty(0, np.int64)
    nobodys = OwnItems(none, none, none.astype(np.float32), none)
    asked, took = Asked(view, view.known("user", queries.users[:1]), nobodys), list[float]()
    for _ in range(1 + ROUNDS * 10):
        started = time.process_time()
        unseen(new.retrieval.stored, asked, 500)  # type: ignore[union-attr]
        took.append((time.process_time() - started) * 1e3)
    line(f"{name}.unseen.cpu_ms", median(took[1:]), "ms")


def relevant(inputs: Inputs, at: int) -> Queries:
    """Return the users who do something in the test window, and all that they do in it."""
    prepared, window = inputs.prepared, inputs.prepared.examples("test")
    done = (np.nan_to_num(window.labels) > 0).any(axis=1) & (window.user >= 0)
    events = events_until(prepared, at)
    events = replace(events, shape=(events.shape[0], prepared.items.size))
    return Queries.of(events, at, window.user[done], window.item[done], hide=False)


def hits(lists: NDArray[np.int64], queries: Queries, first: int) -> dict[str, float]:
    """Return the share of users who find a relevant item, of the items from `first` on."""
    place, counts = np.searchsorted(queries.users, queries.user), queries.item >= first
    there = lists[place] == queries.item[:, None]
    found = {f"hr@{depth}": there[:, :depth].any(axis=1) for depth in DEPTHS}
    return {what: _mean(hit[counts], place[counts], max) for what, hit in found.items()}


def recall(scored: ScoredModel, query: Query, queries: Queries, first: int) -> float:
    """Return the share of a user's relevant items that are candidates, of the items from `first` on."""
    wanted = np.split(queries.item, np.searchsorted(queries.user, queries.users)[1:])
    found = [
        np.isin(items, choose(scored, scored, query, user).items)
        for user, items in zip(queries.users.tolist(), wanted, strict=True)
    ]
    place, counts = np.searchsorted(queries.users, queries.user), queries.item >= first
    return _mean(np.concatenate(found)[counts], place[counts], np.mean)


def expected_lists(cell: Cell, inputs: Inputs, queries: Queries, shelf: bool) -> dict[str, NDArray[np.int64]]:
    """Return the lists of the world's own expectation, of all items and, for a shelf, of unseen ones."""
    tasks = cell.settings.task_names
    scores, unseen = expectations(cell, inputs, queries.users, tasks, queries.snapshot)
    if shelf:
        scores |= {f"shelf.{way}": np.where(unseen, one, -np.inf) for way, one in scores.items()}
    return {
        way: make_lists(
            lambda asked, one=one: one[np.searchsorted(queries.users, asked)], queries, max(DEPTHS)
        )
        for way, one in scores.items()
    }


def expectations(
    cell: Cell, inputs: Inputs, users: NDArray[np.int64], tasks: Sequence[str], at: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Return what users do with every item in the test window, as the world expects it, and which items are
    unseen.

    Returns:
        `told` and `truth`, shape (Q, I) each, and shape (I,).
    """
    truth, prepared = Truth.open(Path(cell.settings.data.truth or "")), inputs.prepared
    ends = np.array([prepared.cuts[at], prepared.examples("test").bucket.max()], np.int64) + 1
    start, end = (ends * seconds(cell.settings.data.bucket)).astype("datetime64[s]")
    every = np.arange(prepared.items.size)
    asked, items = (
        nodes.ids(index).to_numpy(zero_copy_only=False)
        for nodes, index in ((prepared.users, users), (prepared.items, every))
    )
    best = expected_actions(truth, asked, items, tasks, start, end)
    unseen = every >= prepared.items_at[at]
    node = truth.indices(asked[:1], items)[1]
    community, told = truth.items.community, told_communities(truth, "item")[node]
    one_of = np.eye(community.max() + 1)
    share, sure = one_of[community].mean(axis=0), truth.settings.content or 0
    may_be = sure * one_of[told] + (1 - sure) * share  # (I, communities)
    members = one_of[community[node]]
    taste = best @ members / np.maximum(best.mean(axis=0) @ members, 1e-12)  # (Q, communities)
    return {"told": np.where(unseen, best[:, unseen].mean() * taste @ may_be.T, best), "truth": best}, unseen


def rows(cell: Cell, inputs: Inputs, at: int, name: str) -> None:
    """Print AUC and GAUC of the test rows of unseen items, if the world's expectation ranks: the means over
    tasks.
    """
    window, tasks = inputs.prepared.examples("test"), cell.settings.task_names
    window = window.take((window.item >= inputs.prepared.items_at[at]) & (window.user >= 0))
    users, place = np.unique(window.user, return_inverse=True)
    found: dict[str, list[tuple[float, float]]] = {}
    for task, labels in zip(tasks, window.labels.T, strict=True):
        for way, best in expectations(cell, inputs, users, [task], at)[0].items():
            own = best[place, window.item] / (best.mean(axis=0)[window.item] if way == "truth" else 1)
            found.setdefault(way, []).append((auc(labels, own), gauc(labels, own, window.user).value))
    for way, figures in found.items():
        for what, value in zip(("auc", "gauc"), np.mean(figures, axis=0).tolist(), strict=True):
            line(f"{name}.rows.{way}.{what}", value, "share")


def _mean(hit: NDArray[np.bool_], user: NDArray[np.int64], of_user: Callable) -> float:
    """Return the mean over users of what is made of the hits of each."""
    parts = np.split(hit, np.flatnonzero(np.diff(user)) + 1)
    return float(np.mean([of_user(part) for part in parts]))


if __name__ == "__main__":
    main()
