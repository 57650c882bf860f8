import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.errors import GraphError
from mgoe.features import GROUPS as REGISTERED
from mgoe.graph.edges import find
from tests.effort import up_to
from tests.features.reading import gather
from tests.graph.histories import histories, history, planted
from tests.graph.naive import TASKS, Reading, recent_of, table_of

GROUPS = ("counts", "pair", "sketch", "edges", "aggregates", "recents")


@up_to(3)
@given(log=histories(30), beta=st.sampled_from([0.0, 0.5, 1.0]), snapshot=st.integers(0, 3))
def test_every_group_equals_the_plain_computation_pair_by_pair(log, beta, snapshot):
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(1, 1), (min(3, int(log.users_at[0])), min(4, int(log.items_at[0])))]
        graph = log.build(Path(folder) / "graph", beta=beta, resolutions=sizes)
        reading = Reading(log, graph, snapshot, beta)
        at = graph.snapshots[snapshot]
        users, items = (
            a.ravel() for a in np.meshgrid(np.arange(-1, at.n_users + 2), np.arange(-1, at.n_items + 2))
        )
        got = gather(at, users, items, GROUPS)
    each = [(int(u), int(i)) for u, i in zip(users, items, strict=True)]
    assert_allclose(
        got["counts"],
        [reading.counts("user", u) + reading.counts("item", i) for u, i in each],
        rtol=1e-5,
        atol=1e-6,
    )
    assert_allclose(got["pair"], [reading.pair(u, i) for u, i in each], rtol=1e-6)
    assert_allclose(
        _powers(got["sketch"]), _powers(np.array([reading.sketch(u, i) for u, i in each])), atol=1e-5
    )
    assert_allclose(got["edges"], [reading.edges(u, i) for u, i in each], rtol=1e-4, atol=1e-5)
    check_aggregates(got, reading, each)
    check_recents(got, reading, each)


def _powers(sketch):
    """Products in place of their signed fourth roots, which magnify rounding near zero."""
    n = (sketch.shape[1] - 2) // 2
    products = sketch[:, n : 2 * n]
    return np.concatenate([sketch[:, :n], np.sign(products) * products**4, sketch[:, 2 * n :]], axis=1)


def check_aggregates(got, reading, each):
    r = reading.at.dense
    ku, ki = reading.width(r, "user"), reading.width(r, "item")
    for name, value in {
        "u1": [[reading.first(r, "user", u, k) for k in range(ki)] for u, _ in each],
        "u2": [[reading.second(r, "user", u, k) for k in range(ku)] for u, _ in each],
        "i1": [[reading.first(r, "item", i, k) for k in range(ku)] for _, i in each],
        "i2": [[reading.second(r, "item", i, k) for k in range(ki)] for _, i in each],
    }.items():
        assert_allclose(got[name], np.log1p(value), rtol=6e-4, atol=1e-7, err_msg=name)  # half precision
    part = reading.at.resolutions[r]
    assert_array_equal(got["user_macro"], [reading.macro(r, "user", u) for u, _ in each])
    assert_array_equal(got["item_macro"], [reading.macro(r, "item", i) for _, i in each])
    by = reading.by
    assert_array_equal(
        got["table_user"],
        [[table_of(by["user"][u], part.item_macro, ki, t) for t in range(TASKS)] for u, _ in each],
    )
    assert_array_equal(
        got["table_item"],
        [[table_of(by["item"][i], part.user_macro, ku, t) for t in range(TASKS)] for _, i in each],
    )


def check_recents(got, reading, each):
    r, length = reading.at.dense, reading.recents
    for name, side, nodes in (
        ("items", "user", [u for u, _ in each]),
        ("users", "item", [i for _, i in each]),
    ):
        cold = reading.width(r, name[:-1])
        rows = [recent_of(reading.by[side][node], length) for node in nodes]
        padded = [row + [(-1, 0)] * (length - len(row)) for row in rows]
        assert_array_equal(got[f"recent_{name}"], [[j for j, _ in row] for row in padded])
        assert_array_equal(got[f"recent_{name}_task_mask"], [[c for _, c in row] for row in padded])
        macro = [[reading.macro(r, name[:-1], j) if j >= 0 else cold for j, _ in row] for row in padded]
        assert_array_equal(got[f"recent_{name}_macro"], macro)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return history(planted(60, 40, 2, 400)).build(tmp_path_factory.mktemp("gather") / "graph")


def test_unseen_nodes_read_zeros_the_cold_node_and_no_neighbours(graph):
    at = graph.latest
    got = gather(at, np.array([-1, at.n_users, -7, 10**9]), np.array([-1, at.n_items, -7, 10**9]), GROUPS)
    for name in (
        "counts",
        "pair",
        "sketch",
        "u1",
        "u2",
        "i1",
        "i2",
        "recent_items_task_mask",
        "recent_users_task_mask",
    ):
        assert not got[name].any(), name
    for name, cold in (("user", at.macro_users), ("item", at.macro_items)):
        assert (got[f"{name}_macro"] == cold).all()
        assert (got[f"recent_{name}s"] == -1).all()
        assert (got[f"recent_{name}s_macro"] == cold).all()
        assert (got[f"table_{'item' if name == 'user' else 'user'}"] == cold).all()
    assert np.isfinite(got["edges"]).all()


def test_names_and_widths_are_those_of_the_columns_and_all_are_finite(graph):
    at = graph.latest
    rng = np.random.default_rng(0)
    got = gather(at, rng.integers(-1, at.n_users + 1, 500), rng.integers(-1, at.n_items + 1, 500), GROUPS)
    names = {key: columns for group in GROUPS for key, columns in REGISTERED[group].names(at).items()}
    assert {key: got[key].shape[1] for key in names} == {key: len(set(each)) for key, each in names.items()}
    assert all(np.isfinite(array).all() for array in got.values())
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32), np.dtype(np.int64)}


def test_a_pair_reads_the_same_alone_and_among_others(graph):
    rng = np.random.default_rng(1)
    users, items = rng.integers(-1, 60, 50), rng.integers(-1, 40, 50)
    together = gather(graph.latest, users, items, GROUPS)
    for row in range(5):
        alone = gather(graph.latest, users[row : row + 1], items[row : row + 1], GROUPS)
        for name, array in alone.items():
            assert_array_equal(array[0], together[name][row], err_msg=name)


def test_no_pairs_give_no_rows(graph):
    got = gather(graph.latest, np.empty(0, np.int64), np.empty(0, np.int64), GROUPS)
    assert all(len(array) == 0 for array in got.values())


def test_lists_of_different_lengths_are_refused(graph):
    with pytest.raises(GraphError, match="one length, found"):
        gather(graph.latest, np.zeros(2, np.int64), np.zeros(3, np.int64), ["counts"])


def test_known_items_are_those_of_the_history(graph):
    log = history(planted(60, 40, 2, 400))
    for user in (0, 7, 59):
        assert list(graph.latest.known_items(user)) == sorted(set(log.rows.item[log.rows.user == user]))
    assert len(graph.latest.known_items(-1)) == len(graph.latest.known_items(10**6)) == 0


@given(
    rows=st.lists(
        st.dictionaries(st.integers(0, 12), st.integers(1, 99), max_size=8), min_size=1, max_size=5
    ),
    column=st.integers(0, 13),
)
def test_find_is_a_dictionary_look_up(rows, column):
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    macro = np.array([k for row in rows for k in sorted(row)], np.int32)
    score = np.array([row[k] for row in rows for k in sorted(row)], np.int64)
    assert [int(find(indptr, macro, score, r, column)) for r in range(len(rows))] == [
        row.get(column, 0) for row in rows
    ]
