import json
import time
from itertools import pairwise

import ibis
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import normalized_mutual_info_score

from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph import MacroGraph, build_graph
from mgoe.graph.build import choose_resolutions
from tests.graph.histories import CUTS, History, contents, differences, history, planted

EVENTS = planted()
LATEST = len(CUTS)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> MacroGraph:
    return history(EVENTS).build(tmp_path_factory.mktemp("build") / "graph", resolutions=[(4, 4), (8, 8)])


# --- the artefact ---


def test_a_saved_graph_reopens_equal_and_memory_mapped(graph):
    again = MacroGraph.open(graph.path)
    assert again.meta == graph.meta
    for s, snapshot in enumerate(again.snapshots):
        held = snapshot.arrays | {f"r{r}.{name}": a for r, part in enumerate(snapshot.resolutions) for name, a in part.arrays().items()}
        assert differences(dict(held), contents(graph, s)) == []
        assert all(isinstance(array.base, np.memmap) for array in held.values() if array.size)


def test_the_latest_snapshot_alone_is_a_graph(graph, tmp_path):
    graph.save_latest(tmp_path / "graph")
    alone = MacroGraph.open(tmp_path / "graph")
    assert differences(contents(alone, 0), contents(graph, LATEST)) == []
    assert (alone.latest.n_users, alone.latest.cut) == (graph.latest.n_users, graph.latest.cut)
    assert repr(alone) == repr(graph).replace("4 snapshots", "1 snapshots")


def test_the_description_is_of_the_latest_snapshot(graph):
    text = graph.describe()
    assert (text["users"], text["items"], text["snapshots"]) == (150, 100, 4)
    assert text["pairs"] == len({event[:2] for event in EVENTS})
    assert [part["macro users"] for part in text["resolutions"]] == [4, 8]
    assert json.loads(json.dumps(text)) == text


def test_every_stage_is_reported_and_timed(tmp_path):
    log, seen = history(EVENTS[:200]), []
    file = tmp_path / "history.parquet"
    log.rows.to_parquet(file)
    table = ibis.duckdb.connect().read_parquet(file)
    graph = build_graph(table, np.array(CUTS), log.users_at, log.items_at, [1, 2, 3], GraphSettings(rank=4), tmp_path / "g", seen.append)
    assert set(seen) == set(graph.meta["seconds"])
    assert {"scores", "sketch", "clusters", "1st order", "2nd order", "neighbours", "counts", "saving"} == set(seen)


def test_the_same_seed_gives_the_same_graph_and_another_does_not(tmp_path):
    log = history(EVENTS)
    one, same, other = (log.build(tmp_path / name, seed=seed) for name, seed in (("one", 5), ("same", 5), ("other", 6)))
    for s in range(LATEST + 1):
        assert differences(contents(one, s), contents(same, s)) == []
    assert differences(contents(one, LATEST), contents(other, LATEST)) != []


def _damage_missing(folder):
    (folder / "snapshots" / "01" / "r0.user_macro.npy").unlink()


def _damage_truncated(folder):
    file = folder / "snapshots" / "01" / "user_vectors.npy"
    file.write_bytes(file.read_bytes()[:200])


def _damage_empty(folder):
    (folder / "snapshots" / "01" / "u1.npy").write_bytes(b"")


def _damage_pickle(folder):
    np.save(folder / "snapshots" / "01" / "i2.npy", np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_missing, r"r0.user_macro.npy: the graph is damaged: this array is missing; build the graph again"),
        (_damage_truncated, r"user_vectors.npy: the graph is damaged: this array cannot be read \(.*\); build the graph again"),
        (_damage_empty, r"u1.npy: the graph is damaged: this array cannot be read"),
        (_damage_pickle, r"i2.npy: the graph is damaged: this array cannot be read"),
    ],
)
def test_a_damaged_graph_says_which_array(tmp_path, damage, message):
    graph = history(EVENTS[:200]).build(tmp_path / "graph")
    damage(graph.path)
    with pytest.raises(GraphError, match=message):
        MacroGraph.open(graph.path).snapshots[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"holds no macro graph \(graph.json is missing\)"),
        ('{"format": 1', r"graph.json: cannot be read"),
        ('{"format": 99}', r"reads graph format 1, found 99; build it again, or use the version that wrote it"),
        ("[]", r"reads graph format 1, found None"),
    ],
)
def test_a_folder_that_is_no_graph_of_this_version_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "graph.json").write_text(text)
    with pytest.raises(GraphError, match=message):
        MacroGraph.open(tmp_path)


def test_a_build_that_fails_leaves_the_graph_before_it_and_nothing_else(tmp_path):
    graph = history(EVENTS[:200]).build(tmp_path / "graph")
    before = contents(graph, LATEST)
    with pytest.raises(GraphError):
        history(EVENTS[:200]).build(tmp_path / "graph", resolutions=[(1000, 2)])
    assert differences(before, contents(MacroGraph.open(tmp_path / "graph"), LATEST)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "graph.history.parquet"]


