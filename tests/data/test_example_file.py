"""Streamed examples equal those in memory; each comes once per epoch, in an order that depends on the
seed, in one file and in shards, for one process and for several."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import TaskSettings
from mgoe.data import ExampleFile, Examples, join
from mgoe.data.example_file import ExampleWriter
from mgoe.data.prepared import Prepared
from mgoe.errors import DataError

TASKS = ("click", "buy")
sizes, seeds = st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 2**32 - 1)


@contextmanager
def example_file(
    parts: list[int], window_rows: int = 50, seed: int = 0, shards: int = 0
) -> Iterator[ExampleFile]:
    """Write a file of several row groups, or so many shards, with context, positions and missing labels;
    weights number the rows."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        first = 1
        with ExampleWriter(
            Path(folder), np.array([0, 10, 20], np.int32), [TaskSettings(name=name) for name in TASKS]
        ) as writer:
            for n in parts:
                labels = rng.integers(0, 2, (n, 2)).astype(np.float32)
                labels[rng.random((n, 2)) < 0.2] = np.nan
                context = {
                    "hour": rng.integers(0, 24, n),
                    "tags": rng.integers(0, 5, (n, 3)),
                    "speed": rng.random(n, np.float32),
                }
                ids = rng.integers(0, 9, (2, n))
                weight = np.arange(first, first + n, dtype=np.float32)
                bucket = rng.integers(1, 10, n).astype(np.int32)
                writer.write(*ids, bucket, labels, weight, position=rng.integers(0, 9, n), context=context)
                first += n
        if shards:
            split(Path(folder) / "train.parquet", shards)
        file = ExampleFile(Path(folder) / "train.parquet", TASKS, 1)
        yield ExampleFile(file.path, TASKS, window_rows * file.row_bytes)


def split(path: Path, shards: int) -> None:
    """Replace a file by a folder of shards with the same row groups; some shards may have no row group."""
    with pq.ParquetFile(path) as whole:
        groups = [whole.read_row_group(number) for number in range(whole.num_row_groups)]
    schema = groups[0].schema
    path.unlink()
    path.mkdir()
    for number, held in enumerate(np.array_split(np.arange(len(groups)), shards)):
        with pq.ParquetWriter(path / f"part-{number:05d}.parquet", schema) as writer:
            for group in held:
                writer.write_table(groups[group])


def check_same(one: Examples, other: Examples) -> None:
    for part in fields(Examples):
        a, b = getattr(one, part.name), getattr(other, part.name)
        for x, y in zip(*((v.values() if isinstance(v, dict) else [v]) for v in (a, b)), strict=True):
            np.testing.assert_array_equal(x, y)
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None)


@given(parts=sizes, size=st.integers(1, 70), shards=st.integers(0, 3))
def test_streaming_in_file_order_equals_reading_at_once(parts, size, shards):
    with example_file(parts) as one, example_file(parts, shards=shards) as file:
        whole = file.read()
        check_same(whole, one.read())
        assert len(file) == len(whole) == sum(parts)
        np.testing.assert_array_equal(file.labels, whole.labels)
        np.testing.assert_array_equal(file.user, whole.user)
        if len(whole):
            check_same(join(list(file.ordered(size, size))), join(list(one.ordered(size, size))))
            check_same(join(list(file.ordered(size))), whole)
            check_same(join(list(file.parts())), whole)
            rows = np.sort(
                np.random.default_rng(size).choice(len(whole), min(size, len(whole)), replace=False)
            )
            check_same(file.take(rows), whole.take(rows))


@given(
    parts=sizes, size=st.integers(1, 70), window=st.integers(1, 150), seed=seeds, start=st.integers(0, 200)
)
def test_a_seeded_order_has_every_row_once_and_can_start_anywhere(parts, size, window, seed, start):
    with example_file(parts, window) as file:
        chunks = list(file.ordered(size, (seed, 1)))
        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        if not chunks:
            assert sum(parts) == 0
            return
        order = join(chunks)
        np.testing.assert_array_equal(np.sort(order.weight), np.arange(1, sum(parts) + 1))
        check_same(order, file.read().take(order.weight.astype(int) - 1))
        for processes in (1, 2, 3, 5):
            shares = [
                join([*file.ordered(size, (seed, 1), start, (rank, processes)), order.take(np.arange(0))])
                for rank in range(processes)
            ]
            for rank, share in enumerate(shares):
                places = np.arange(start, len(order))
                check_same(share, order.take(places[places % processes == rank]))


