"""Files of examples: written as rows come, and read whole or in windows that are shuffled.

A split is one Parquet file, or a folder of shards: the rows of all shards in the order of their names are the
rows of the one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import GIB, atomic_file
from mgoe._util.prefetch import in_turn
from mgoe.config import TaskSettings
from mgoe.data.examples import Examples, Seed, Split, join, mask_given
from mgoe.data.readers import Piece, StretchReader, gathered, rows_at, stretches, together
from mgoe.data.store import Store, readable
from mgoe.errors import DataError

GROUP_ROWS = 65_536
"""Rows of a row group: few enough that a window of a streamed file has room for many groups."""
READERS = 48
"""Readers of a shuffled file at most (ours); 2, 3, 4, 6, 8, 12, 16, 24 and 48 processes share them evenly."""
OPEN_SHARDS = 64
"""Shards that are open at a time."""
OPENING = 8
"""Threads that look at shards, which takes long in an object store."""
Open = Callable[[str], pq.ParquetFile]


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

    def write(self, *columns: Any, **named: Any) -> None:
        """Write rows of any windows; rows before the first cut are history only and left out.

        Args:
            columns, named: As `example_table` takes them.
        """
        table = example_table(self._cuts, self._tasks, *columns, **named)
        snapshot = table["snapshot"].to_numpy()
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


def example_table(
    cuts: NDArray[np.int32],
    tasks: Sequence[TaskSettings],
    user: NDArray,
    item: NDArray,
    bucket: NDArray,
    labels: NDArray[np.float32],
    weight: NDArray | None = None,
    position: NDArray | None = None,
    uniform: NDArray | None = None,
    context: Mapping[str, NDArray] | None = None,
    moment: NDArray | None = None,
) -> pa.Table:
    """Return examples as a table in the form of a file.

    Args:
        cuts: Bucket number of each cut. Shape (n,).
        tasks: In label order, T of them.
        user, item, bucket, weight, position, uniform, moment: One per example; weights are 1 by default.
            Shape (N,).
        labels: Missing ones are NaN; those outside the sample space of their task become so. Shape (N, T).
        context: Encoded features by name.
    """
    labels = mask_given(labels, tasks)
    snapshot = np.searchsorted(cuts, bucket, side="left") - 1
    weight = np.ones(len(user), np.float32) if weight is None else weight
    return pa.table(
        {
            "user": pa.array(user, pa.int64()),
            "item": pa.array(item, pa.int64()),
            "bucket": pa.array(bucket, pa.int32()),
            "snapshot": pa.array(snapshot, pa.int16()),
            "weight": pa.array(weight, pa.float32()),
            **{
                f"label.{task.name}": pa.array(labels[:, t], pa.float32(), from_pandas=True)
                for t, task in enumerate(tasks)
            },
            **({} if position is None else {"position": pa.array(position, pa.int64())}),
            **({} if moment is None else {"moment": pa.array(moment, pa.int64())}),
            **({} if uniform is None else {"uniform": pa.array(uniform, pa.int8())}),
            **{f"context.{name}": _column(values) for name, values in (context or {}).items()},
        }
    )


class ExampleFile:
    """The examples of one split in their file or shards, read in order by methods like those of `Examples`.

    Args:
        path: The file, or the folder of shards; where there is none, a file `NAME.url` beside it has their
            URL.
        tasks: In label order.
        window: Bytes of rows that are shuffled together.
        later: Files or folders whose rows follow, with the same columns.

    Example:
        >>> valid = prepared.examples("valid")
        >>> prepared.streamed("valid").row_bytes > 0
        True
    """

    def __init__(self, path: Path, tasks: Sequence[str], window: int, *later: Path):
        self.path, self.tasks, self.window, self.later = path, tuple(tasks), window, later

    def __len__(self) -> int:
        return int(self._sizes.sum())

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row in memory, approximately."""
        return sum(_bytes(field.type) for field in self._schema)

    @property
    def window_rows(self) -> int:
        """Rows of all windows that are shuffled at a time, at least one."""
        return max(1, self.window // self.row_bytes)

    @cached_property
    def readers(self) -> int:
        """Readers of a shuffled order: as many as have memory for a row group each, at least one."""
        readers = READERS
        while readers > 1 and readers * self._sizes.max(initial=0) > self.window_rows:
            readers //= 2
        return readers

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        """`Examples.labels` of all rows, for metrics. Shape (N, T)."""
        return np.concatenate([part.labels for part in self.parts()])

    @cached_property
    def user(self) -> NDArray[np.int64]:
        """`Examples.user` of all rows. Shape (N,)."""
        return self.column("user")

    def column(self, name: str) -> NDArray:
        """Return a whole column, such as `item`. Shape (N,)."""
        parts = []
        for shard in self._shards:
            with readable(shard):
                parts.append(self._open(shard).read([name]))
        return pa.concat_tables(parts)[name].to_numpy()

    def read(self) -> Examples:
        """Return all rows in memory; besides them, memory holds one part at a time."""
        return gathered(len(self), self.parts()) if len(self) else self._examples(self._schema.empty_table())

    def within(self, memory: float) -> Examples | ExampleFile:
        """Return all rows in memory if they take at most `memory` GiB, otherwise this file."""
        return self.read() if len(self) * self.row_bytes <= memory * GIB else self

    def parts(self) -> Iterator[Examples]:
        """Yield all rows in the order of the file, one part at a time."""
        opened = self._opened()
        for group in range(len(self._groups)):
            yield self._examples(self._table(opened, group))

    def sampled(self, share: float, rng: np.random.Generator, path: Path) -> ExampleFile:
        """Write a share of the rows to another file, in their order, one part at a time.

        Raises:
            OutputError: The file cannot be written.
        """
        opened = self._opened()
        parts = (
            self._table(opened, group).filter(pa.array(rng.random(rows) < share))
            for group, rows in enumerate(self._sizes)
        )
        with (
            atomic_file(path) as unfinished,
            pq.ParquetWriter(unfinished, self._schema, compression="zstd") as writer,
        ):
            for held in together(((part, len(part)) for part in parts), GROUP_ROWS):
                writer.write_table(pa.concat_tables(held))
        return ExampleFile(path, self.tasks, self.window)

    def take(self, rows: NDArray) -> Examples:
        """Return the rows with the given numbers, which rise."""
        opened, starts, taken = self._opened(), np.concatenate([[0], np.cumsum(self._sizes)]), []
        for group, (low, high) in enumerate(pairwise(np.searchsorted(rows, starts))):
            if high > low:
                part = self._examples(self._table(opened, group))
                taken.append(part.take(rows[low:high] - starts[group]))
        return join(taken)

    def ordered(
        self, size: int, seed: Seed | None = None, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Examples]:
        """Yield the rows from place `start` of their order on, those of `size` places at a time: as stored,
        or in the order of `readers` that shuffle.

        Args:
            size: Number of places.
            seed: Seed of the order.
            start: Place of the first row.
            share: Rest and divisor of the places whose rows are wanted; where there are none, nothing is
                yielded. Only the readers of these places read.
        """
        order, rows, seeds = np.arange(len(self._groups)), self.window_rows, [None]
        if seed is not None:
            key = [seed] if isinstance(seed, int) else [*seed]
            order, rows = np.random.default_rng([*key, 0]).permutation(order), rows // self.readers
            seeds = [[*key, 1 + number] for number in range(self.readers)]
        read = partial(self._pieces, self._opened())
        readers = [
            StretchReader(pieces, rows, read, seed)
            for pieces, seed in zip(stretches(self._sizes, order, len(seeds)), seeds, strict=True)
        ]
        for low in range(start, len(self), size):
            first, end = low + (share[0] - low) % share[1], min(low + size, len(self))
            places = np.arange(first, end, share[1])
            if len(places):
                yield rows_at(places, readers)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """Rows of each row group of all shards. Shape (G,)."""
        sizes = [self._shards[shard].row_group(number).num_rows for shard, number in self._groups]
        return np.array(sizes, np.int64)

    @cached_property
    def _groups(self) -> list[tuple[str, int]]:
        """Shard of each row group, and its number in there. Shape (G,)."""
        return [(shard, n) for shard, meta in self._shards.items() for n in range(meta.num_row_groups)]

    @cached_property
    def _stores(self) -> dict[str, Store]:
        """Where each shard is, in the order of the rows."""
        stores = map(Store.of, (self.path, *self.later))
        return {shard: store for store in stores for shard in store.sizes()}

    @cached_property
    def _shards(self) -> dict[str, pq.FileMetaData]:
        """Metadata of each shard at the first look, in the order of the rows."""
        read = in_turn(
            lambda shard: self._stores[shard].open(shard).metadata, self._stores, OPENING, 2 * OPENING
        )
        shards = dict(zip(self._stores, read, strict=True))
        if not shards:
            raise DataError(self.path, "must hold shards (*.parquet), found none; make the run's data again")
        first, *others = ((path, meta.schema.to_arrow_schema()) for path, meta in shards.items())
        for path, schema in others:
            _check_schema(path, schema, *first)
        return shards

    @cached_property
    def _schema(self) -> pa.Schema:
        """Columns of every shard."""
        return next(iter(self._shards.values())).schema.to_arrow_schema()

    def _opened(self) -> Open:
        """Return what opens shards for one pass over the rows, and keeps some open."""
        return lru_cache(OPEN_SHARDS)(self._open)

    def _open(self, shard: str) -> pq.ParquetFile:
        """Open a shard, and refuse another one that has taken its place."""
        file = self._stores[shard].open(shard)
        if not file.metadata.equals(self._shards[shard]):
            raise DataError(
                shard,
                "must stay unchanged while it is read, found other rows than before; make the run's data "
                "again",
            )
        return file

    def _table(self, opened: Open, group: int) -> pa.Table:
        shard, number = self._groups[group]
        with readable(shard):
            return opened(shard).read_row_group(number)

    def _pieces(self, opened: Open, pieces: Sequence[Piece]) -> Examples:
        tables = (self._table(opened, piece.group).slice(piece.first, piece.rows) for piece in pieces)
        return self._examples(pa.concat_tables(tables))

    def _examples(self, table: pa.Table) -> Examples:
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
            moment=columns.get("moment"),
        )


def _check_schema(path: str, schema: pa.Schema, first: str, expected: pa.Schema) -> None:
    """Check that a shard has the columns of the first one.

    Raises:
        DataError: It has others, or in another order.
    """
    for number, fields in enumerate(zip_longest(expected, schema), 1):
        rule, found = (
            f"{field.name} {field.type}{'' if field.nullable else ' not null'}" if field else "none"
            for field in fields
        )
        if found != rule:
            raise DataError(
                f"{path}, column {number}",
                f"must be as in {Path(first).name}, {rule}, found {found}; write all shards in the same way",
            )


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