# --- macro nodes over time ---


def test_numbers_keep_their_meaning_and_macro_nodes_find_the_planted_groups(graph):
    for side in ("user", "item"):
        for r, k in enumerate((4, 8)):
            macro = [np.asarray(getattr(snapshot.resolutions[r], f"{side}_macro")) for snapshot in graph.snapshots]
            for before, after in pairwise(macro):
                known = before < k
                assert (before[known] == after[: len(before)][known]).mean() > 3 / k  # by chance 1 / k
    latest = graph.latest.resolutions[0]
    first = {side: dict(zip(log[side], log[f"{side}_id"], strict=True)) for log in [_with_ids()] for side in ("user", "item")}
    for side, macro in (("user", latest.user_macro), ("item", latest.item_macro)):
        truth = [first[side][code] % 4 for code in range(len(macro))]
        assert normalized_mutual_info_score(truth, macro) > 0.9


def _with_ids() -> pd.DataFrame:
    return history(EVENTS).rows.assign(user_id=[event[0] for event in EVENTS], item_id=[event[1] for event in EVENTS])


def test_without_refresh_members_stay(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", refresh=False, resolutions=[(4, 4)])
    for side in ("user", "item"):
        macro = [np.asarray(getattr(snapshot.resolutions[0], f"{side}_macro")) for snapshot in graph.snapshots]
        for before, after in pairwise(macro):
            assert_array_equal(after[: len(before)][before < 4], before[before < 4])
            assert (after < 4).all()


def test_random_groups_stay_and_say_nothing_of_the_planted_ones(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", clusters="random", resolutions=[(4, 4)])
    first, latest = graph.snapshots[0].resolutions[0], graph.latest.resolutions[0]
    assert_array_equal(first.user_macro, latest.user_macro[: len(first.user_macro)])
    log = _with_ids().drop_duplicates("user").sort_values("user")
    assert normalized_mutual_info_score(log.user_id % 4, latest.user_macro) < 0.2


def test_an_active_minority_moves_the_centres(tmp_path):
    """With a threshold, centres are the means of the active alone, weighted; inactive nodes still get a macro node."""
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
    message = r"graph.resolutions: 3 user macro nodes are more than the 2 users of the first snapshot; ask for fewer, or `auto`"
    with pytest.raises(GraphError, match=message):
        log.build(tmp_path / "graph", resolutions=[(1, 1), (3, 1)])
    with pytest.raises(GraphError, match="2 item macro nodes are more than the 1 items"):
        log.build(tmp_path / "graph", resolutions=[(2, 2)])
    assert log.build(tmp_path / "graph", resolutions=[(2, 1)]).latest.macro_users == 2


def test_no_history_is_refused(tmp_path):
    with pytest.raises(GraphError, match="no history to build from"):
        History(history(EVENTS).rows.iloc[:0], CUTS).build(tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([(0, 0, 0, 0)], id="one event"),
        pytest.param([(0, i, 9 * i, i % 3) for i in range(10)], id="one user"),
        pytest.param([(u, 0, 9 * u, u % 3) for u in range(10)], id="one item"),
        pytest.param([(0, 0, 5, 0)] * 30, id="one pair, many events"),
        pytest.param([(u, u, 99, 0) for u in range(5)], id="nothing before the last cut"),
        pytest.param([(u, u, 0, 0) for u in range(12)], id="no shared neighbour"),
        pytest.param([(u, u, 0, 0) for u in range(6)] + [(u, u, 100, 0) for u in range(6, 12)], id="nothing between the cuts"),
    ],
)
def test_the_smallest_logs_build_and_read(tmp_path, events):
    log = history(events)
    graph = log.build(tmp_path / "graph")
    for snapshot in graph.snapshots:
        users, items = np.arange(-1, 13), np.arange(-1, 13)
        read = snapshot.gather(users, items, ["counts", "pair", "sketch", "edges", "aggregates", "recents"])
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
        one, other = (at.gather(*np.array([p]).T, ["counts", "pair", "sketch", "edges", "aggregates", "recents"]) for p in (pair, unseen))
        for name in one:
            assert_array_equal(one[name], other[name], err_msg=name)


def test_twenty_events_build_in_less_than_a_second_of_work(graph, tmp_path):
    log = history(EVENTS[:20])
    start = time.process_time()
    log.build(tmp_path / "graph")
    assert time.process_time() - start < 1


def test_scores_whose_sums_would_overflow_at_a_later_snapshot_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.graph.histories.RANKS", (1.0, 2.0, 1e5))  # the product of two pairs' scores fits
    crowd = [(user, item, 100, 2) for user in range(20) for item in range(20)]
    with pytest.raises(GraphError, match=r"graph.beta: 2nd-order sums of scores would overflow 64 bits"):
        history([(0, 0, 0, 0), *crowd]).build(tmp_path / "graph", beta=1.0)
