"""Batches from examples: shuffled with a seed, gathered from the graph in blocks, ahead of the training thread.

Axes: `N` examples, `B` batch, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mgoe.config import InputGroup
from mgoe.training.assemble import Arrays, assemble
from mgoe.training.prefetch import prefetch

if TYPE_CHECKING:
    from mgoe.data import Examples, Prepared
    from mgoe.graph import MacroGraph
    from mgoe.models import FeatureSpec

Batch = dict[str, Tensor]
Batches = Generator[Batch, None, None]
CPU = torch.device("cpu")

BLOCK_ROWS = 65_536
"""Gathered at once: 16 batches of the default size, so that the thread seldom needs the interpreter."""


class Feed:
    """The examples of one split, as batches for one model.

    Args:
        prepared: Side features.
        graph: Snapshots; an example reads its own.
        examples: What to feed.
        needs: Groups the model reads.
        spec: What the model was made for.
    """

    def __init__(self, prepared: Prepared, graph: MacroGraph, examples: Examples, needs: frozenset[InputGroup], spec: FeatureSpec):
        self.examples = examples
        self.spec = spec
        self._graph = graph
        self._needs = needs
        self._sides = {"user_side": prepared.user_side, "item_side": prepared.item_side}

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batch_size: int, shuffle_seed: int | Sequence[int] | None = None, device: torch.device = CPU) -> Batches:
        """Every example once, in order or in the order of a seed; the last batch may be smaller.

        Args:
            batch_size: Rows a batch.
            shuffle_seed: Key of the permutation, such as (seed, epoch). In order where not given.
            device: Where the batches are to be. The thread copies a block at once, from page-locked memory, without waiting.
        """
        order = epoch_order(len(self), shuffle_seed)
        size = max(1, BLOCK_ROWS // batch_size) * batch_size
        blocks = (to_device(self.block(order[start : start + size]), device) for start in range(0, len(order), size))
        with closing(prefetch(blocks)) as ready:
            for block in ready:
                for start in range(0, len(block["weight"]), batch_size):
                    yield {name: tensor[start : start + batch_size] for name, tensor in block.items()}

    def block(self, rows: np.ndarray) -> Batch:
        """The given examples in the given order. Rows of one snapshot are gathered together."""
        examples = self.examples.take(rows)
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
                    block[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
                block[name][places] = values
        if examples.position is not None:
            block["position"] = examples.position
        block["labels"] = examples.labels
        block["weight"] = examples.weight
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in block.items()}

    def _inputs(self, examples: Examples, snapshot: int) -> Arrays:
        return assemble(
            self._graph.snapshots[snapshot],
            examples.user,
            examples.item,
            examples.context,
            needs=self._needs,
            spec=self.spec,
            **self._sides,
        )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; itself on a CPU."""
    if device.type == "cpu":
        return batch
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def epoch_order(count: int, shuffle_seed: int | Sequence[int] | None) -> np.ndarray:
    """Rows of an epoch: 0 to count - 1, permuted by the seed where there is one. Shape (N,)."""
    return np.arange(count) if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(count)