class Counted(ExampleFile):
    """Counts the rows that it decodes."""

    decoded = 0

    def _table(self, opened, group):
        table = super()._table(opened, group)
        self.decoded += len(table)
        return table


def test_processes_decode_the_rows_of_their_own_readers():
    with example_file([20] * 96, window_rows=48 * 20, shards=5) as file:
        for processes, most in ((1, 1920), (2, 960), (3, 640), (5, 1920), (8, 240)):
            for rank in range(processes):
                counted = Counted(file.path, TASKS, file.window)
                list(counted.ordered(960, 1, share=(rank, processes)))
                assert counted.readers == 48
                assert counted.decoded == most
        counted = Counted(file.path, TASKS, file.window)
        assert len(join(list(counted.ordered(48, 1, 1920 - 48)))) == 48
        assert counted.decoded == 960  # windows before the last ones of each reader are skipped


@pytest.mark.parametrize(("window", "readers"), [(0, 1), (100, 3), (200, 6), (5000, 48)])
def test_readers_have_memory_for_a_row_group_each(window, readers):
    with example_file([20] * 40, window_rows=window) as file:
        assert file.readers == readers


def test_windows_are_bounded_and_their_rows_shuffled():
    with example_file([20] * 36, window_rows=120) as file:  # six readers, each with a row group at a time
        first, again, other = (join(list(file.ordered(50, seed))).weight for seed in ((1, 1), (1, 1), (1, 2)))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        groups, others = (((weights - 1) // 20).reshape(-1, 120).tolist() for weights in (first, other))
        assert all(len(set(window)) == 6 for window in groups)
        assert [set(window) for window in groups] != [set(window) for window in others]
        for group in range(36):
            assert (np.diff(first[(first - 1) // 20 == group]) != 1).sum() > 10


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_shard_lost_in_a_pass_is_named_and_can_be_put_back(damage, monkeypatch):
    monkeypatch.setattr("mgoe.data.example_file.OPEN_SHARDS", 1)
    with example_file([20] * 12, shards=4) as file:
        whole = list(file.ordered(10, 1))
        shard = file.path / "part-00002.parquet"
        held, chunks = shard.read_bytes(), file.ordered(10, 1)
        next(chunks)
        if damage == "gone":
            shard.unlink()
        else:
            pq.write_table(pq.read_table(shard).slice(1), shard)
        with pytest.raises(DataError, match=r"train.parquet/part-00002.parquet: (cannot be read|must stay)"):
            list(chunks)
        shard.write_bytes(held)
        check_same(join(list(file.ordered(10, 1, 50))), join(whole[5:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["weight"]), r"2.parquet, column 5: .* weight float, found label"),
        (
            lambda table: table.append_column("more", pa.array(np.zeros(len(table)))),
            r"2.parquet, column 12: must be as in part-00000.parquet, none, found more double; write all",
        ),
        (
            lambda table: table.set_column(0, "user", table["user"].cast(pa.int32())),
            r"part-00002.parquet, column 1: must be as in part-00000.parquet, user int64, found user int32",
        ),
    ],
)  # fmt: skip
def test_shards_of_other_columns_are_refused(change, message):
    with example_file([5] * 4, shards=4) as file:
        shard = file.path / "part-00002.parquet"
        pq.write_table(change(pq.read_table(shard)), shard)
        with pytest.raises(DataError, match=message):
            len(ExampleFile(file.path, TASKS, 1))


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold shards \(\*.parquet\), found none; make"):
        len(ExampleFile(tmp_path, TASKS, 1))


def test_shards_are_read_from_an_object_store():
    store = fsspec.filesystem("memory")
    with example_file([20] * 12, shards=4) as local:
        store.put(str(local.path), "/bucket/train.parquet", recursive=True)
        whole, path = local.read(), local.path
        path.rename(path.with_name("before"))
        path.with_name("train.parquet.url").write_text("fsspec+memory:///bucket/train.parquet/\n")
        file = ExampleFile(path, TASKS, local.window)
        check_same(file.read(), whole)
        assert len(join(list(file.ordered(7, 1)))) == 240
        store.rm("/bucket/train.parquet/part-00002.parquet")
        with pytest.raises(
            DataError, match=r"^fsspec\+memory:///bucket/train.parquet/part-00002.parquet: can"
        ):
            list(file.ordered(7, 1))


@pytest.mark.parametrize(
    "url", ["nothing://bucket", "fsspec+nothing://bucket", "file:///nowhere/train.parquet"]
)
def test_a_store_that_cannot_be_read_is_named(tmp_path, url):
    (tmp_path / "train.parquet.url").write_text(url)
    with pytest.raises(DataError, match=rf"^{re.escape(url)}: cannot be read .*put the file back"):
        len(ExampleFile(tmp_path / "train.parquet", TASKS, 1))


LOST = r"train.parquet: cannot be read \(.*\); put the file back, or make the run's data again"


def test_a_file_truncated_during_reading_is_named():
    with example_file([200] * 5) as file:
        chunks = file.ordered(10, 1)
        next(chunks)
        held = file.path.read_bytes()
        file.path.write_bytes(held[: len(held) // 3])
        with pytest.raises(DataError, match=LOST):
            list(chunks)


@pytest.mark.parametrize("read", ["ordered", "parts", "take", "column", "labels", "at once"])
@pytest.mark.parametrize("damage", ["gone", "cut", "spoilt"])
def test_a_file_lost_between_reads_is_named(damage, read):
    ways = {
        "ordered": lambda file: list(file.ordered(10, 2)),
        "parts": lambda file: list(file.parts()),
        "take": lambda file: file.take(np.arange(5)),
        "column": lambda file: file.column("item"),
        "labels": lambda file: file.labels,
        "at once": lambda file: file.read(),
    }
    with example_file([200] * 5) as file:
        assert len(file) == 1000
        held = file.path.read_bytes()
        if damage == "gone":
            file.path.unlink()
        else:
            file.path.write_bytes(
                held[: len(held) // 3] if damage == "cut" else bytes(20_000) + held[20_000:]
            )
        with pytest.raises(DataError, match=LOST):
            ways[read](file)


def test_a_file_replaced_between_reads_is_refused():
    with example_file([200] * 5) as file, example_file([200] * 4) as other:
        chunks = file.ordered(10, 1)
        first = len(next(chunks))
        file.path.unlink()
        other.path.rename(file.path)
        assert sum(map(len, chunks)) == 1000 - first  # what is open stays
        with pytest.raises(
            DataError,
            match=r"train.parquet: must stay unchanged while it is read, found other rows than before",
        ):
            list(file.ordered(10, 2))


def test_row_groups_are_small(monkeypatch):
    monkeypatch.setattr("mgoe.data.example_file.GROUP_ROWS", 30)
    with example_file([200, 10]) as file:
        assert file._sizes.max() == 30


def test_memory_decides_what_is_streamed():
    with example_file([100] * 3) as file:
        prepared = Prepared.__new__(Prepared)
        prepared.path, prepared.tasks = file.path.parent, TASKS
        needed = 300 * file.row_bytes / (1 << 30)
        assert isinstance(prepared.within("train", needed * 1.01), Examples)
        assert isinstance(prepared.within("train", needed * 0.99), ExampleFile)


@pytest.mark.parametrize("group_rows", [30, 65_536])
@given(parts=sizes, share=st.floats(0, 1), seed=seeds)
def test_a_sampled_file_holds_the_rows_sampled_in_memory(group_rows, parts, share, seed):
    with example_file(parts) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.data.example_file.GROUP_ROWS", group_rows)
        drawn = [np.random.default_rng(seed) for _ in range(2)]
        whole = file.read()
        written = file.sampled(share, drawn[0], file.path.with_name("sample.parquet"))
        check_same(join(list(written.parts())), whole.take(drawn[1].random(len(whole)) < share))
        assert written.window == file.window
        assert written._sizes.max() <= max(group_rows, *parts)
