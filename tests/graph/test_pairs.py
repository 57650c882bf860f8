import tempfile
from pathlib import Path

import ibis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.graph.pairs import Pairs, pair_steps, read_steps
from mgoe.graph.scores import UNIT, score_table
from tests.effort import up_to
from tests.graph.histories import CUTS, RANKS, History, histories, history, planted
from tests.graph.naive import pairs_of, score_of

bounded = up_to(12)


def steps_of(log: History, threads: int = 1) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "history.parquet", Path(folder) / "steps.parquet"
        log.rows.to_parquet(source)
        table = ibis.duckdb.connect(threads=threads).read_parquet(source)
        pair_steps(table, len(log.cuts) + 1, score_table(np.array(RANKS), 1.0)).to_parquet(out)
        return read_steps(out)


@bounded
@given(log=histories())
def test_at_every_snapshot_pairs_are_the_history_grouped_from_scratch(log):
    steps = steps_of(log)
    for s in range(len(CUTS) + 1):
        pairs, naive = Pairs.at(steps, s, log.users_at[s], log.items_at[s]), pairs_of(log, s)
        assert list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) == sorted(naive)
        found = zip(pairs.code.tolist(), pairs.time.tolist(), pairs.bucket.tolist(), strict=True)
        assert list(found) == [naive[pair] for pair in sorted(naive)]
        assert_array_equal(pairs.score / UNIT, [score_of(naive[pair][0], 1.0) for pair in sorted(naive)])
        new = log.rows[log.rows.snapshot == s].groupby(["user", "item"]).size()
        assert_array_equal(pairs.events, [new.get(pair, 0) for pair in sorted(naive)])


@bounded
@given(log=histories())
def test_both_orders_of_the_pairs_hold_the_same_pairs(log):
    pairs = Pairs.at(steps_of(log), 2, log.users_at[2], log.items_at[2])
    for side in ("user", "item"):
        indptr, other, order = pairs.by(side)
        node = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        assert_array_equal(node, getattr(pairs, side)[order])
        assert_array_equal(other, getattr(pairs, "item" if side == "user" else "user")[order])
        assert_array_equal(np.lexsort((other, node)), np.arange(len(pairs)))


@bounded
@given(log=histories(), seed=st.integers(0, 1000))
def test_steps_do_not_depend_on_the_order_of_events(log, seed):
    one, other = steps_of(log), steps_of(log.shuffled(seed))
    for name in one:
        assert_array_equal(one[name], other[name], err_msg=name)


def test_steps_do_not_depend_on_the_threads_of_the_engine():
    log = history(planted(users=3000, items=2000, events=150_000))  # beyond one row group of the engine, so threads share it
    one, four = steps_of(log, threads=1), steps_of(log.shuffled(1), threads=4)
    for name in one:
        assert_array_equal(one[name], four[name], err_msg=name)
