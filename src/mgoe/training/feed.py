"""Batches from examples: shuffled with a seed, gathered from the graph in blocks, ahead of the training
thread.

Axes: `N` examples, `B` batch, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgoe._util.prefetch import prefetched
from mgoe.data import ExampleFile, Examples, join
from mgoe.features import Arrays, FeatureSpec, Reader, View
from mgoe.training.distributed.process_group import ALONE, ProcessGroup

if TYPE_CHECKING:
    from mgoe.data import Prepared
    from mgoe.graph import MacroGraph

Batch = dict[str, Tensor]
Batches = Generator[Batch, None, None]
CPU = torch.device("cpu")

BLOCK_ROWS = 65_536
"""Rows gathered at once: 16 batches of the default size, so that the thread seldom needs the interpreter.
Several blocks are held at a time, so a block of streamed examples is at most half a window."""


class Feed:
    """The examples of one split, as batches for one model.

    Args:
        prepared: Side features.
        graph: Snapshots; an example reads its own.
        examples: What to feed, in memory or streamed.
        needs: Input groups that the model reads.
        spec: Specification that the model was made for.
    """

    def __init__(
        self,
        prepared: Prepared,
        graph: MacroGraph,
        examples: Examples | ExampleFile,
        needs: frozenset[str],
        spec: FeatureSpec,
    ):
        self.examples = examples
        self.spec = spec
        self._graph = graph
        self._sides = prepared.user_side, prepared.item_side
        self._read = Reader(needs, spec)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def window(self) -> int | None:
        """Rows of streamed examples that are shuffled together, which decides their order; None if all are in
        memory."""
        return self.examples.window_rows if isinstance(self.examples, ExampleFile) else None

    @property
    def fingerprint(self) -> str:
        """Checksum of the graph that the examples read."""
        return self._graph.checksum

    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | Sequence[int] | None = None,
        device: torch.device = CPU,
        start: int = 0,
        processes: ProcessGroup = ALONE,
        rows: slice | None = None,
    ) -> Batches:
        """Yield every example once, in order or in the order of a seed; the last batch may be smaller.

        Args:
            batch_size: Rows per batch, over all processes.
            shuffle_seed: Key of the permutation, such as (seed, epoch). Without it, examples are in order.
            device: Device of the batches. The thread copies a whole block from page-locked memory, without
                waiting.
            start: Number of batches to skip, for a fit that resumes after them.
            processes: This process gets every `size`-th row of each batch.
            rows: Yield only these rows, in order.
        """
        rows_at_once = BLOCK_ROWS if self.window is None else min(BLOCK_ROWS, self.window // 2)
        size = max(1, rows_at_once // batch_size) * batch_size
        first, last = (start * batch_size, len(self)) if rows is None else (rows.start, rows.stop)
        chunks = _until(self.examples.ordered(size, shuffle_seed, first), last - first)
        blocks = (
            (to_device(self._inputs_of(mine), device), counts)
            for mine, counts in _shares(chunks, batch_size, processes)
        )
        with closing(prefetched(blocks)) as ready:
            for block, counts in ready:
                places = np.cumsum([0, *counts]).tolist()
                for low, high in pairwise(places):
                    yield {name: tensor[low:high] for name, tensor in block.items()}

    def block(self, rows: np.ndarray) -> Batch:
        """Return the given examples in the given order, which must be rising if examples are streamed."""
        return self._inputs_of(self.examples.take(rows))

    def _inputs_of(self, examples: Examples) -> Batch:
        """Return what a model reads of examples. Rows of one snapshot are gathered together."""
        by_snapshot = np.argsort(examples.snapshot, kind="stable")
        numbers, starts = np.unique(examples.snapshot[by_snapshot], return_index=True)
        block: Arrays = {}
        for number, places in zip(numbers, np.split(by_snapshot, starts[1:]), strict=True):
            part = self._inputs(examples if len(numbers) == 1 else examples.take(places), int(number))
            if len(numbers) == 1:
                block = part
                break
            for name, values in part.items():
                if name not in block:
                    block[name] = np.empty((len(examples), *values.shape[1:]), values.dtype)
                block[name][places] = values
        if examples.position is not None:
            block["position"] = examples.position
        block["labels"] = examples.labels
        block["weight"] = examples.weight
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in block.items()}

    def _inputs(self, examples: Examples, snapshot: int) -> Arrays:
        view = View.of(self._graph.snapshots[snapshot], *self._sides)
        return self._read(view, examples.user, examples.item, examples.context)


def some_rows(total: int, number: int, seed: int) -> NDArray[np.int64]:
    """Return a seeded, rising sample of `number` of `total` rows, or all rows if there are fewer.

    Memory follows the sample.
    """
    return np.sort(
        np.random.default_rng(seed).choice(total, min(total, number), replace=False, shuffle=False)
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on a device; on a CPU, the same batch."""
    if device.type == "cpu":
        return batch
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _until(chunks: Iterable[Examples], count: int) -> Iterator[Examples]:
    """Yield the first `count` rows of consecutive chunks."""
    for chunk in chunks:
        yield chunk if len(chunk) <= count else chunk.take(np.arange(count))
        count -= len(chunk)
        if count <= 0:
            return


def _shares(
    chunks: Iterable[Examples], batch_size: int, processes: ProcessGroup
) -> Iterator[tuple[Examples, list[int]]]:
    """Yield this process' rows of chunks of whole batches, and their number per batch.

    The number is at least one: a batch that is too small for all processes gives its last row without weight.
    """
    for chunk in chunks:
        sizes = [min(batch_size, len(chunk) - first) for first in range(0, len(chunk), batch_size)]
        if processes.size == 1:
            yield chunk, sizes
            continue
        of_batch = np.arange(len(chunk)) % batch_size
        counts = [
            -(-(rows - processes.rank) // processes.size) if rows > processes.rank else 0 for rows in sizes
        ]
        mine = chunk.take(np.flatnonzero(of_batch % processes.size == processes.rank))
        if counts[-1] == 0:
            spare = chunk.take(np.array([len(chunk) - 1]))
            mine, counts[-1] = join([mine, replace(spare, weight=np.zeros_like(spare.weight))]), 1
        yield mine, counts
