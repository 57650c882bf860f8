"""Examples: the rows that a model trains or is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.config import TaskSettings
from mgoe.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
GROUP_ROWS = 65_536
"""Rows of a file that are read together: few enough that a window of a streamed file holds many such groups."""


@dataclass(frozen=True)
class Examples:
    """Rows of one split, sorted by bucket, user and item, positives first.

    Args:
        user: Codes. Shape (N,).
        item: Codes. Shape (N,).
        bucket: Time buckets. int32, shape (N,).
        snapshot: The snapshot whose history each row reads. int16, shape (N,).
        labels: float32, NaN where missing. Shape (N, T).
        weight: float32. Shape (N,).
        context: Encoded context features by name: codes (N,), padded codes (N, L), or float32 (N,).
        position: Shown position, int64, shape (N,); None where the log has none.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    bucket: NDArray[np.int32]
    snapshot: NDArray[np.int16]
    labels: NDArray[np.float32]
    weight: NDArray[np.float32]
    context: dict[str, NDArray] = field(default_factory=dict)
    position: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray) -> Examples:
        """The rows named by numbers or by a mask."""
        return self.changed(lambda column: column[rows])

    def changed(self, change: Callable[[NDArray], NDArray]) -> Examples:
        """The same columns, each made anew."""
        context = {name: change(values) for name, values in self.context.items()}
        position = None if self.position is None else change(self.position)
        columns = (self.user, self.item, self.bucket, self.snapshot, self.labels, self.weight)
        return Examples(*map(change, columns), context=context, position=position)  # pyright: ignore[reportArgumentType]

    def columns(self) -> list[NDArray]:
        """Every column there is, in one order."""
        position = [] if self.position is None else [self.position]
        return [
            self.user,
            self.item,
            self.bucket,
            self.snapshot,
            self.labels,
            self.weight,
            *self.context.values(),
            *position,
        ]

    def parts(self) -> Iterator[Examples]:
        """All rows, in one part."""
        yield self

    def ordered(
        self, size: int, seed: int | Sequence[int] | None = None, start: int = 0
    ) -> Iterator[Examples]:
        """All rows from place `start` of their order on, `size` at a time: as they lie, or permuted by a seed."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for first in range(start, len(self), size):
            yield self.take(order[first : first + size])


def join(parts: Sequence[Examples]) -> Examples:
    """Rows of several examples, one after the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("user", "item", "bucket", "snapshot", "labels", "weight")
    }
    context = {name: np.concatenate([part.context[name] for part in parts]) for name in first.context}
    positions = [part.position for part in parts if part.position is not None]
    return Examples(**columns, context=context, position=np.concatenate(positions) if positions else None)


def mask_given(labels: NDArray[np.float32], tasks: Sequence[TaskSettings]) -> NDArray[np.float32]:
    """Labels outside their task's sample space become missing: those whose `given` task's label is not 1. Shape (N, T)."""
    labels = labels.copy()
    names = [task.name for task in tasks]
    for t, task in enumerate(tasks):  # a given task lies before, so its own space is cut already
        if task.given is not None:
            labels[labels[:, names.index(task.given)] != 1, t] = np.nan
    return labels


@dataclass
class Tally:
    """Counts of one split's rows, as they come in order.

    Args:
        examples: Rows.
        positives: Rows with a task done.
        user_buckets: Distinct users and buckets of these.
        age: Sum over rows of the buckets between a row and the end of the history that it reads.
        labels: Labels that are not missing. Shape (T,).
        done: Of these, above 0. Shape (T,).
    """

    labels: NDArray[np.int64]
    done: NDArray[np.int64]
    examples: int = 0
    positives: int = 0
    user_buckets: int = 0
    age: int = 0
    _last: tuple[int, int] | None = None

    def add(
        self, user: NDArray, bucket: NDArray, labels: NDArray[np.float32], age: NDArray[np.int64]
    ) -> None:
        """Count rows sorted by bucket and user, which follow those before."""
        self.examples += len(user)
        self.age += int(age.sum())
        self.labels += (~np.isnan(labels)).sum(axis=0)
        self.done += (labels > 0).sum(axis=0)
        positive = (labels > 0).any(axis=1)
        user, bucket = user[positive], bucket[positive]
        if not len(user):
            return
        self.positives += len(user)
        changes = int(((np.diff(user) != 0) | (np.diff(bucket) != 0)).sum())
        self.user_buckets += changes + (self._last != (int(user[0]), int(bucket[0])))
        self._last = int(user[-1]), int(bucket[-1])


