"""Streamed examples equal those in memory; each comes once per epoch, in an order that depends on the
seed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import TaskSettings
from mgoe.data import ExampleFile, Examples, join
from mgoe.data.example_file import ExampleWriter
from mgoe.data.prepared import Prepared
from mgoe.errors import DataError
from tests.effort import up_to

TASKS = ("click", "buy")
sizes, seeds = st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 2**32 - 1)


@contextmanager
def example_file(parts: list[int], window_rows: int = 50, seed: int = 0) -> Iterator[ExampleFile]:
    """Write a file of several row groups with context, positions and missing labels; weights number the
    rows."""
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
        file = ExampleFile(Path(folder) / "train.parquet", TASKS, 1)
        yield ExampleFile(file.path, TASKS, window_rows * file.row_bytes)


def check_same(one: Examples, other: Examples) -> None:
    for part in fields(Examples):
        a, b = getattr(one, part.name), getattr(other, part.name)
        for x, y in zip(*((v.values() if isinstance(v, dict) else [v]) for v in (a, b)), strict=True):
            np.testing.assert_array_equal(x, y)
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None)


@up_to(20)
@given(parts=sizes, size=st.integers(1, 70))
def test_streaming_in_file_order_equals_reading_at_once(parts, size):
    with example_file(parts) as file:
        whole = file.read()
        assert len(file) == len(whole) == sum(parts)
        np.testing.assert_array_equal(file.labels, whole.labels)
        np.testing.assert_array_equal(file.user, whole.user)
        if len(whole):
            check_same(join(list(file.ordered(size))), whole)
            check_same(join(list(file.parts())), whole)
            rows = np.sort(
                np.random.default_rng(size).choice(len(whole), min(size, len(whole)), replace=False)
            )
            check_same(file.take(rows), whole.take(rows))


@up_to(20)
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
        rest = list(file.ordered(size, (seed, 1), start))
        assert sum(map(len, rest)) == max(0, sum(parts) - start)
        if rest:
            check_same(join(rest), order.take(np.arange(start, len(order))))


def test_windows_are_bounded_and_their_rows_shuffled():
    with example_file([20] * 40, window_rows=100) as file:
        first, again, other = (join(list(file.ordered(50, seed))).weight for seed in ((1, 1), (1, 1), (1, 2)))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        groups = ((first - 1) // 20).reshape(-1, 100)
        assert all(len(set(window)) == 5 for window in groups.tolist())
        assert all((np.diff(window) != 0).sum() > 30 for window in groups)


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


def test_a_window_holds_many_row_groups(monkeypatch):
    monkeypatch.setattr("mgoe.data.example_file.GROUP_ROWS", 30)
    with example_file([200, 10], window_rows=60) as file:
        assert file._groups.max() == 30
        assert max(int(file._groups[window].sum()) for window in file._windows(3)) <= 60


def test_memory_decides_what_is_streamed():
    with example_file([100] * 3) as file:
        prepared = Prepared.__new__(Prepared)
        prepared.path, prepared.tasks = file.path.parent, TASKS
        needed = 300 * file.row_bytes / (1 << 30)
        assert isinstance(prepared.within("train", needed * 1.01), Examples)
        assert isinstance(prepared.within("train", needed * 0.99), ExampleFile)


@pytest.mark.parametrize("group_rows", [30, 65_536])
@up_to(20)
@given(parts=sizes, share=st.floats(0, 1), seed=seeds)
def test_a_sampled_file_holds_the_rows_sampled_in_memory(group_rows, parts, share, seed):
    with example_file(parts) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.data.example_file.GROUP_ROWS", group_rows)
        drawn = [np.random.default_rng(seed) for _ in range(2)]
        whole = file.read()
        written = file.sampled(share, drawn[0], file.path.with_name("sample.parquet"))
        check_same(join(list(written.parts())), whole.take(drawn[1].random(len(whole)) < share))
        assert written.window == file.window
        assert written._groups.max() <= max(group_rows, *parts)
