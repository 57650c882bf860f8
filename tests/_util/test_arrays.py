import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.testing import assert_array_equal

from mgoe._util.arrays import ArrayFolder, ArrayWriter, fence, mapped, save_arrays

types = st.sampled_from([np.int32, np.int64, np.uint8, np.uint16, np.float16, np.float32, np.float64])
shapes = st.sampled_from([(), (3,), (1,), (0,), (2, 2)])
lengths = st.lists(st.integers(0, 9), max_size=8)


def chunk(length: int, row: tuple[int, ...], dtype: type, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (length, *row)).astype(dtype)


@given(lengths=lengths, row=shapes, dtype=types)
def test_chunks_read_back_as_their_concatenation(lengths, row, dtype):
    chunks = [chunk(length, row, dtype, seed) for seed, length in enumerate(lengths)]
    expected = np.concatenate([np.empty((0, *row), dtype), *chunks])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "array.npy"
        with ArrayWriter(file, np.dtype(dtype), row) as writer:
            for rows in chunks:
                writer.append(rows)
        assert writer.rows == len(expected)
        for found in (mapped(file), np.load(file)):
            assert_array_equal(found, expected)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@given(
    array=drawn.arrays(
        np.int64, st.tuples(st.integers(0, 9), st.integers(1, 4)), elements=st.integers(0, 99)
    ),
    order=st.sampled_from("CFTR"),
)
def test_rows_of_any_layout_and_type_are_written_in_the_arrays_own(array, order):
    """Columns in memory order, transposed, or every other row."""
    rows = {
        "C": array,
        "F": np.asfortranarray(array),
        "T": np.ascontiguousarray(array.T).T,
        "R": np.repeat(array, 2, axis=0)[::2],
    }[order]
    with tempfile.TemporaryDirectory() as folder:
        with ArrayWriter(Path(folder) / "array.npy", np.dtype(np.float32), rows.shape[1:]) as writer:
            writer.append(rows)
        found = mapped(Path(folder) / "array.npy")
        assert found.dtype == np.float32
        assert_array_equal(found, array)


@given(rows=st.sampled_from([0, 1, 9, 10, 99, 10**9, 10**12, 10**20]))
def test_the_header_keeps_its_length_however_many_rows_there_are(rows):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "array.npy"
        with ArrayWriter(file, np.dtype(np.uint8)) as writer:
            before = writer._file.tell()
            writer.rows = rows
        assert file.stat().st_size == before


def test_it_replaces_a_longer_file(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(1000))
    with ArrayWriter(tmp_path / "array.npy", np.dtype(np.int64)) as writer:
        writer.append(np.arange(3))
    assert_array_equal(np.load(tmp_path / "array.npy"), [0, 1, 2])
    assert (tmp_path / "array.npy").stat().st_size == 128 + 3 * 8


@pytest.mark.parametrize("rows", [0, 5, 10_000])
def test_a_file_that_was_not_closed_does_not_load(tmp_path, rows):
    """As a process leaves it that was killed: not as an array of no rows, or of some."""
    writer = ArrayWriter(tmp_path / "array.npy", np.dtype(np.int64))
    writer.append(np.arange(rows))
    writer._file.flush()
    for read in (mapped, np.load):
        with pytest.raises((ValueError, EOFError)):
            read(tmp_path / "array.npy")


def test_a_folder_whose_writing_failed_holds_no_array_that_loads(tmp_path):
    def fail():
        with ArrayFolder(tmp_path) as out:
            out.append({"one": np.arange(3)})
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    with pytest.raises((ValueError, EOFError, FileNotFoundError)):
        mapped(tmp_path / "one.npy")


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_arrays_of_a_folder_grow_together(lengths):
    with tempfile.TemporaryDirectory() as folder:
        with ArrayFolder(Path(folder) / "new" / "folder") as out:
            for seed, length in enumerate(lengths):
                out.append(
                    {"one": chunk(length, (), np.int64, seed), "two": chunk(length, (2,), np.float32, seed)}
                )
        one, two = (mapped(Path(folder) / "new" / "folder" / f"{name}.npy") for name in ("one", "two"))
        assert len(one) == len(two) == sum(lengths)
        assert_array_equal(
            one, np.concatenate([chunk(length, (), np.int64, seed) for seed, length in enumerate(lengths)])
        )
        assert_array_equal(
            two,
            np.concatenate([chunk(length, (2,), np.float32, seed) for seed, length in enumerate(lengths)]),
        )


def test_whole_arrays_are_read_memory_mapped_and_cannot_be_changed(tmp_path):
    save_arrays(tmp_path / "folder", {"one": np.arange(5)})
    found = mapped(tmp_path / "folder" / "one.npy")
    assert isinstance(found.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_objects_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        save_arrays(tmp_path, {"one": np.array([{}], object)})
    np.save(tmp_path / "two.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects in dtype"):
        mapped(tmp_path / "two.npy")


@given(
    values=drawn.arrays(np.float64, st.integers(200, 400), elements=st.floats(0, 1e3)),
    outliers=st.lists(st.floats(0, 1e30), max_size=2),
)
def test_one_value_in_a_hundred_moves_no_fence_beyond_what_the_others_allow(values, outliers):
    values[50:] += 1e-3
    changed = values.copy()
    changed[50 : 50 + len(outliers)] += outliers
    assert fence(changed) <= 10 * values.max()
    assert fence(changed) >= fence(values)


@pytest.mark.parametrize("shape", ["uniform", "exponential", "standard_gamma", "integers"])
def test_without_a_heavy_tail_nothing_is_an_outlier(shape):
    rng = np.random.default_rng(0)
    values = {
        "uniform": rng.uniform(2, 3, 10_000),
        "exponential": rng.exponential(5e4, 10_000),
        "standard_gamma": rng.standard_gamma(2, 10_000),
        "integers": np.where(rng.random(10_000) < 0.99, 0, rng.integers(1, 6, 10_000)),
    }[shape]
    assert values.max() <= fence(np.where(rng.random(10_000) < 0.1, np.nan, values))


def test_there_is_no_outlier_where_nothing_is_above_0():
    assert fence(np.array([0.0, np.nan])) == np.inf
