import tempfile
from collections.abc import Iterable
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe._util import tables
from mgoe.graph import fold as module
from mgoe.graph.engines.local import Engine
from mgoe.graph.fold import (
    SnapshotCuts,
    fold,
    in_chunks,
    packed,
    pairs_writer,
    task_mask_type,
    unpacked,
)
from mgoe.graph.pair_rows import PairRows, starts
from tests.effort import up_to
from tests.graph.histories import BUCKET, CUTS, RANKS, History, histories, history, planted
from tests.graph.naive import pairs_of

Event = tuple[int, int, int, int]
"""User, item, moment, task."""
Pair = tuple[int, int, int, int, int, int, int]
"""User, item, mask, last moment, events since the snapshot before, first moment, all events."""

events = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-30, 30), st.integers(0, 2)), max_size=40
)
ends = st.lists(st.integers(-35, 35), max_size=4, unique=True).map(
    lambda moments: np.array(sorted(moments), np.int64)
)


def naive_fold(found: list[Event], moments: np.ndarray) -> list[list[Pair]]:
    """Pairs of every snapshot, as a dictionary that is filled from the start for each."""
    out = []
    for s in range(len(moments) + 1):
        begin, end = (moments[s - 1] if s else -np.inf), (moments[s] if s < len(moments) else np.inf)
        of: dict[tuple[int, int], tuple[int, float, int, float, int]] = {}
        for user, item, moment, task in set(found):
            if moment < end:
                mask, last, since, first, total = of.get((user, item), (0, -np.inf, 0, np.inf, 0))
                of[user, item] = (
                    mask | 1 << task,
                    max(last, moment),
                    since + (moment >= begin),
                    min(first, moment),
                    total + 1,
                )
        out.append([(*pair, *of[pair]) for pair in sorted(of)])
    return out


