"""Top-N lists as part of a comparison."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe import experiments
from mgoe.bundle.item_index import ItemIndex
from mgoe.bundle.objective import read_objective
from mgoe.bundle.ranking import Query
from mgoe.config import RunSettings, TopNSettings, make_settings
from mgoe.data import FeatureEncoders, Prepared, SideFeatures
from mgoe.errors import ConfigError, MissingExtra, OutputError
from mgoe.evaluation import REACHABLE, Influence, read_rows
from mgoe.features import Overlay
from mgoe.graph import MacroGraph
from mgoe.pipeline.execute import measure_topn
from mgoe.pipeline.folder import DONE, INFLUENCE
from mgoe.pipeline.held_out import HELD, REST, on_last_item
from mgoe.pipeline.lists import list_objective
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Plan
from mgoe.pipeline.topn_cell import ranked_lists, true_scores
from mgoe.simulation import Truth
from mgoe.simulation.chance import chances
from mgoe.topn import Events, Queries, make_lists, measure_lists, popularity_places
from mgoe.work.node import Node
from mgoe.work.store import Store
from tests.experiments.tiny import here, settings
from tests.sharing import Shared

pytest.importorskip("implicit")


@pytest.fixture(scope="module")
def asked(raw: dict[str, Any]) -> dict[str, Any]:
    """The tiny log twice, once without last items; one model that retrieves, and three baselines, of which
    two draw and one has too little time."""
    log = raw["logs"]["tiny"]
    rest = {"data": {"log": log["data"]["log"]}, "tasks": log["tasks"], "hold_out": "last"}
    topn = {
        "k": [5, 20],
        "baselines": ["item-knn", "ials", "sasrec"],
        "trials": 2,
        "trial_minutes": 1e-6,
        "tuning_users": 50,
        "exact_users": 60,
        "retrieval": {"candidates": 30},
    }
    return raw | {
        "logs": {"tiny": log, "last": rest},
        "models": ["shared-bottom"],
        "variants": {},
        "seeds": [0],
        "topn": topn,
    }


@pytest.fixture(scope="module")
def listed(asked: dict[str, Any], shared: Shared) -> Path:
    def make(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mgoe._util.processes.run_jobs", here)
            experiments.compare(settings(asked), out)

    return shared("experiments-listed", make)


def test_lists_stand_in_results_and_tables(listed: Path):
    rows = pd.read_parquet(listed / "results.parquet").query("slice == 'topn'")
    for log in ("tiny", "last"):
        own = rows[rows["log"] == log]
        bound = {"best-reachable"} if log == "tiny" else set[str]()  # the truth knows no last items
        assert set(own["model"]) == {"shared-bottom", "item-knn", "ials", "sasrec"} | bound
        assert own.query("metric == 'hr@5'")["value"].between(0, 1).all()
        assert (own.query("metric == 'hr@20'")["value"] > 0).all()
    text = (listed / "tables.md").read_text()
    assert "## Top-N lists, by time, known items included: tiny" in text
    assert "## Top-N lists, each user's last item held out, known items hidden: last" in text
    assert "| shared-bottom minus | NDCG@5 | HR@5 |" in text
    assert "| shared-bottom, every item ranked |" in text
    assert "| item_to_item |" in text
    assert "share of reachable NDCG@5" in text
    assert text.count("| best-reachable |") == 2  # among models, and among lists
    assert text.count("Trials that 1e-06 processor minutes ended before their last epoch") == 2
    assert text.count("epoch, first seed: sasrec 2 of 2.") == 2
    assert "Of the first 5 of every item ranked (seed 0): mix" in text


def test_lists_that_were_not_made_in_time_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
):
    plan: Any = SimpleNamespace(settings=SimpleNamespace(jobs=1), out=tmp_path, threads=1)
    lists = [
        Node(
            "lists",
            f"lists of {log}, ials, seed 0",
            tmp_path / log,
            {},
            1,
            "",
            here,
            (),
            files=(tmp_path / log,),
        )
        for log in ("tiny", "last")
    ]
    monkeypatch.setattr("mgoe.pipeline.execute.unmeasured", lambda *_: lists)
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
    assert measure_topn(plan, [], Store(tmp_path, lists), until=0) == {}
    names = "lists of tiny, ials, seed 0; lists of last, ials, seed 0"
    assert said.messages[-1] == f"not measured yet: {names}; the same command resumes"


def test_no_list_is_better_than_the_best_reachable_but_by_luck(listed: Path):
    folders = listed / "logs" / "tiny" / "topn"
    names = (REACHABLE, "shared-bottom", "item-knn", "ials")
    best, *others = (Influence.load(folders / name / "0" / INFLUENCE) for name in names)
    prepared = Prepared.open(listed / "logs" / "tiny" / "seeds" / "0" / "data")
    test = Queries.by_time(prepared, "test", [0, 1], hide=False)
    assert_array_equal(best.users, test.users)
    places = -popularity_places(test.events).astype(float)
    lists = make_lists(lambda users: np.tile(places, (len(users), 1)), test, 20)
    popular = measure_lists(lists, test, [5, 20])
    for other in [popular, *others]:
        for metric in ("ndcg@5", "hr@5", "ndcg@20", "hr@20"):
            column = best.names.index(("all", metric))
            error = np.linalg.norm((other - best).parts[:, column])
            assert other.values[column] < best.values[column] + 3 * error
    assert popular.values[0] < 0.9 * best.values[0]


def test_the_best_reachable_lists_are_by_what_each_day_of_the_window_is_expected_to_bring(
    world: Path, listed: Path
):
    prepared = Prepared.open(listed / "logs" / "tiny" / "seeds" / "0" / "data")
    truth, test = Truth.open(world), Queries.by_time(prepared, "test", [0, 1], hide=False)
    items = prepared.items.ids(np.arange(test.events.shape[1])).to_numpy()
    index = truth.item_ids.index(items)
    community = truth.items.community[index]
    first = int(prepared.cuts[test.snapshot]) + 1 - np.datetime64(truth.settings.start, "D").astype(int)
    wanted = np.zeros((20, len(items)))
    for row, user in enumerate(prepared.users.ids(test.users[:20]).to_numpy()):
        mine = truth.user_ids.index(user)
        for day in range(int(first), truth.settings.days):
            here = truth.users.arrival <= day
            popularity = truth.popularity(day)
            share = popularity[index] / np.bincount(truth.items.community, popularity)[community]
            shown = truth.aim(day, popularity)[truth.users.community[mine], community] * share
            clicked = chances(truth, np.full(len(items), mine), index, np.full(len(items), day))[:, 0]
            exposures = truth.day_rows[day] * truth.activity[mine] * here[mine] / truth.activity[here].sum()
            wanted[row] += exposures * shown * clicked
    run = make_settings({"data": {"log": "log"}, "tasks": ["click", "buy"]})
    found = true_scores(truth, run, TopNSettings(), prepared)(test.users[:20])
    assert_allclose(found, wanted, rtol=1e-3)


def test_the_same_command_measures_only_what_is_missing(
    asked: dict[str, Any], listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, ran = tmp_path / "out", list[str]()
    shutil.copytree(listed, out)
    gone = out / "logs" / "last" / "topn" / "item-knn" / "0"
    before = read_rows(gone / DONE)
    (gone / DONE).unlink()

    def run(jobs: list, *_: Any):
        ran.extend(job.name for job in jobs)
        yield from here(jobs)

    monkeypatch.setattr("mgoe._util.processes.run_jobs", run)
    experiments.compare(settings(asked), out)
    assert ran == ["lists of last, item-knn, seed 0"]
    assert read_rows(gone / DONE) == before


def test_tables_of_lists_are_shown_before_serving_is_timed(
    asked: dict[str, Any],
    listed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
):
    def table_is_shown() -> bool:
        return any("## Top-N lists, by time" in message for message in said.messages)

    def time_cell(*_: Any) -> float:
        timed.append(table_is_shown())
        return 1.0

    timed = list[bool]()
    shutil.copytree(listed, tmp_path / "out")
    monkeypatch.setattr("mgoe.pipeline.serving_time.run_jobs", here)
    monkeypatch.setattr("mgoe.pipeline.serving_time.time_cell", time_cell)
    monkeypatch.setattr("mgoe.pipeline.records.note_serving", lambda *_: None)
    experiments.compare(settings(asked), tmp_path / "out")
    assert not table_is_shown(), "nothing is timed, so tables come once, at the end"
    experiments.compare(settings(asked | {"serving_requests": 1}), tmp_path / "out")
    assert timed == [True, True]


def test_damaged_lists_are_measured_again(
    asked: dict[str, Any],
    listed: Path,
    tmp_path: Path,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
    out = tmp_path / "out"
    shutil.copytree(listed, out)
    damaged = out / "logs" / "tiny" / "topn" / "item-knn" / "0" / "influence.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    experiments.compare(settings(asked), out)
    assert said.messages[0].startswith(f"damaged, to be computed again: {damaged}")
    assert any(line.startswith("  lists of tiny, item-knn, seed 0: ndcg@5") for line in said.messages)


def test_lists_of_other_settings_are_refused(asked: dict[str, Any], listed: Path, tmp_path: Path):
    shutil.copytree(listed, tmp_path / "out")
    other = asked | {"topn": asked["topn"] | {"tasks": ["buy"]}}
    with pytest.raises(OutputError, match=r"was made with another `topn\.tasks`"):
        experiments.compare(settings(other), tmp_path / "out")


def test_baselines_are_the_same_whichever_seeds_are_chosen(asked: dict[str, Any], tmp_path: Path):
    plan = Plan(settings(asked | {"seeds": [0, 1]}), tmp_path)
    first, second = (
        {part.path: part.digest for part in nodes_of(plan, plan.chosen(seeds=[seed]))} for seed in (0, 1)
    )
    lists = [log.lists("item-knn", 0) for log in plan.logs.values()]
    assert len(lists) == 2
    assert [first[path] for path in lists] == [second[path] for path in lists]


def test_the_rest_and_what_is_held_out_are_the_log(world: Path, listed: Path):
    rest, held = (pd.read_parquet(listed / "logs" / "last" / "rest" / name) for name in (REST, HELD))
    whole = pd.read_parquet(world / "events")

    def pairs(table: pd.DataFrame) -> set[tuple]:
        return set(zip(table["user_id"], table["item_id"], strict=True))

    assert pairs(rest) | pairs(held) == pairs(whole)
    assert not pairs(rest) & pairs(held)
    assert held["user_id"].is_unique
    assert set(rest["user_id"]) == set(whole["user_id"])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30))
def test_what_is_held_out_is_the_last_item_and_never_all(events: list[tuple[int, int]]):
    user, item = np.array(events).T
    held = on_last_item(user, item)
    for one in np.unique(user):
        mine = np.flatnonzero(user == one)
        if len(set(item[mine])) == 1:
            assert not held[mine].any()
        else:
            assert_array_equal(held[mine], item[mine] == item[mine[-1]])


@pytest.mark.parametrize("hide", [False, True])
def test_validation_knows_nothing_of_what_comes_after_its_snapshot(listed: Path, hide: bool):
    prepared = Prepared.open(listed / "logs" / "tiny" / "seeds" / "0" / "data")
    valid, test = (Queries.by_time(prepared, split, [0, 1], hide) for split in ("valid", "test"))
    history = prepared.history.to_pandas()
    before = history[history["snapshot"] <= prepared.valid_window]
    assert len(valid.events.user) == len(before) < len(test.events.user)
    assert valid.events.item.max() < valid.events.shape[1] == prepared.items_at[prepared.valid_window]
    if hide:
        assert not valid.events.matrix().toarray()[valid.user, valid.item].any()


class Known:
    """Knows scores of every item; more popular items were done more often."""

    tasks, n_items, retrieval = ("click",), 40, None
    withdrawn = np.empty(0, np.int64)

    def __init__(self, scores: np.ndarray, events: Events):
        counts = np.bincount(events.item, minlength=40)
        self.scores, self.item_index = scores, ItemIndex(SideFeatures(FeatureEncoders(), {}), counts)
        nothing: Any = SimpleNamespace(arrays={"pairs.task_mask": np.empty(0, np.uint8)})
        done = SimpleNamespace(known_items=lambda user: np.unique(events.item[events.user == user]))
        base = {"item": {"sum": counts}}
        self.view = SimpleNamespace(snapshot=done, overlay=Overlay.empty(nothing), base=base)

    def reading(self) -> AbstractContextManager[SimpleNamespace]:
        return nullcontext(self.view)

    def in_blocks(self, users: np.ndarray, items: np.ndarray, context: None) -> Iterator[None]:
        return self.scores[users, items, None]
        yield


@pytest.mark.parametrize("hide", [False, True])
def test_ranking_every_item_gives_the_lists_of_all_scores(hide: bool):
    rng = np.random.default_rng(0)
    shape = 6, 40
    user, item = rng.integers(0, 6, 50), rng.integers(0, 40, 50)
    events = Events(user, item, np.zeros(50, int), np.zeros(50), shape, 1)
    queries = Queries.of(events, 0, rng.integers(0, 6, 20), rng.integers(0, 40, 20), hide)
    scores = rng.integers(0, 9, shape).astype(float)
    models: Any = [Known(scores, events), Known(-scores, events)]
    query = Query(10, read_objective("click", ("click",)), {}, np.empty(0, np.int64), (), {}, exact=False)
    found = ranked_lists(models, queries, query)
    assert_array_equal(found[0], make_lists(lambda users: scores[users], queries, 10))
    assert_array_equal(found[1], make_lists(lambda users: -scores[users], queries, 10))


def test_items_that_a_snapshot_knows_of_a_user_are_those_of_the_log_before_it(listed: Path):
    run = listed / "logs" / "tiny" / "seeds" / "0"
    prepared, graph = Prepared.open(run / "data"), MacroGraph.open(run / "graph")
    for split in ("valid", "test"):
        queries = Queries.by_time(prepared, split, [0, 1], hide=True)
        known, snapshot = queries.events.matrix(), graph.snapshots[queries.snapshot]
        for user in queries.users.tolist():
            assert_array_equal(np.sort(known[[user]].indices), snapshot.known_items(user))


def test_lists_are_ordered_by_tasks_done_at_all_unless_an_objective_says_more():
    tasks = [
        {"name": "click", "label": "click"},
        {"name": "buy", "label": "buy", "given": "click"},
        {"name": "stay", "label": "stay", "kind": "regression"},
    ]
    run = make_settings({"data": {"log": "log"}, "tasks": tasks})
    columns = {"click": np.array([0.5]), "buy": np.array([0.25]), "stay": np.array([9.0])}
    for asked, value in (({}, 0.625), ({"tasks": "buy"}, 0.125), ({"objective": "stay * click"}, 4.5)):
        assert list_objective(run, TopNSettings(**asked))(columns).tolist() == [value]


def _clash(asked: dict[str, Any]) -> None:
    settings(asked | {"models": ["mgoe", {"name": "ease", "base": "mmoe"}], "topn": {}})


def _task(asked: dict[str, Any]) -> None:
    experiments.compare(settings(asked | {"topn": {"tasks": "bye"}}), Path("out"))


def _objective(asked: dict[str, Any]) -> None:
    experiments.compare(settings(asked | {"topn": {"objective": "click * bye"}}), Path("out"))


def _simulated(asked: dict[str, Any]) -> None:
    log = {"simulate": {"users": 200, "items": 100, "exposures": 500}, "hold_out": "last"}
    assert Plan(settings(asked | {"logs": {"drawn": log}}), Path("out")).logs


def _values(asked: dict[str, Any]) -> None:
    tasks = [
        {"name": "click", "label": "click"},
        {"name": "stay", "label": "stay", "kind": "regression"},
    ]
    log = {"data": {"log": "log"}, "tasks": tasks, "hold_out": "last"}
    assert Plan(settings(asked | {"logs": {"shown": log}}), Path("out")).logs


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (_clash, "models and baselines of `topn` must differ, found 'ease' twice"),
        (_objective, r"topn\.objective: 'bye' is not a task; did you mean 'buy'"),
        (_task, "names binary tasks of every log, found 'bye'; did you mean 'buy'"),
        (_simulated, "last items are held out of a log of files, found `simulate`"),
        (_values, "events, which have no values, found a regression"),
    ],
)
def test_what_cannot_be_listed_is_refused(
    asked: dict[str, Any], ask: Callable[[dict[str, Any]], None], message: str
):
    with pytest.raises(ConfigError, match=message):
        ask(asked)


def test_a_missing_library_is_named_before_any_work(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "implicit.als", None)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[topn\]'"):
        experiments.compare(settings(asked), tmp_path / "out")
    assert not (tmp_path / "out" / "logs").exists() or not list((tmp_path / "out" / "logs").glob("*/seeds"))


def test_a_run_has_no_lists(small: RunSettings, tmp_path: Path):
    assert Plan(small, tmp_path).comparison.topn is None