class ExampleWriter:
    """Writes examples to one Parquet file a split as they come, whole sorted runs at a time.

    Args:
        folder: Where `train.parquet`, `valid.parquet` and `test.parquet` go.
        cuts: Bucket number of each cut. Shape (n,).
        tasks: In label order.
    """

    def __init__(self, folder: Path, cuts: NDArray[np.int32], tasks: Sequence[TaskSettings]):
        self._folder, self._cuts, self._tasks = folder, cuts, tasks
        self._writers: dict[Split, pq.ParquetWriter] = {}
        self.tallies: dict[Split, Tally] = {
            split: Tally(np.zeros(len(tasks), np.int64), np.zeros(len(tasks), np.int64)) for split in SPLITS
        }

    def write(
        self,
        user: NDArray,
        item: NDArray,
        bucket: NDArray,
        labels: NDArray[np.float32],
        weight: NDArray | None = None,
        position: NDArray | None = None,
        context: Mapping[str, NDArray] | None = None,
    ) -> None:
        """Write rows of any windows; those before the first cut are history only and left out."""
        snapshot = np.searchsorted(self._cuts, bucket, side="left") - 1
        labels = mask_given(labels, self._tasks)
        columns: dict[str, pa.Array] = {
            "user": pa.array(user, pa.int64()),
            "item": pa.array(item, pa.int64()),
            "bucket": pa.array(bucket, pa.int32()),
            "snapshot": pa.array(snapshot, pa.int16()),
            "weight": pa.array(np.ones(len(user), np.float32) if weight is None else weight, pa.float32()),
        }
        columns |= {
            f"label.{task.name}": pa.array(labels[:, t], pa.float32(), from_pandas=True)
            for t, task in enumerate(self._tasks)
        }
        if position is not None:
            columns["position"] = pa.array(position, pa.int64())
        columns |= {f"context.{name}": _column(values) for name, values in (context or {}).items()}
        table = pa.table(columns)
        last = len(self._cuts) - 1
        age = bucket.astype(np.int64) - self._cuts[snapshot]
        parts: dict[Split, NDArray[np.bool_]] = {
            "train": (snapshot >= 0) & (snapshot < last - 1),
            "valid": snapshot == last - 1,
            "test": snapshot == last,
        }
        for split, held in parts.items():
            rows = table.filter(pa.array(held))  # pyright: ignore[reportArgumentType]
            self._writer(split, table.schema).write_table(rows, row_group_size=GROUP_ROWS)
            self.tallies[split].add(user[held], bucket[held], labels[held], age[held])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, split: Split, schema: pa.Schema) -> pq.ParquetWriter:
        if split not in self._writers:
            self._writers[split] = pq.ParquetWriter(
                self._folder / f"{split}.parquet", schema, compression="zstd"
            )
        return self._writers[split]


def read_examples(path: Path, tasks: Sequence[str]) -> Examples:
    """Read one split's file, with little memory beside what its rows take.

    Raises:
        DataError: It is gone or damaged.
    """
    try:
        file = pq.ParquetFile(path)
        if file.num_row_groups <= 1:
            return of_table(file.read(), tasks)
        groups = (of_table(file.read_row_group(group), tasks) for group in range(file.num_row_groups))
        return _filled(groups, file.metadata.num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged_part(path, error) from None


def _filled(parts: Iterator[Examples], count: int) -> Examples:
    """So many rows, of parts that follow each other; but for one part at a time, they are held once."""
    part = next(parts)
    whole = part.changed(lambda column: np.empty((count, *column.shape[1:]), column.dtype))
    start = 0
    while part is not None:
        for column, values in zip(whole.columns(), part.columns(), strict=True):
            column[start : start + len(part)] = values
        start += len(part)
        part = next(parts, None)
    return whole


def damaged_part(path: Path, error: Exception) -> DataError:
    """What to say of a file of prepared data that cannot be read any more."""
    reason = " ".join(str(error).split())[:200]
    return DataError(path, f"cannot be read ({reason}); put the file back, or make the run's data again")


def of_table(table: pa.Table, tasks: Sequence[str]) -> Examples:
    """Examples of a table as `ExampleWriter` writes it."""
    columns = {name: _array(table[name].combine_chunks()) for name in table.column_names}
    labels = [columns[f"label.{task}"] for task in tasks]
    return Examples(
        user=columns["user"],
        item=columns["item"],
        bucket=columns["bucket"],
        snapshot=columns["snapshot"],
        labels=np.stack(labels, axis=1),
        weight=columns["weight"],
        context={
            name.removeprefix("context."): values
            for name, values in columns.items()
            if name.startswith("context.")
        },
        position=columns.get("position"),
    )


def _column(values: NDArray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _array(column: pa.Array) -> NDArray:
    if isinstance(column, pa.FixedSizeListArray):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    values = column.to_numpy(zero_copy_only=False)
    return values if values.flags.writeable else values.copy()
