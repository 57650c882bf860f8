import io
from contextlib import redirect_stderr
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe._util.progress import ProgressBar
from mgoe.evaluation import draw_queries, rank_catalog

from .made_up import TASKS

WHO = {"model": "m", "seed": 0, "split": "test", "query_seed": 0}


def ranked(score, labels, users, items, *, block=65_536):
    with patch("mgoe.evaluation.evaluate.BLOCK", block):
        rows = rank_catalog(score, labels, users, items, TASKS, catalog=9, queries=100, k=(1, 3), **WHO)
    return {(row["task"], row["metric"]): row["value"] for row in rows}


@st.composite
def worlds(draw):
    """Scores of every pair with ties, and examples that repeat pairs, miss labels and reach beyond the
    catalogue.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(0, draw(st.integers(1, 20)), (7, 9, 3)).astype(np.float32)
    n = draw(st.integers(0, 40))
    labels = rng.choice([0.0, 0.0, 1.0, np.nan], (n, 3))
    return scores, labels, rng.integers(-1, 7, n), rng.integers(-1, 11, n)


@given(worlds(), st.integers(1, 40))
def test_measures_are_those_of_lists_written_out(world, block):
    scores, labels, users, items = world
    found = ranked(lambda u, i: scores[u, i], labels, users, items, block=block)
    for t, task in enumerate(("click", "buy")):
        hits, gains = [], []
        for user in range(7):
            wanted = {int(i) for i in items[(users == user) & (labels[:, t] > 0)] if 0 <= i < 9}
            if not wanted:
                continue
            own = scores[user, :, t]
            ranks = np.array([(own > own[i]).sum() + ((own == own[i]).sum() + 1) / 2 for i in wanted])
            hits.append((ranks <= 3).any())
            gains.append(
                (1 / np.log2(1 + ranks[ranks <= 3])).sum()
                / (1 / np.log2(2 + np.arange(min(3, len(wanted))))).sum()
            )
        assert found[task, "queries"] == len(hits)
        assert_allclose(found[task, "hr@3"], np.mean(hits) if hits else np.nan)
        assert_allclose(found[task, "ndcg@3"], np.mean(gains) if gains else np.nan)
    assert ("stay", "hr@3") not in found


def test_a_model_that_knows_ranks_first_and_one_that_does_not_gains_nothing():
    users, items = np.arange(7), np.arange(7)
    labels = np.ones((7, 3))
    right = ranked(lambda u, i: np.repeat((u == i)[:, None], 3, 1).astype(float), labels, users, items)
    flat = ranked(lambda u, i: np.zeros((len(u), 3)), labels, users, items)
    assert right["all", "hr@1"] == right["all", "ndcg@3"] == 1
    assert flat["all", "hr@1"] == flat["all", "hr@3"] == 0


def test_the_model_scores_whole_lists_in_blocks():
    seen = []

    def score(users, items):
        seen.append(len(users))
        return np.zeros((len(users), 3))

    ranked(score, np.ones((4, 3)), np.array([0, 1, 2, 3]), np.zeros(4, int), block=20)
    assert sum(seen) == 4 * 9
    assert max(seen) <= 20


def test_the_same_seed_draws_the_same_users():
    users = np.arange(50).repeat(2)
    assert draw_queries(users, 10, 1).tolist() == draw_queries(users[::-1], 10, 1).tolist()
    assert draw_queries(users, 10, 1).tolist() != draw_queries(users, 10, 2).tolist()
    assert draw_queries(users, 100, 0).tolist() == list(range(50))


def test_no_queries_give_nan_and_a_count():
    found = ranked(lambda u, i: np.zeros((len(u), 3)), np.zeros((3, 3)), np.arange(3), np.arange(3))
    assert np.isnan(found["all", "hr@1"])
    assert found["click", "queries"] == 0


def test_a_list_that_holds_a_nan_is_not_measured():
    """Wherever in the list: its order is not known. Other tasks are."""
    users = np.arange(7)

    def score(u, i):
        scores = np.repeat((u == i)[:, None], 3, 1).astype(float)
        scores[(u == 3) & (i == 5), 0] = np.nan
        return scores

    found = ranked(score, np.ones((7, 3)), users, users)
    assert np.isnan([found["click", "hr@1"], found["click", "hr@3"], found["click", "ndcg@3"]]).all()
    assert found["click", "queries"] == 7
    assert found["buy", "hr@1"] == found["buy", "ndcg@3"] == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_every_pair_counted_and_nobody_else_sees_any(terminal):
    labels, users, shown = np.ones((7, 3)), np.arange(7), io.StringIO()
    with (
        patch.object(shown, "isatty", lambda: terminal),
        redirect_stderr(shown),
        patch.object(ProgressBar, "advance", autospec=True, side_effect=ProgressBar.advance) as advance,
    ):
        ranked(lambda u, i: np.ones((len(u), 3)), labels, users, users, block=5)
    assert sum(call.args[1] for call in advance.call_args_list) == 7 * 9
    assert ("ranking all items" in shown.getvalue()) == terminal