def in_columns(found: list[Event]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and events, in order."""
    packed = sorted((user << 32 | item, moment * 16 + task) for user, item, moment, task in found)
    keys, moments = np.array(packed, np.int64).reshape(-1, 2).T
    return keys.copy(), moments.copy()


def listed(folded: module.Folded) -> list[Pair]:
    user, pairs = folded
    return list(zip(*(column.tolist() for column in (user, *pairs)), strict=True))


@given(found=events, moments=ends)
def test_folded_pairs_are_those_of_a_dictionary(found, moments):
    assert [listed(folded) for folded in fold(*in_columns(found), moments, 3)] == naive_fold(found, moments)


@given(found=events, moments=ends, copies=st.integers(2, 4))
def test_an_event_that_repeats_another_counts_once(found, moments, copies):
    one, other = fold(*in_columns(found), moments, 3), fold(*in_columns(found * copies), moments, 3)
    assert [listed(folded) for folded in one] == [listed(folded) for folded in other]


@given(found=events, chunk=st.integers(1, 30))
def test_chunks_hold_every_event_in_order_and_never_split_a_pair(found, chunk):
    keys, moments = in_columns(found)
    chunks = list(in_chunks([(keys, moments)], chunk))
    assert_array_equal(np.concatenate([keys[:0], *(k for k, _ in chunks)]), keys)
    assert_array_equal(np.concatenate([keys[:0], *(e for _, e in chunks)]), moments)
    seen = [set(k.tolist()) for k, _ in chunks]
    assert sum(map(len, seen)) == len(set(keys.tolist()))  # no key in two chunks
    assert all(seen)


@given(found=events, moments=ends, chunk=st.integers(1, 30))
def test_what_is_written_is_the_same_in_chunks_of_any_size(found, moments, chunk):
    keys, events_of_all = in_columns(found)
    known = np.full(len(moments) + 1, 6)  # one more than any user and item
    naive = naive_fold(found, moments)
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(s) for s in range(len(known))]
        chunks = list(in_chunks([(keys, events_of_all)], chunk)) or [(keys, events_of_all)]
        fold_into(chunks, SnapshotCuts(moments, known, known), 3, folders)
        for snapshot, expected in zip(folders, naive, strict=True):
            check_written(snapshot, expected, 6, 6)


def fold_into(chunks: Iterable, cuts: SnapshotCuts, tasks: int, folders: list[Path]) -> None:
    """As the engines do."""
    with pairs_writer(folders, cuts) as append:
        for keys, moments in chunks:
            append(fold(keys, moments, cuts.ends, tasks))


def check_written(folder: Path, expected: list[Pair], users: int, items: int):
    rows = PairRows.by_user(folder)
    assert len(rows) == users
    user = np.repeat(np.arange(users), np.diff(rows.indptr))
    columns = (user, *rows.columns)
    assert list(zip(*(np.asarray(column).tolist() for column in columns), strict=True)) == expected
    of_items = (
        np.bincount([item for _, item, *_ in expected], minlength=items) if expected else np.zeros(items, int)
    )
    assert_array_equal(PairRows.item_indptr(folder), np.concatenate([[0], np.cumsum(of_items)]))


def write(log: History, folder: Path, threads: int = 1, memory: str = "1GiB") -> list[Path]:
    """Through the engine, from a file."""
    folder.mkdir(parents=True)
    log.rows[["user", "item", "time", "task"]].to_parquet(folder / "history.parquet")
    engine = ibis.duckdb.connect(threads=threads, memory_limit=memory)
    engine.con.execute("SET preserve_insertion_order = false")
    table = engine.read_parquet(folder / "history.parquet")
    moments = SnapshotCuts((np.array(log.cuts, np.int64) + 1) * BUCKET, log.users_at, log.items_at)
    folders = [folder / "pairs" / str(s) for s in range(len(log.users_at))]
    Engine(folder, 1.0).write_pairs(table, moments, len(RANKS), folders, lambda events: None)
    return folders


def bytes_of(folders: list[Path]) -> dict[str, bytes]:
    return {
        f"{s}/{file.name}": file.read_bytes()
        for s, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
    }


@up_to(12)
@given(log=histories())
def test_at_every_snapshot_pairs_are_the_history_grouped_from_scratch(log):
    with tempfile.TemporaryDirectory() as folder:
        for s, snapshot in enumerate(write(log, Path(folder) / "log")):
            new = log.distinct[log.distinct.snapshot == s].groupby(["user", "item"]).size()
            naive = pairs_of(log, s)
            every = log.until(s).drop_duplicates().groupby(["user", "item"]).time.agg(["min", "size"])
            expected = [
                (*pair, *naive[pair][:2], int(new.get(pair, 0)), *every.loc[pair].tolist())
                for pair in sorted(naive)
            ]
            check_written(snapshot, expected, log.users_at[s], log.items_at[s])


@up_to(12)
@given(log=histories(), seed=st.integers(0, 1000))
def test_files_do_not_depend_on_the_order_of_events(log, seed):
    with tempfile.TemporaryDirectory() as folder:
        one, other = write(log, Path(folder) / "one"), write(log.shuffled(seed), Path(folder) / "other")
        assert bytes_of(one) == bytes_of(other)


def test_files_do_not_depend_on_the_threads_of_the_engine_nor_on_its_memory(tmp_path):
    log = history(
        planted(users=3000, items=2000, events=150_000)
    )  # beyond one row group of the engine, so threads share it
    one, four = (
        write(log, tmp_path / "one"),
        write(log.shuffled(1), tmp_path / "four", threads=4, memory="64MiB"),
    )
    assert bytes_of(one) == bytes_of(four)
    assert len(PairRows.by_user(one[len(CUTS)]).other) == len(log.rows.drop_duplicates(["user", "item"]))


def test_counting_events_stops_where_16_bits_end():
    repeats = [(0, 0, moment, 0) for moment in range(70_000)] + [(0, 1, 0, 0)]
    (latest,) = fold(*in_columns(repeats), np.empty(0, np.int64), 1)
    assert listed(latest) == [(0, 0, 1, 69_999, 65_535, 0, 70_000), (0, 1, 1, 0, 1, 0, 1)]


def test_the_largest_codes_users_and_items_are_kept():
    most = 2**31 - 1
    (latest,) = fold(
        *in_columns([(most, most, 2**50, 15), (most, most, -(2**50), 0)]), np.empty(0, np.int64), 16
    )
    assert listed(latest) == [(most, most, 1 << 15 | 1, 2**50, 2, -(2**50), 2)]
    assert (task_mask_type(8), task_mask_type(9)) == (np.uint8, np.uint16)


@given(degrees=st.lists(st.integers(0, 9)))
def test_starts_are_running_sums(degrees):
    assert starts(np.array(degrees, np.int64)).tolist() == [
        sum(degrees[:node]) for node in range(len(degrees) + 1)
    ]


def test_the_engine_packs_events_as_they_are_folded():
    """The user in the upper half, the task in the lowest bits, times before 1970 too."""
    found = [(3, 7, -5, 2), (0, 2**31 - 1, 8, 0), (3, 7, -6, 1)]
    table = packed(ibis.memtable(pd.DataFrame(found, columns=["user", "item", "time", "task"])))
    ((keys, moments),) = map(unpacked, tables.batches(table))
    expected = in_columns(found)
    order = np.lexsort((moments, keys))
    assert_array_equal(keys[order], expected[0])
    assert_array_equal(moments[order], expected[1])


def test_an_engine_is_bounded_while_it_sorts_and_then_as_it_was():
    con = ibis.duckdb.connect(memory_limit="1GiB", threads=2)
    names = ("memory_limit", "threads", "preserve_insertion_order", "temp_directory")

    def said() -> list:
        return [con.con.sql(f"SELECT current_setting('{name}')").fetchall()[0][0] for name in names]

    before = said()
    with tables.bounded(con, 0.25, threads=1):
        assert said() == ["256.0 MiB", 1, False, before[3]]
    assert said() == before == ["1.0 GiB", 2, True, before[3]]
