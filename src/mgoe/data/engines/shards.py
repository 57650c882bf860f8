"""What Spark's workers run: each writes the rows of its partition as one shard.

A shard is a file like that of the local engine, with its row groups and its types, which Spark's own writer
has not.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.config import DataSettings, NegativeSettings, TaskSettings
from mgoe.data.events import block_size, examples_of, whole_buckets
from mgoe.data.example_file import GROUP_ROWS, example_table
from mgoe.data.exposures import example_columns
from mgoe.data.features import FeatureEncoders
from mgoe.data.readers import together

Batches = Iterable[pa.RecordBatch]
Make = Callable[[Batches], Iterator[pa.Table]]
"""Makes tables of the batches of a partition."""
SCHEMA = "number int, name string"
"""Columns that `write_shard` returns, in the words of Spark."""
ROWS = 8 * GROUP_ROWS
"""Rows that are written together."""


def write_shard(batches: Batches, folder: Path, make: Make) -> Iterator[pa.RecordBatch]:
    """Write what is made of a partition to a file of its own, if it has rows.

    A task that is repeated writes another file, and only the one that is returned counts.

    Args:
        batches: Of the partition.
        folder: Shared with the process that prepares.
        make: Makes tables of the batches.

    Yields:
        The number of the partition and the name of the file.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    number, name = 0 if context is None else context.partitionId(), f"{uuid.uuid4().hex}.parquet"
    tables = make(batch for batch in batches if len(batch))
    parts = map(pa.concat_tables, together(((table, len(table)) for table in tables), ROWS))
    if (first := next(parts, None)) is None:
        return
    with pq.ParquetWriter(folder / name, first.schema, compression="zstd") as writer:
        for part in chain([first], parts):
            writer.write_table(part, row_group_size=GROUP_ROWS)
    yield pa.record_batch({"number": pa.array([number], pa.int32()), "name": pa.array([name])})


def rows_as_they_are(batches: Batches) -> Iterator[pa.Table]:
    """Yield rows as tables."""
    for batch in batches:
        yield pa.Table.from_batches([batch])


def event_examples(
    batches: Batches,
    settings: NegativeSettings,
    cuts: NDArray[np.int32],
    tasks: Sequence[TaskSettings],
    data: DataSettings,
) -> Iterator[pa.Table]:
    """Yield examples of whole buckets.

    Args:
        batches: Of positives, sorted by bucket, user, item.
        settings: How negatives are drawn.
        cuts: Bucket number of each cut. Shape (n,).
        tasks: In label order.
        data: Says what a row reads.
    """
    for whole in whole_buckets(batches, block_size(settings)):
        for columns in examples_of(whole, settings, len(tasks), data):
            yield example_table(cuts, tasks, context=None, **columns)


def exposure_examples(
    batches: Batches, context: FeatureEncoders, cuts: NDArray[np.int32], tasks: Sequence[TaskSettings]
) -> Iterator[pa.Table]:
    """Yield exposures as examples.

    Args:
        batches: Of exposures in the order of examples.
        context: Encoders of the context features.
        cuts: Bucket number of each cut. Shape (n,).
        tasks: In label order.
    """
    names = [task.name for task in tasks]
    for batch in batches:
        yield example_table(cuts, tasks, **example_columns(batch, names, context))
