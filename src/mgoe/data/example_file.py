"""Files of examples: written as rows come, and read whole or in windows that are shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import GIB, atomic_file
from mgoe.config import TaskSettings
from mgoe.data.examples import Examples, Seed, Split, join, mask_given
from mgoe.errors import DataError

GROUP_ROWS = 65_536
"""Rows of a row group: few enough that a window of a streamed file has room for many groups."""


Part = TypeVar("Part")


class ExampleWriter:
    """Write examples to one Parquet file per split as they come, complete sorted runs at a time.

    Args:
        folder: Folder of `train.parquet`, `valid.parquet` and `test.parquet`.
        cuts: Bucket number of each cut. Shape (n,).
        tasks: In label order.
        test_windows: Number of windows that are test.
    """

    def __init__(
        self, folder: Path, cuts: NDArray[np.int32], tasks: Sequence[TaskSettings], test_windows: int = 1
    ):
        self._folder, self._cuts, self._tasks = folder, cuts, tasks
        self._valid_window = len(cuts) - 1 - test_windows
        self._writers: dict[Split, pq.ParquetWriter] = {}

    def write(
        self,
        user: NDArray,
        item: NDArray,
        bucket: NDArray,
        labels: NDArray[np.float32],
        weight: NDArray | None = None,
        position: NDArray | None = None,
        uniform: NDArray | None = None,
        context: Mapping[str, NDArray] | None = None,
    ) -> None:
        """Write rows of any windows; rows before the first cut are history only and left out."""
        snapshot = np.searchsorted(self._cuts, bucket, side="left") - 1
        labels = mask_given(labels, self._tasks)
        table = pa.table(
            {
                "user": pa.array(user, pa.int64()),
                "item": pa.array(item, pa.int64()),
                "bucket": pa.array(bucket, pa.int32()),
                "snapshot": pa.array(snapshot, pa.int16()),
                "weight": pa.array(
                    np.ones(len(user), np.float32) if weight is None else weight, pa.float32()
                ),
                **{
                    f"label.{task.name}": pa.array(labels[:, t], pa.float32(), from_pandas=True)
                    for t, task in enumerate(self._tasks)
                },
                **({} if position is None else {"position": pa.array(position, pa.int64())}),
                **({} if uniform is None else {"uniform": pa.array(uniform, pa.int8())}),
                **{f"context.{name}": _column(values) for name, values in (context or {}).items()},
            }
        )
        parts: dict[Split, NDArray[np.bool_]] = {
            "train": (snapshot >= 0) & (snapshot < self._valid_window),
            "valid": snapshot == self._valid_window,
            "test": snapshot > self._valid_window,
        }
        for split, held in parts.items():
            if split not in self._writers:
                self._writers[split] = pq.ParquetWriter(
                    self._folder / f"{split}.parquet", table.schema, compression="zstd"
                )
            rows = table.filter(pa.array(held))  # pyright: ignore[reportArgumentType]
            self._writers[split].write_table(rows, row_group_size=GROUP_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


class ExampleFile:
    """The examples of one split in their file, read in order by methods like those of `Examples`.

    Args:
        path: The file.
        tasks: In label order.
        window: Bytes of rows that are shuffled together.

    Example:
        >>> valid = prepared.examples("valid")
        >>> prepared.streamed("valid").row_bytes > 0
        True
    """

    def __init__(self, path: Path, tasks: Sequence[str], window: int):
        self.path, self.tasks, self.window = path, tuple(tasks), window

    def __len__(self) -> int:
        return int(self._groups.sum())

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row in memory, approximately."""
        return sum(_bytes(field.type) for field in self._open().schema_arrow)

    @property
    def window_rows(self) -> int:
        """Rows of a window, at least one."""
        return max(1, self.window // self.row_bytes)

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """`Examples.labels` of the whole file, for metrics. Shape (N, T)."""
        return np.concatenate([part.labels for part in self.parts()])

    @cached_property
    def user(self) -> NDArray[np.int64]:
        """`Examples.user` of the whole file. Shape (N,)."""
        return self.column("user")

    def column(self, name: str) -> NDArray:
        """Return a whole column, such as `item`. Shape (N,)."""
        with readable(self.path):
            return self._open().read([name])[name].to_numpy()

    def read(self) -> Examples:
        """Return all rows in memory; besides them, memory holds one part at a time."""
        if len(self._groups) <= 1:
            return self._examples(self._open(), list(range(len(self._groups))))
        parts = self.parts()
        part = next(parts)
        whole = part.changed(lambda column: np.empty((len(self), *column.shape[1:]), column.dtype))
        start = 0
        while part is not None:
            for column, values in zip(whole.columns(), part.columns(), strict=True):
                column[start : start + len(part)] = values
            start += len(part)
            part = next(parts, None)
        return whole

    def within(self, memory: float) -> Examples | ExampleFile:
        """Return all rows in memory if they take at most `memory` GiB, otherwise this file."""
        return self.read() if len(self) * self.row_bytes <= memory * GIB else self

    def parts(self) -> Iterator[Examples]:
        """Yield all rows in the order of the file, one part at a time."""
        file = self._open()
        for group in range(len(self._groups)):
            yield self._examples(file, [group])

    def sampled(self, share: float, rng: np.random.Generator, path: Path) -> ExampleFile:
        """Write a share of the rows to another file, in their order, one part at a time.

        Raises:
            OutputError: The file cannot be written.
        """
        file = self._open()
        parts = (
            self._table(file, [group]).filter(pa.array(rng.random(rows) < share))
            for group, rows in enumerate(self._groups)
        )
        with (
            atomic_file(path) as unfinished,
            pq.ParquetWriter(unfinished, file.schema_arrow, compression="zstd") as writer,
        ):
            for held in _together(((part, len(part)) for part in parts), GROUP_ROWS):
                writer.write_table(pa.concat_tables(held))
        return ExampleFile(path, self.tasks, self.window)

    def take(self, rows: NDArray) -> Examples:
        """Return the rows with the given numbers, which rise."""
        starts, taken = np.concatenate([[0], np.cumsum(self._groups)]), []
        for group, part in enumerate(self.parts()):
            low, high = np.searchsorted(rows, [starts[group], starts[group + 1]])
            if high > low:
                taken.append(part.take(rows[low:high] - starts[group]))
        return join(taken)

    def ordered(self, size: int, seed: Seed | None = None, start: int = 0) -> Iterator[Examples]:
        """Yield the rows from place `start` of their order on, `size` at a time: as stored, or shuffled by a
        seed.

        With a seed, row groups are taken in random order, as many together as fit a window, and the rows of a
        window in random order.
        """
        file, held = self._open(), []
        for number, groups in enumerate(self._windows(seed)):
            rows = int(self._groups[groups].sum())
            if start >= rows:
                start -= rows
                continue
            examples = self._examples(file, groups)
            order = np.arange(rows) if seed is None else _generator(seed, 1 + number).permutation(rows)
            order, start = order[start:], 0
            while len(order):
                wanted = size - sum(map(len, held))
                held.append(examples.take(order[:wanted]))
                order = order[wanted:]
                if sum(map(len, held)) == size:
                    yield join(held)
                    held = []
            del examples  # before the next window is read
        if held:
            yield join(held)

    def _windows(self, seed: Seed | None) -> Iterator[list[int]]:
        """Return the row groups that are read together."""
        count = len(self._groups)
        order = range(count) if seed is None else _generator(seed, 0).permutation(count).tolist()
        return _together(((group, int(self._groups[group])) for group in order), self.window_rows)

    @cached_property
    def _groups(self) -> NDArray[np.int64]:
        """Rows of each row group."""
        groups = range(self._metadata.num_row_groups)
        return np.array([self._metadata.row_group(group).num_rows for group in groups], np.int64)

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        """Metadata of the file at the first look."""
        with readable(self.path):
            return pq.read_metadata(self.path)

    def _open(self) -> pq.ParquetFile:
        """Open the file, and refuse another one that has taken its place."""
        before = self._metadata
        with readable(self.path):
            file = pq.ParquetFile(self.path)
        if not file.metadata.equals(before):
            raise DataError(
                self.path,
                "must stay unchanged while it is read, found other rows than before; make the run's data "
                "again",
            )
        return file

    def _table(self, file: pq.ParquetFile, groups: list[int]) -> pa.Table:
        with readable(self.path):
            return file.read_row_groups(groups)

    def _examples(self, file: pq.ParquetFile, groups: list[int]) -> Examples:
        table = self._table(file, groups)
        columns = {name: _array(table[name].combine_chunks()) for name in table.column_names}
        return Examples(
            *(columns[name] for name in ("user", "item", "bucket", "snapshot")),
            labels=np.stack([columns[f"label.{task}"] for task in self.tasks], axis=1),
            weight=columns["weight"],
            context={
                name.removeprefix("context."): values
                for name, values in columns.items()
                if name.startswith("context.")
            },
            position=columns.get("position"),
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file of prepared data into a `DataError`."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            path,
            f"cannot be read ({' '.join(str(error).split())[:200]}); put the file back, or make the run's "
            "data again",
        ) from None


def _together(parts: Iterable[tuple[Part, int]], rows: int) -> Iterator[list[Part]]:
    """Yield parts that follow each other, as many together as have at most so many rows, at least one."""
    held, taken = [], 0
    for part, size in parts:
        if held and taken + size > rows:
            yield held
            held, taken = [], 0
        held.append(part)
        taken += size
    if held:
        yield held


def _generator(seed: Seed, stream: int) -> np.random.Generator:
    return np.random.default_rng([*([seed] if isinstance(seed, int) else seed), stream])


def _bytes(kind: pa.DataType) -> int:
    several = isinstance(kind, pa.FixedSizeListType)
    return kind.list_size * _bytes(kind.value_type) if several else kind.bit_width // 8


def _column(values: NDArray) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: pa.Array) -> NDArray:
    if isinstance(column, pa.FixedSizeListArray):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    values = column.to_numpy(zero_copy_only=False)
    return values if values.flags.writeable else values.copy()
