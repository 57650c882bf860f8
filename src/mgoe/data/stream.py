"""Examples that stay on disk: read in windows, shuffled within them, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import GIB, atomic_file
from mgoe.data.examples import GROUP_ROWS, Examples, damaged_part, join, of_table, read_examples
from mgoe.errors import DataError

Seed = int | Sequence[int]


class ExampleFile:
    """The examples of one split in their file, with the methods of `Examples` that read one after the other.

    Args:
        path: The file.
        tasks: In label order.
        window: Bytes of rows that are shuffled together.
    """

    def __init__(self, path: Path, tasks: Sequence[str], window: int):
        self.path, self.tasks, self.window = path, tuple(tasks), window

    def __len__(self) -> int:
        return int(self._groups.sum())

    @cached_property
    def row_bytes(self) -> int:
        """Of a row in memory, about."""
        return sum(_bytes(field.type) for field in self._open().schema_arrow)

    @property
    def window_rows(self) -> int:
        """Rows of a window, at least one."""
        return max(1, self.window // self.row_bytes)

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """As `Examples.labels`, which metrics need whole. Shape (N, T)."""
        return np.concatenate([part.labels for part in self.parts()])

    @cached_property
    def user(self) -> NDArray[np.int64]:
        """As `Examples.user`. Shape (N,)."""
        return self.column("user")

    def column(self, name: str) -> NDArray:
        """One column whole, such as `item`. Shape (N,)."""
        file = self._open()
        try:
            return file.read([name])[name].to_numpy()
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged_part(self.path, error) from None

    def parts(self) -> Iterator[Examples]:
        """All rows as they lie in the file, a part at a time."""
        file = self._open()
        for group in range(len(self._groups)):
            yield self._read(file, [group])

    def within(self, memory: float) -> Examples | ExampleFile:
        """All rows, in memory where they take no more than so many GiB, else where they lie."""
        return read_examples(self.path, self.tasks) if len(self) * self.row_bytes <= memory * GIB else self

    def sampled(self, share: float, rng: np.random.Generator, path: Path) -> ExampleFile:
        """Write a share of the rows to another file, in their order, a part at a time.

        Raises:
            OutputError: It cannot be written.
        """
        file, held = self._open(), []
        with (
            atomic_file(path) as unfinished,
            pq.ParquetWriter(unfinished, file.schema_arrow, compression="zstd") as writer,
        ):
            for group, rows in enumerate(self._groups):
                part = self._table(file, [group]).filter(pa.array(rng.random(rows) < share))
                if held and sum(map(len, held)) + len(part) > GROUP_ROWS:
                    writer.write_table(pa.concat_tables(held))
                    held = []
                held.append(part)
            if held:
                writer.write_table(pa.concat_tables(held))
        return ExampleFile(path, self.tasks, self.window)

    def take(self, rows: NDArray) -> Examples:
        """The rows with the given numbers, which rise."""
        starts, taken = self._starts, []
        for group, part in enumerate(self.parts()):
            low, high = np.searchsorted(rows, [starts[group], starts[group + 1]])
            if high > low:
                taken.append(part.take(rows[low:high] - starts[group]))
        return join(taken)

    def ordered(self, size: int, seed: Seed | None = None, start: int = 0) -> Iterator[Examples]:
        """All rows from place `start` of their order on, `size` at a time: as they lie, or in the order of a seed.

        With a seed, row groups are taken in a random order, as many at once as a window holds, and the rows of a window in a random order.
        """
        file, held = self._open(), []
        for number, groups in enumerate(self._windows(seed)):
            rows = int(self._groups[groups].sum())
            if start >= rows:
                start -= rows
                continue
            examples = self._read(file, groups)
            order = (
                np.arange(rows)
                if seed is None
                else np.random.default_rng([*_keys(seed), 1 + number]).permutation(rows)
            )
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
        """Row groups that are read together."""
        count = len(self._groups)
        order = (
            range(count)
            if seed is None
            else np.random.default_rng([*_keys(seed), 0]).permutation(count).tolist()
        )
        most, window, rows = self.window_rows, [], 0
        for group in order:
            if window and rows + self._groups[group] > most:
                yield window
                window, rows = [], 0
            window.append(group)
            rows += int(self._groups[group])
        if window:
            yield window

    @cached_property
    def _groups(self) -> NDArray[np.int64]:
        """Rows of each row group."""
        about = self._about
        return np.array([about.row_group(group).num_rows for group in range(about.num_row_groups)], np.int64)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self._groups)])

    @cached_property
    def _about(self) -> pq.FileMetaData:
        """Of the file as it was found first."""
        try:
            return pq.read_metadata(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged_part(self.path, error) from None

    def _open(self) -> pq.ParquetFile:
        """The file, unless another one has taken its place."""
        before = self._about
        try:
            file = pq.ParquetFile(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged_part(self.path, error) from None
        if not file.metadata.equals(before):
            raise DataError(
                self.path,
                "must stay as it is while it is read, found other rows than before; make the run's data again",
            )
        return file

    def _read(self, file: pq.ParquetFile, groups: list[int]) -> Examples:
        return of_table(self._table(file, groups), self.tasks)

    def _table(self, file: pq.ParquetFile, groups: list[int]) -> pa.Table:
        try:
            return file.read_row_groups(groups)
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged_part(self.path, error) from None


def _bytes(kind: pa.DataType) -> int:
    if isinstance(kind, pa.FixedSizeListType):
        return kind.list_size * _bytes(kind.value_type)
    return kind.bit_width // 8


def _keys(seed: Seed) -> list[int]:
    return [seed] if isinstance(seed, int) else list(seed)
