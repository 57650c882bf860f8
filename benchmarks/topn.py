"""Top-N recommendation over the whole catalogue: HR@10 and NDCG@10 of seeded users, models beside
popularity, item-kNN, ALS and LightGCN.

    python benchmarks/topn.py examples/tmall.yaml --set data.log=tmall.parquet --split time
    python benchmarks/topn.py examples/tmall.yaml --set data.log=tmall.parquet --split leave-last-out \\
        --models mgoe mmoe

Two protocols, each with `--queries` users, a thousand by default, and every item of the catalogue ranked:

- `time`: the test window of the configuration. Relevant is what a user does in it; recommenders know the
  history up to its snapshot, what a model reads. Items that the user knows stay in the list, since people do
  come back.
- `leave-last-out`: relevant is the last item of each user; all else is known, the other users' later events
  included, which is what papers measure and no service could. Items that a user did before leave his list.
  Models are trained on the log without what was held out, by its own time split, and read a snapshot of all
  of it.

Recommenders work on the matrix of users and items of all tasks, `ln(1 + number of events)` an entry:
popularity is its column sum, item-kNN the cosine of columns, ALS weighted matrix factorisation (Hu, Koren &
Volinsky 2008), both of `implicit`, and LightGCN (He et al. 2020) three rounds of smoothing with the loss of
pairs (`lightgcn.py`). A model's order is by the sum of its tasks' probabilities, or by one task's with
`--task`, with the sampling of negatives undone in full, by half or not at all. These and the other settings
(`READINGS`, `GRIDS`) are those of the best NDCG@10 on the validation window, by the history up to its
snapshot; there too `leave-last-out` takes what users know from their lists. A model's scores are kept in
memory: 4 bytes a query, item and task.

One line per figure: `topn.PROTOCOL.RECOMMENDER.METRIC`; `against` is popularity's, `ratio` the figure over
it. Then a line per model and recommender, `topn.PROTOCOL.MODEL-minus-RECOMMENDER.METRIC`: the mean
difference over users, `against` its standard error, `ratio` how many of these it is."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lightgcn import light_gcn
from benchmarks.measure import line, use_cores
from mgoe import experiments
from mgoe.bundle.sampling import in_whole_space, shifted_tasks, undo_sampling
from mgoe.config import RunSettings, did_you_mean, load_settings, make_settings
from mgoe.data import Prepared
from mgoe.evaluation import draw_queries, ranks_in
from mgoe.experiments.cell import Inputs, fit_model
from mgoe.experiments.plan import Plan
from mgoe.experiments.runs import begin
from mgoe.features import View
from mgoe.metrics import hit_rate_at, ndcg_at
from mgoe.training import PairScorer

DEPTH = 10
WIDTH = 64
"""Of LightGCN's embeddings."""
Grid = Sequence[Mapping[str, Any]]
GRIDS: dict[str, Grid] = {
    "popularity": [{}],
    "item-knn": [{"K": neighbors} for neighbors in (20, 100, 500)],
    "als": [
        {"factors": factors, "alpha": alpha} for factors in (64, 128, 256) for alpha in (10, 40, 160, 640)
    ],
    "lightgcn": [{"epochs": epochs} for epochs in (10, 20, 40)],
}
"""Settings that are tried; those of LightGCN are moments of one fit."""
READINGS: Grid = [{"undone": share} for share in (1, 0.5, 0)]
"""Of one fit of a model: how much of the sampling of negatives is undone."""
FIXES = {
    "time": "move the last of split.cuts, so users do known items after it, or choose --split leave-last-out",
    "leave-last-out": "take a log in which users do more than one item, or choose --split time",
}
"""By split, what helps where nothing is relevant."""
Scores = Callable[[NDArray[np.int64]], NDArray[np.floating]]
"""Users (Q,) to one score per item (Q, I)."""


@dataclass(frozen=True)
class Task:
    """What is to be found.

    Attributes:
        known: What recommenders know, `ln(1 + events)`. Shape (U, I).
        snapshot: At which a model knows the same.
        user, item: Relevant pairs, each once. Shape (P,).
        queries: Users that are asked for, rising. Shape (Q,).
        hide: Whether known items leave the list.
    """

    known: sp.csr_array
    snapshot: int
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    queries: NDArray[np.int64]
    hide: bool


