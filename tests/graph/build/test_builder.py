import cProfile
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import homogeneity_score, normalized_mutual_info_score

from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph import MacroGraph, Observer, build_graph
from mgoe.graph.build.sizes import choose_resolutions
from mgoe.graph.scores import UNIT, score_table
from tests.effort import SOAK
from tests.features.reading import gather
from tests.graph.histories import CUTS, History, contents, differences, history, planted

EVENTS = planted()
LATEST = len(CUTS)
STAGES = ("nodes", "links", "sketch", "vectors", "clusters", "1st order", "2nd order")
"""Of a snapshot."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> MacroGraph:
    return history(EVENTS).build(tmp_path_factory.mktemp("build") / "graph", resolutions=[(4, 4), (8, 8)])


# --- stages ---


class Watcher(Observer):
    """Records what an observer receives."""

    def __init__(self):
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def stage(self, name, total, unit):
        assert name not in self.totals
        self.totals[name], self.done[name] = total, 0

        def advance(part):
            self.done[name] += part

        return advance


@pytest.mark.parametrize("settings", [{}, {"sample": 40}], ids=["all", "sampled"])
def test_every_stage_is_shown_once_to_its_end_and_timed(tmp_path, settings):
    seen = Watcher()
    graph = history(EVENTS).build(tmp_path / "graph", observer=seen, **settings)
    each = [f"{s:02d}: {name}" for s in range(LATEST + 1) for name in STAGES]
    assert list(seen.totals) == ["pairs", *each, "checksums"]
    assert seen.totals["pairs"] == len(EVENTS)
    assert seen.done == seen.totals
    assert graph.manifest.stages.keys() == {"pairs", *STAGES, "checksums"}
    assert graph.manifest.seconds == pytest.approx(
        sum(took.seconds for took in graph.manifest.stages.values()), abs=0.01
    )


def test_what_only_a_build_reads_is_removed_snapshot_by_snapshot(tmp_path):
    """So it takes the space of one."""

    class Looking(Watcher):
        most = 0

        def stage(self, name, total, unit):
            self.most = max(self.most, len(list((tmp_path / "graph.building" / "work").glob("*"))))
            return super().stage(name, total, unit)

    seen = Looking()
    history(EVENTS).build(tmp_path / "graph", observer=seen)
    assert seen.most == 1


# --- the same build ---


def test_the_same_seed_gives_the_same_graph_and_another_does_not(tmp_path):
    log = history(EVENTS)
    one, same, other = (
        log.build(tmp_path / name, seed=seed) for name, seed in (("one", 5), ("same", 5), ("other", 6))
    )
    for s in range(LATEST + 1):
        assert differences(contents(one, s), contents(same, s)) == []
    assert differences(contents(one, LATEST), contents(other, LATEST)) != []


def test_a_build_that_fails_leaves_the_graph_before_it_and_nothing_else(tmp_path):
    graph = history(EVENTS[:200]).build(tmp_path / "graph")
    before = contents(graph, LATEST)
    with pytest.raises(GraphError):
        history(EVENTS[:200]).build(tmp_path / "graph", resolutions=[(1000, 2)])
    assert differences(before, contents(MacroGraph.open(tmp_path / "graph"), LATEST)) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("graph")] == ["graph"]


# --- macro nodes over time ---


def test_numbers_keep_their_meaning_and_macro_nodes_find_the_planted_groups(graph):
    for side in ("user", "item"):
        for r, k in enumerate((4, 8)):
            macro = [
                np.asarray(getattr(snapshot.resolutions[r], f"{side}_macro")) for snapshot in graph.snapshots
            ]
            for before, after in pairwise(macro):
                known = before < k
                assert (before[known] == after[: len(before)][known]).mean() > 3 / k  # by chance 1 / k
    latest = graph.latest.resolutions[0]
    first = {
        side: dict(zip(log[side], log[f"{side}_id"], strict=True))
        for log in [_with_ids()]
        for side in ("user", "item")
    }
    for side, macro in (("user", latest.user_macro), ("item", latest.item_macro)):
        truth = [first[side][index] % 4 for index in range(len(macro))]
        assert normalized_mutual_info_score(truth, macro) > 0.9


def _with_ids() -> pd.DataFrame:
    return history(EVENTS).rows.assign(
        user_id=[event[0] for event in EVENTS], item_id=[event[1] for event in EVENTS]
    )


def test_without_refresh_members_stay(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", refresh=False, resolutions=[(4, 4)])
    for side in ("user", "item"):
        macro = [
            np.asarray(getattr(snapshot.resolutions[0], f"{side}_macro")) for snapshot in graph.snapshots
        ]
        for before, after in pairwise(macro):
            assert_array_equal(after[: len(before)][before < 4], before[before < 4])
            assert (after < 4).all()


def test_random_groups_stay_and_say_nothing_of_the_planted_ones(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", clusters="random", resolutions=[(4, 4)])
    first, latest = graph.snapshots[0].resolutions[0], graph.latest.resolutions[0]
    assert_array_equal(first.user_macro, latest.user_macro[: len(first.user_macro)])
    log = _with_ids().drop_duplicates("user").sort_values("user")
    assert normalized_mutual_info_score(log.user_id % 4, latest.user_macro) < 0.2


def test_inactive_nodes_get_a_macro_node_too(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", threshold=0.9, resolutions=[(2, 2)])
    assert (graph.latest.resolutions[0].user_macro < 2).all()


# --- sizes ---


def test_automatic_resolutions_shrink_with_the_log():
    auto = GraphSettings()
    assert choose_resolutions(auto, 10**6, 10**6)[-1] == (300, 300)
    assert choose_resolutions(auto, 17_000, 999) == ((6, 8), (12, 20), (25, 50))
    assert choose_resolutions(auto, 10, 10) == ((3, 3),)
    assert choose_resolutions(auto, 1, 1) == choose_resolutions(auto, 0, 0) == ((1, 1),)
    sizes = [choose_resolutions(auto, n, n) for n in range(200)]
    for (ku, ki), n in ((size, n) for n, each in enumerate(sizes) for size in each):
        assert max(ku, ki) <= max(1, n)


def test_too_many_macro_nodes_are_refused_with_the_number_there_are(tmp_path):
    log = history([(0, 0, 0, 0), (1, 0, 1, 0), (2, 1, 40, 0)])
    message = r"graph.resolutions: 3 user macro nodes are more than the 2 users of the first snapshot"
    with pytest.raises(GraphError, match=message):
        log.build(tmp_path / "users", resolutions=[(1, 1), (3, 1)])
    with pytest.raises(GraphError, match="2 item macro nodes are more than the 1 items"):
        log.build(tmp_path / "items", resolutions=[(2, 2)])
    assert log.build(tmp_path / "graph", resolutions=[(2, 1)]).latest.macro_users == 2


def test_no_history_is_refused(tmp_path):
    with pytest.raises(GraphError, match="no history to build from"):
        History(history(EVENTS).rows.iloc[:0], CUTS).build(tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_more_tasks_than_a_code_holds_are_refused(tmp_path):
    source = replace(history(EVENTS).source(tmp_path / "log.parquet"), ranks=(1.0,) * 17)
    with pytest.raises(GraphError, match="tasks: a graph merges at most 16 tasks, found 17; leave some out"):
        build_graph(source, GraphSettings(), tmp_path / "graph")


def test_a_task_of_next_to_no_rank_still_links(tmp_path, monkeypatch):
    """Its score would round to zero on the grid, and a pair without a score is neither an edge nor none."""
    monkeypatch.setattr("tests.graph.histories.RANKS", (1e-5, 2.0, 3.0))
    log = history([(0, 0, 0, 0), (0, 1, 1, 1), (1, 1, 2, 2), (2, 2, 3, 0), (3, 2, 4, 0), (3, 0, 4, 2)] * 3)
    graph = log.build(tmp_path / "graph", resolutions=[(2, 2)])
    part = graph.latest.resolutions[0]
    assert (part.user_macro < 2).all()
    assert (part.item_macro < 2).all()
    for indptr, macro, score in (part.user_edges, part.item_edges):
        assert indptr[-1] == len(macro) == len(score)
        assert (np.asarray(score) > 0).all()
    assert_array_equal(score_table(np.array([1e-5, 1e-5]), 0.0), [0, 1, 1, 1])


SMALLEST = {
    "one event": [(0, 0, 0, 0)],
    "one user": [(0, i, 9 * i, i % 3) for i in range(10)],
    "one item": [(u, 0, 9 * u, u % 3) for u in range(10)],
    "one pair, many events": [(0, 0, 5, 0)] * 30,
    "nothing before the last cut": [(u, u, 99, 0) for u in range(5)],
    "no shared neighbour": [(u, u, 0, 0) for u in range(12)],
    "nothing between the cuts": [(u, u, 0, 0) for u in range(6)] + [(u, u, 100, 0) for u in range(6, 12)],
}
OTHER = [{"sample": 2}, {"clusters": "random"}, {"refresh": False}]
"""Settings that the short form tries on two of these logs."""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in SMALLEST),
        *((name, settings) for settings in OTHER for name in ([*SMALLEST] if SOAK else [*SMALLEST][::6])),
    ],
    ids=str,
)
def test_the_smallest_logs_build_and_read(tmp_path, name, settings):
    log = history(SMALLEST[name])
    graph = log.build(tmp_path / "graph", **settings)
    graph.verify()
    for snapshot in graph.snapshots:
        users, items = np.arange(-1, 13), np.arange(-1, 13)
        read = gather(snapshot, users, items, ["counts", "pair", "sketch", "edges", "aggregates", "recents"])
        assert all(np.isfinite(array).all() for array in read.values())
        for name, k in (("user", snapshot.macro_users), ("item", snapshot.macro_items)):
            linked = np.asarray(snapshot.arrays[f"{name}_sum"]) > 0
            macro = getattr(snapshot.resolutions[0], f"{name}_macro")
            assert_array_equal(macro == k, ~linked)  # whoever has an edge has a macro node


def test_known_nodes_without_history_read_as_unseen_ones(tmp_path):
    """An exposure that came to nothing makes a node known, and is no history."""
    log = history(EVENTS[:300])
    log.__dict__["users_at"], log.__dict__["items_at"] = log.users_at + 2, log.items_at + 2
    graph = log.build(tmp_path / "graph")
    at = graph.latest
    known = at.n_users - 1, at.n_items - 1
    for pair, unseen in (((known[0], 0), (-1, 0)), ((0, known[1]), (0, -1)), (known, (-1, -1))):
        one, other = (
            gather(at, *np.array([p]).T, ["counts", "pair", "sketch", "edges", "aggregates", "recents"])
            for p in (pair, unseen)
        )
        for name in one:
            assert_array_equal(one[name], other[name], err_msg=name)


def test_twenty_events_build_with_little_work(tmp_path):
    """In calls, which are the same on every machine: some 420,000, of which a second holds a few million."""
    profile = cProfile.Profile()
    profile.runcall(history(EVENTS[:20]).build, tmp_path / "graph")
    assert sum(entry.callcount for entry in profile.getstats()) < 1_500_000


def test_scores_whose_sums_would_overflow_at_a_later_snapshot_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.graph.histories.RANKS", (1.0, 2.0, 1e5)
    )  # the product of two pairs' scores fits
    crowd = [(user, item, 100, 2) for user in range(20) for item in range(20)]
    with pytest.raises(GraphError, match=r"graph.beta: 2nd-order sums of scores would overflow 64 bits"):
        history([(0, 0, 0, 0), *crowd]).build(tmp_path / "graph", beta=1.0)


def test_the_mass_of_a_crowd_around_one_item_is_summed_not_wrapped(tmp_path, monkeypatch):
    """Sums of each node are in range; those of all members of a macro node are 2^67."""
    monkeypatch.setattr("tests.graph.histories.RANKS", (1.0, 2.0, 4096.0))
    users, score = 700, 4096.0
    graph = history([(user, 0, 0, 2) for user in range(users)], ()).build(
        tmp_path / "graph", beta=1.0, resolutions=[(1, 1)]
    )
    last = graph.snapshots[-1]
    assert_allclose(last.resolutions[0].user_second_mass, [users * (users - 1) * score**2], rtol=1e-6)
    assert np.isfinite(gather(last, np.arange(users), np.zeros(users, np.int64), ["edges"])["edges"]).all()


# --- a sketch learned from a sample ---


@pytest.mark.parametrize("seed", range(3 if SOAK else 1))
def test_a_sample_of_users_gives_every_linked_node_a_vector_and_recovers_the_groups(tmp_path, seed):
    """30 % of 600 users; twice as many macro nodes as groups, since the start of k-means may join two."""
    events = planted(users=600, items=200, events=12_000, seed=seed)
    log = history(events)
    graph = log.build(tmp_path / "graph", rank=16, resolutions=[(8, 8)], sample=180, seed=seed)
    at, part = graph.latest, graph.latest.resolutions[0]
    for side, ids in (("user", [event[0] for event in events]), ("item", [event[1] for event in events])):
        vectors = np.asarray(at.arrays[f"{side}_vectors"])
        linked = np.asarray(at.arrays[f"{side}_sum"]) > 0
        assert vectors[linked].any(axis=1).all()
        assert not vectors[~linked].any()
        truth = dict(zip(log.rows[side], ids, strict=True))
        macro = getattr(part, f"{side}_macro")
        assert (
            homogeneity_score([truth[node] % 4 for node in range(len(macro))], macro) > 0.95
        )  # nobody among others


def test_with_all_users_items_are_the_basis_of_the_sketch_and_a_sample_of_all_is_all(graph, tmp_path):
    for snapshot in graph.snapshots:
        arrays = snapshot.arrays
        assert_allclose(
            arrays["item_vectors"],
            arrays["basis"] * arrays["singular"] ** graph.manifest.settings.scale,
            rtol=1e-6,
        )
        assert_array_equal(np.rint(arrays["item_sum"] * UNIT), arrays["basis_sum"])
    again = history(EVENTS).build(tmp_path / "graph", resolutions=[(4, 4), (8, 8)], sample=150)
    for s in range(LATEST + 1):
        vectors = [
            name
            for name in differences(contents(graph, s), contents(again, s))
            if "vectors" in name or name == "basis"
        ]
        assert vectors == []


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_sample_changes_what_is_learned_not_what_is_counted(graph, tmp_path, scale):
    sampled = history(EVENTS).build(
        tmp_path / "graph", clusters="random", resolutions=[(4, 4), (8, 8)], sample=50, scale=scale
    )
    whole = history(EVENTS).build(
        tmp_path / "whole", clusters="random", resolutions=[(4, 4), (8, 8)], scale=scale
    )
    learned = ("vectors", "singular", "basis", "chances", "links")
    for s in range(LATEST + 1):
        unequal = differences(contents(sampled, s), contents(whole, s))
        assert [name for name in unequal if not any(part in name for part in learned)] == []
        assert "basis" in unequal
