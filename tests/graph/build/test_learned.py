import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph.sketch import Sketch
from tests.effort import SOAK, up_to
from tests.graph.histories import BUCKET, CUTS, History, contents, differences, event_lists, history, planted

EVENTS = planted()
LATEST = len(CUTS)
SIZES = {"resolutions": [(4, 4), (8, 8)]}


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"sample": 40},
        {"refresh": False},
        *[{"clusters": "random"}, {"normalize": "none", "scale": 0.5}] * SOAK,
    ],
    ids=str,
)
def built(request, tmp_path_factory):
    """A graph, and the settings it was built with."""
    settings = SIZES | request.param
    return history(EVENTS).build(tmp_path_factory.mktemp("learned") / "graph", **settings), settings


def check_identical(one, other):
    for s in range(LATEST + 1):
        assert differences(contents(one, s), contents(other, s)) == [], s


def test_the_same_history_with_the_same_macro_nodes_kept_gives_the_same_graph(built, tmp_path):
    """In all arrays: sketch, vectors, macro nodes and edges. The order of events does not matter."""
    graph, settings = built
    kept = history(EVENTS).shuffled(3).build(tmp_path / "kept", keep=graph, **settings)
    check_identical(kept, graph)
    check_identical(history(EVENTS).build(tmp_path / "again", keep=kept, **settings), graph)


def later(events, seed: int, new_users: int = 10, new_items: int = 8):
    """More events after the last cut, some of new users and items; indices of known nodes stay."""
    rng = np.random.default_rng(seed)
    n = 400
    user, item = rng.integers(0, 150 + new_users, n), rng.integers(0, 100 + new_items, n)
    moment, task = rng.integers(8 * BUCKET, 12 * BUCKET, n), rng.integers(0, 3, n)
    return events + list(zip(*(column.tolist() for column in (user, item, moment, task)), strict=True))


def check_known(before, after, kept_items: bool):
    """Nodes that had edges keep their macro nodes; what projects nodes is the same; new nodes with edges have
    a macro node.
    """
    assert_array_equal(after.arrays["basis"], before.arrays["basis"])
    assert_array_equal(after.arrays["singular"], before.arrays["singular"])
    assert_array_equal(after.arrays["basis_sum"], before.arrays["basis_sum"])
    if kept_items:
        assert_array_equal(after.arrays["item_vectors"][: before.n_items], before.arrays["item_vectors"])
    for old, new in zip(before.resolutions, after.resolutions, strict=True):
        for side in ("user", "item"):
            former, macro = (
                np.asarray(getattr(old, f"{side}_macro")),
                np.asarray(getattr(new, f"{side}_macro")),
            )
            k = len(getattr(old, f"{side}_mass"))
            assert_array_equal(macro[: len(former)][former < k], former[former < k])
            assert_array_equal(macro == k, np.asarray(after.arrays[f"{side}_sum"]) == 0)
            assert_array_equal(getattr(new, f"{side}_chances"), getattr(old, f"{side}_chances"))


@pytest.mark.parametrize("seed", range(2 if SOAK else 1))
def test_macro_nodes_of_known_nodes_never_change_under_more_events(tmp_path, seed):
    graph = history(EVENTS).build(tmp_path / "graph", **SIZES)
    grown = history(later(EVENTS, seed)).build(tmp_path / "grown", keep=graph, **SIZES)
    for s in range(LATEST):  # more came after the last cut only
        assert differences(contents(grown, s), contents(graph, s)) == []
    check_known(graph.latest, grown.latest, kept_items=True)
    assert grown.latest.n_users > graph.latest.n_users
    assert grown.latest.n_items > graph.latest.n_items


@up_to(3)
@given(
    events=event_lists(3, 30), more=event_lists(1, 30, first=8, last=11, users=12, items=12), data=st.data()
)
def test_macro_nodes_of_known_nodes_never_change_on_any_log(events, more, data):
    start = [(0, 0, 0, 0), (1, 1, 0, 1)]
    sample = data.draw(st.sampled_from([2, 100]), "sample")
    with tempfile.TemporaryDirectory() as folder:
        graph = history(start + events).build(Path(folder) / "graph", sample=sample)
        grown = history(start + events + more).build(Path(folder) / "grown", keep=graph, sample=sample)
        grown.verify()
        check_known(graph.latest, grown.latest, kept_items=True)


def test_users_who_do_nothing_new_keep_their_vectors_and_others_do_not(tmp_path):
    """A known user's vector changes with the user's own pairs alone: sums of items are those of when the
    sketch was learned.
    """
    graph = history(EVENTS).build(tmp_path / "graph", **SIZES)
    log = history(later(EVENTS, 0))
    grown = log.build(tmp_path / "grown", keep=graph, **SIZES)
    before, after = (at.latest.arrays["user_vectors"] for at in (graph, grown))
    active = np.isin(np.arange(graph.latest.n_users), log.rows.user[len(EVENTS) :])
    assert 5 < active.sum() < len(active) - 5
    assert_array_equal(after[: len(before)][~active], before[~active])
    assert (after[: len(before)][active] != before[active]).any(axis=1).mean() > 0.9


def test_new_items_are_placed_by_their_users(tmp_path):
    """Where all of a new item's users are of one group, its macro node is that of the group's items."""
    graph = history(EVENTS).build(tmp_path / "graph", **SIZES)
    users = [(user, 100 + user % 4, 11 * BUCKET, 2) for user in range(80)]
    log = history(EVENTS + users)
    grown = log.build(tmp_path / "grown", keep=graph, **SIZES)
    ids = dict(zip(log.rows["item"], [event[1] for event in EVENTS + users], strict=True))
    macro = np.asarray(grown.latest.resolutions[0].item_macro)
    of_group = {
        group: np.bincount(
            [macro[index] for index, item in ids.items() if item < 100 and item % 4 == group]
        ).argmax()
        for group in range(4)
    }
    assert len(set(of_group.values())) == 4
    for index, item in ids.items():
        if item >= 100:
            assert macro[index] == of_group[item % 4]


def test_the_sketch_of_all_users_reads_back_and_has_the_vectors_of_the_items(built):
    graph, settings = built
    arrays = graph.latest.arrays
    learned = Sketch(arrays["basis"], arrays["singular"], settings.get("scale", 1.0))
    if "sample" not in settings:
        assert_allclose(learned.items, arrays["item_vectors"], rtol=1e-6)


def test_sizes_are_those_of_the_graph_that_is_kept(tmp_path):
    graph = history(EVENTS).build(tmp_path / "graph", resolutions=[(3, 5)])
    kept: History = history(later(EVENTS, 1))
    assert kept.build(tmp_path / "kept", keep=graph, resolutions="auto").sizes == ((3, 5),)