def history_of(
    prepared: Prepared,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """User, item, task and snapshot of all events, in the order of time, user, item and task."""
    table = (
        prepared.history.order_by(["time", "user", "item", "task"])
        .select("user", "item", "task", "snapshot")
        .to_pyarrow()
    )
    user, item, task, snapshot = (column.to_numpy().astype(np.int64) for column in table.columns)
    return user, item, task, snapshot


def matrix(user: NDArray, item: NDArray, shape: tuple[int, int]) -> sp.csr_array:
    """`ln(1 + events)`. Shape (U, I)."""
    counts = sp.coo_array((np.ones(len(user), np.float32), (user, item)), shape).tocsr()
    counts.data = np.log1p(counts.data)
    return counts


def by_time(prepared: Prepared, split: Literal["valid", "test"], queries: int, seed: int, hide: bool) -> Task:
    """A window of the configuration, and the history up to its snapshot."""
    user, item, _, snapshot = history_of(prepared)
    last = prepared.valid_window + (split == "test")  # of several test windows the first snapshot
    shape = int(prepared.users_at[-1]), int(prepared.items_at[last])
    before = (snapshot <= last) & (item < shape[1])
    known = matrix(user[before], item[before], shape)
    window = prepared.examples(split)
    done = (window.labels > 0).any(1) & (window.item < shape[1])
    users, items = window.user[done], window.item[done]
    new = known[users, items] == 0 if hide else slice(None)
    return task_of(known, last, users[new], items[new], queries, seed, hide)


def leave_last_out(whole: Prepared, rest: Prepared, queries: int, seed: int) -> Task:
    """The last item of each user, where the rest of the log knows both.

    Args:
        whole: The log.
        rest: The log without what is held out, with codes of its own.
        queries, seed: Of the users.
    """
    user, item, *_ = history_of(whole)
    held = held_out(user, item)
    users, items = (
        rest.users.indices(whole.users.ids(user[held])),
        rest.items.indices(whole.items.ids(item[held])),
    )
    there = (users >= 0) & (items >= 0)
    known = matrix(*history_of(rest)[:2], (int(rest.users_at[-1]), int(rest.items_at[-1])))
    return task_of(known, len(rest.cuts), users[there], items[there], queries, seed, hide=True)


def task_of(
    known: sp.csr_array, snapshot: int, user: NDArray, item: NDArray, queries: int, seed: int, hide: bool
) -> Task:
    """The relevant pairs of a seeded sample of users, each once."""
    pairs = np.unique(np.stack([user, item]), axis=1)
    chosen = draw_queries(pairs[0], queries, seed)
    kept = np.isin(pairs[0], chosen)
    return Task(known, snapshot, pairs[0, kept], pairs[1, kept], chosen, hide)


def held_out(user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Events, in the order of time, on each user's last item, where the user did another."""
    place = np.full(int(user.max()) + 1, -1)
    place[user] = np.arange(len(user))  # the last event counts
    on_last = item == item[place[user]]
    return on_last & (np.bincount(user[~on_last], minlength=len(place)) > 0)[user]


def without_last(settings: RunSettings, whole: Prepared, out: Path) -> RunSettings:
    """Write the log without what is held out, one event per row, and return the settings that read it."""
    user, item, *_ = history_of(whole)
    table = whole.history.order_by(["time", "user", "item", "task"]).to_pyarrow()
    kept = table.filter(pa.array(~held_out(user, item)))
    names = pa.DictionaryArray.from_arrays(kept["task"].combine_chunks(), list(whole.tasks))
    codes = [kept[name].to_numpy().astype(np.int64) for name in ("user", "item")]
    columns = {
        "user_id": whole.users.ids(codes[0]),
        "item_id": whole.items.ids(codes[1]),
        "timestamp": kept["time"].cast(pa.timestamp("us")),
        "behavior": names.cast(pa.string()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), out)
    data = {"log": str(out), **settings.data.model_dump(include={"bucket", "users", "items"})}
    raw = settings.model_dump(exclude={"data"}) | {"data": data}
    raw["tasks"] = [
        task.model_dump(exclude={"label", "known_at", "delay"}) | {"behaviors": []} for task in settings.tasks
    ]
    return make_settings(raw)


def measure(task: Task, scores: Scores, block: int = 64) -> dict[str, NDArray[np.float64]]:
    """HR and NDCG at ten, each of shape (Q,).

    Equal scores share their mean rank; both are NaN where a score is.
    """
    hits, gains = [], []
    for start in range(0, len(task.queries), block):
        group = task.queries[start : start + block]
        found = np.asarray(scores(group), np.float64)
        if task.hide:
            found[task.known[group].nonzero()] = -np.inf
        for user, row in zip(group, found, strict=True):
            ranks = ranks_in(row, task.item[task.user == user])
            alone = np.zeros(len(ranks))
            hits.append(hit_rate_at(ranks, alone, DEPTH))
            gains.append(ndcg_at(ranks, alone, DEPTH))
    return {f"hr@{DEPTH}": np.array(hits), f"ndcg@{DEPTH}": np.array(gains)}


def popularity(task: Task, seed: int, grid: Grid) -> Iterator[Scores]:
    """The same list for everybody."""
    sums = np.asarray(task.known.sum(0)).ravel()
    for _ in grid:
        yield lambda users: np.tile(sums, (len(users), 1))


def item_knn(task: Task, seed: int, grid: Grid) -> Iterator[Scores]:
    """Items like those that a user did, by cosine."""
    from implicit.nearest_neighbors import CosineRecommender

    for settings in grid:
        model = CosineRecommender(**settings)
        model.fit(sp.csr_matrix(task.known), show_progress=False)
        similar = sp.csr_array(model.similarity)
        yield lambda users, similar=similar: (task.known[users] @ similar).toarray()


def als(task: Task, seed: int, grid: Grid) -> Iterator[Scores]:
    """Weighted matrix factorisation by alternating least squares."""
    from implicit.als import AlternatingLeastSquares

    for settings in grid:
        model = AlternatingLeastSquares(**settings, random_state=seed)
        model.fit(sp.csr_matrix(task.known), show_progress=False)
        yield _products(np.asarray(model.user_factors), np.asarray(model.item_factors))


def by_graph(task: Task, seed: int, grid: Grid) -> Iterator[Scores]:
    """LightGCN."""
    for users, items in light_gcn(task.known, seed, WIDTH, [settings["epochs"] for settings in grid]):
        yield _products(users, items)


def _products(users: NDArray, items: NDArray) -> Scores:
    return lambda chosen: users[chosen] @ items.T


Recommender = Callable[[Task, int, Grid], Iterator[Scores]]
"""Task, seed and grid to scores by each of its settings."""
RECOMMENDERS: dict[str, Recommender] = {
    "popularity": popularity,
    "item-knn": item_knn,
    "als": als,
    "lightgcn": by_graph,
}
"""What stands beside the models; popularity first, which all else is compared with."""


def chosen_scores(name: str, make: Recommender, grid: Grid, task: Task, valid: Task, seed: int) -> Scores:
    """A recommender with the settings that are best on validation."""
    if len(grid) > 1 and len(valid.queries):
        found = [measure(valid, scores)[f"ndcg@{DEPTH}"].mean() for scores in make(valid, seed, grid)]
        grid = [grid[int(np.argmax(found))]]
        say(
            f"{name}: {grid[0]}, of NDCG@{DEPTH} on validation {', '.join(f'{value:.4f}' for value in found)}"
        )
    return next(iter(make(task, seed, grid[:1])))


class Ranking:
    """A model of the configuration, trained with its first seed, over the items of a catalogue.

    Args:
        settings: Of the run.
        out: Its folder.
        name: Of the model.
        task: The one that orders items; all where None.
    """

    def __init__(self, settings: RunSettings, out: Path, name: str, task: str | None):
        self.inputs = Inputs.open(out, settings)
        model = self.inputs.decided(Plan(settings, out).contestants[name].settings())
        self.model = fit_model(model, settings.seeds[0], settings, self.inputs, out / "topn" / name)[0]
        self.tasks, self.shifted = settings.tasks, shifted_tasks(settings.tasks)
        self.columns = np.array(
            [one.kind == "binary" if task is None else one.name == task for one in settings.tasks]
        )

    def __call__(self, task: Task, seed: int, grid: Grid) -> Iterator[Scores]:
        prepared, catalog = self.inputs.prepared, np.arange(task.known.shape[1])
        view = View.of(self.inputs.graph.snapshots[task.snapshot], prepared.user_side, prepared.item_side)
        scorer = PairScorer(self.model, view)
        context = prepared.context_features.encode({}, len(catalog))
        said = np.stack(
            [scorer(np.full(len(catalog), user), catalog, context) for user in task.queries]
        )  # (Q, I, T)
        for settings in grid:
            shift = settings["undone"] * self.inputs.prior[catalog]

            def score(users: NDArray[np.int64], shift: NDArray[np.float32] = shift) -> NDArray[np.floating]:
                rows = said[np.searchsorted(task.queries, users)]
                whole = (in_whole_space(undo_sampling(row, shift, self.shifted), self.tasks) for row in rows)
                return np.stack([row[:, self.columns].sum(1) for row in whole])

            yield score


BESIDE = [name for name in RECOMMENDERS if name != "popularity"]


def say(stage: str) -> None:
    print(stage, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--split", choices=("time", "leave-last-out"), default="time")
    parser.add_argument("--models", nargs="*", default=["mgoe"], help="of the configuration")
    parser.add_argument("--beside", nargs="*", default=BESIDE)
    parser.add_argument("--task", help="order models by this task alone")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep what was prepared and built there")
    asked = parser.parse_args(arguments)
    use_cores()
    settings = load_settings(asked.config, asked.sets)
    for option, names, valid in (
        ("--models", asked.models, [*Plan(settings, Path()).contestants]),
        ("--beside", asked.beside, BESIDE),
        ("--task", [asked.task] if asked.task else [], settings.task_names),
    ):
        for name in names:
            if name not in valid:
                parser.error(f"{option}: {name!r} is none{did_you_mean(name, valid)}")
    kinds = {task.name: task.kind for task in settings.tasks}
    if asked.task is None and "binary" not in kinds.values():
        parser.error(f"--task: no task is binary; name the one to order items by, of {', '.join(kinds)}")
    if asked.split == "leave-last-out" and "regression" in kinds.values():
        parser.error(
            "--split leave-last-out: writes events, which have no values; leave out tasks of the kind "
            "regression"
        )
    if asked.queries < 1:
        parser.error(f"--queries: must be at least 1, found {asked.queries}")
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.out or Path(temporary) / "out"
        plan = Plan(settings, out)
        with begin(plan, plan.cells, overwrite=False, say=say) as prepared:
            pass  # whatever of it is of other settings is refused
        if asked.split == "time":
            task = by_time(prepared, "test", asked.queries, asked.seed, hide=False)
        else:
            whole, settings, out = (
                prepared,
                without_last(settings, prepared, out / "rest.parquet"),
                out / "rest",
            )
            plan = Plan(settings, out)
            with begin(plan, plan.cells, overwrite=False, say=say) as prepared:
                task = leave_last_out(whole, prepared, asked.queries, asked.seed)
        if len(task.queries) == 0:
            parser.error(
                f"--split {asked.split}: there must be a user with something to find, found none; "
                f"{FIXES[asked.split]}"
            )
        experiments.build(settings, prepared, out / "graph", say)
        valid = by_time(prepared, "valid", asked.queries, asked.seed, hide=task.hide)
        made: dict[str, Callable[[], Recommender]] = {
            name: lambda make=make: make
            for name, make in RECOMMENDERS.items()
            if name == "popularity" or name in asked.beside
        }
        made |= {name: partial(Ranking, settings, out, name, asked.task) for name in asked.models}
        found: dict[str, dict[str, NDArray[np.float64]]] = {}
        for name, make in made.items():
            found[name] = measure(
                task, chosen_scores(name, make(), GRIDS.get(name, READINGS), task, valid, asked.seed)
            )
            for metric, values in found[name].items():
                value, other = values.mean(), found["popularity"][metric].mean()
                ratio = value / other if name != "popularity" and other else None
                line(
                    f"topn.{asked.split}.{name}.{metric}",
                    value,
                    "share",
                    None if name == "popularity" else other,
                    ratio,
                )
        for name, other, metric in product(
            asked.models, [name for name in made if name not in asked.models], found["popularity"]
        ):
            ahead = found[name][metric] - found[other][metric]
            mean, error = ahead.mean(), ahead.std() / len(ahead) ** 0.5
            line(
                f"topn.{asked.split}.{name}-minus-{other}.{metric}",
                mean,
                "share",
                error,
                mean / error if error else None,
            )


if __name__ == "__main__":
    main()
