"""What models are made for and what they are fed: the specification of the data, and batches of examples.

Batches are shuffled with a seed and gathered from the graph in blocks, ahead of the training thread.

Axes: `N` examples, `B` batch, `T` tasks.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.arrays import fence
from mgoe._util.prefetch import prefetched
from mgoe.config import TaskSettings
from mgoe.data import Encoders, ExampleFile, Examples, FeatureEncoders, Prepared, Split, join
from mgoe.errors import TrainingError
from mgoe.features import GROUPS, Arrays, CategoricalSpec, FeatureSpec, Reader, TaskSpec, View, input_groups
from mgoe.features.moments import WindowMoments
from mgoe.features.rates import spec_of
from mgoe.graph import MacroGraph
from mgoe.graph.moments import Moments
from mgoe.models import Batch
from mgoe.training.distributed.process_group import ALONE, ProcessGroup

CPU = torch.device("cpu")

BLOCK_ROWS = 65_536
"""Rows gathered at once: 16 batches of the default size, so that the thread seldom needs the interpreter.
Several blocks are held at a time, so a block of streamed examples is at most half a window."""
RARE_ROWS = 50
"""Training rows per value below which a category of an exposure log is rare (ours): on KuaiRand an embedding
of 6,500 authors from 107,000 rows overfits within an epoch."""
MOMENT_BLOCK = 8_192
"""Rows that are read at moments at once, each with its own edges."""
MOMENT_ROWS = 200_000
"""Training examples that means and deviations are estimated from."""


class Feed:
    """The examples of one split, as batches for one model.

    Args:
        encoders: Side features, such as those of prepared data.
        graph: Snapshots; an example reads its own.
        examples: What to feed, in memory or streamed.
        needs: Input groups that the model reads.
        spec: Specification that the model was made for.
        moments: How nodes change after each snapshot, where examples have moments; by default what the
            prepared log says.

    Example:
        >>> valid = Feed(prepared, graph, prepared.examples("valid"), frozenset({"counts"}), spec)
        >>> next(valid.batches(batch_size=4))["user"].shape
        torch.Size([4])
    """

    def __init__(
        self,
        encoders: Encoders,
        graph: MacroGraph,
        examples: Examples | ExampleFile,
        needs: frozenset[str],
        spec: FeatureSpec,
        moments: Mapping[int, Moments] | None = None,
    ):
        self.graph = graph
        self.examples = examples
        self.spec = spec
        self._sides = encoders.user_side, encoders.item_side
        self._moments: Mapping[int, Moments] = moments or (
            WindowMoments(encoders, graph) if isinstance(encoders, Prepared) else {}
        )
        self._read = Reader(needs, spec)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def order(self) -> dict[str, int]:
        """What decides the order of streamed examples besides themselves and the seed; nothing if all are in
        memory."""
        if not isinstance(self.examples, ExampleFile):
            return {}
        return {"shuffled together": self.examples.window_rows, "readers": self.examples.readers}

    def batches(
        self,
        batch_size: int,
        shuffle_seed: int | Sequence[int] | None = None,
        device: torch.device = CPU,
        start: int = 0,
        processes: ProcessGroup = ALONE,
        rows: slice | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield every example once, in order or in the order of a seed; the last batch may be smaller.

        Args:
            batch_size: Rows per batch, over all processes.
            shuffle_seed: Key of the permutation, such as (seed, epoch). Without it, examples are in order.
            device: Device of the batches. The thread copies a whole block from page-locked memory, without
                waiting.
            start: Number of batches to skip, for a fit that resumes after them.
            processes: This process gets every `size`-th row of each batch; `batch_size` is a multiple of
                `size`.
            rows: Yield only these rows, in order.
        """
        rows_at_once = min(BLOCK_ROWS, self.order.get("shuffled together", 2 * BLOCK_ROWS) // 2)
        size = max(1, rows_at_once // batch_size) * batch_size
        first, last = (start * batch_size, len(self)) if rows is None else (rows.start, rows.stop)
        share = processes.rank, processes.size
        chunks = _until(self.examples.ordered(size, shuffle_seed, first, share), last - first)
        blocks = (
            (to_device(self._inputs_of(mine), device), counts)
            for mine, counts in self._shares(chunks, range(first, last, size), batch_size, processes)
        )
        with closing(prefetched(blocks)) as ready:
            for block, counts in ready:
                for low, high in pairwise(np.cumsum([0, *counts]).tolist()):
                    yield {name: tensor[low:high] for name, tensor in block.items()}

    def _shares(
        self, chunks: Iterator[Examples], starts: range, batch_size: int, processes: ProcessGroup
    ) -> Iterator[tuple[Examples, list[int]]]:
        """Yield this process' rows of chunks of whole batches, and their number per batch.

        The number is at least one: a batch that is too small for all processes gets a row without weight.

        Args:
            chunks: This process' rows; none of a chunk in which it has none.
            starts: Places of the first rows of chunks, over all processes.
            batch_size: Rows per batch, over all processes.
            processes: The processes.
        """
        for start in starts:
            left = min(starts.step, starts.stop - start)
            sizes = [min(batch_size, left - first) for first in range(0, left, batch_size)]
            counts = [len(range(processes.rank, rows, processes.size)) for rows in sizes]
            mine = [next(chunks)] if any(counts) else []
            if counts[-1] == 0:
                spare = self.examples.take(np.zeros(1, np.int64))
                mine.append(replace(spare, weight=np.zeros_like(spare.weight)))
                counts[-1] = 1
            yield join(mine), counts

    def block(self, rows: np.ndarray) -> Batch:
        """Return the given examples in the given order, which must be rising if examples are streamed."""
        return self._inputs_of(self.examples.take(rows))

    def _inputs_of(self, examples: Examples) -> Batch:
        """Return what a model reads of examples. Rows of one snapshot are gathered together."""
        by_snapshot = np.argsort(examples.snapshot, kind="stable")
        numbers, starts = np.unique(examples.snapshot[by_snapshot], return_index=True)
        block: Arrays = {}
        for number, places in zip(numbers, np.split(by_snapshot, starts[1:]), strict=True):
            part = examples if len(numbers) == 1 else examples.take(places)
            arrays = self._read_snapshot(int(number), part)
            if len(numbers) == 1:
                block = arrays
                break
            for name, values in arrays.items():
                if name not in block:
                    block[name] = np.empty((len(examples), *values.shape[1:]), values.dtype)
                block[name], values = as_wide(block[name], values)
                block[name][places] = values
        for name in ("position", "labels", "weight"):
            if (values := getattr(examples, name)) is not None:
                block[name] = values
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in block.items()}

    def _read_snapshot(self, number: int, part: Examples) -> Arrays:
        """Return the inputs of examples of one snapshot, by batch key."""
        view = View.of(self.graph.snapshots[number], *self._sides)
        if part.moment is None:
            return self._read(view, part.user, part.item, part.context)
        view = replace(view, moments=self._moments[number])
        arrays: list[Arrays] = []
        for start in range(0, len(part), MOMENT_BLOCK):
            some = part.take(np.arange(start, min(start + MOMENT_BLOCK, len(part))))
            arrays.append(self._read(view, some.user, some.item, some.context, some.moment))
        return {name: np.concatenate(as_wide(*(one[name] for one in arrays))) for name in arrays[0]}


def as_wide(*arrays: NDArray) -> list[NDArray]:
    """Return lists of several categories per row in one length, padded with -1; other arrays stay.

    Rows that are read at different times may have lists of different lengths.
    """
    width = max(array.shape[1] if array.ndim > 1 else 0 for array in arrays)
    if all(array.ndim == 1 or array.shape[1] == width for array in arrays):
        return [*arrays]
    return [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=-1) for array in arrays]


def some_rows(total: int, number: int, seed: int) -> NDArray[np.int64]:
    """Return a seeded, rising sample of `number` of `total` rows, or all rows if there are fewer.

    Memory follows the sample.

    Example:
        >>> [len(some_rows(total, 3, seed=0)) for total in (2, 10)]
        [2, 3]
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


def make_spec(
    prepared: Prepared,
    graph: MacroGraph,
    needs: Collection[str] = GROUPS,
    learned: Sequence[Split] = ("train",),
) -> FeatureSpec:
    """The specification of data that models are made for.

    Moments come from the examples that a model learns alone. A user or item that the log holds only after
    them has no row of its own in the embedding tables: it reads the row of the unseen, in evaluation as in
    service. One of the history alone has a row, which no example moves.

    Args:
        prepared: Examples, side features and sizes.
        graph: Snapshots of the same data.
        needs: Input groups whose widths and moments are wanted; all built-in ones that have any by default.
        learned: The splits that a model learns, in the order of time.

    Raises:
        TrainingError: There is no example to learn.

    Example:
        >>> spec = make_spec(prepared, graph)
        >>> [task.name for task in spec.tasks]
        ['click', 'buy']
    """
    sizes = sizes_until(prepared, learned[-1])
    return spec_of_rows(prepared, graph, needs, prepared.streamed(learned), *sizes)


def spec_of_rows(
    prepared: Prepared,
    graph: MacroGraph,
    needs: Collection[str],
    examples: Examples | ExampleFile,
    n_users: int,
    n_items: int,
) -> FeatureSpec:
    """Return what `make_spec` does for rows of any splits, which a model learns.

    Args:
        prepared, graph, needs: As for `make_spec`.
        examples: The rows.
        n_users, n_items: Users and items that have rows in embedding tables, those of the smallest indices.

    Raises:
        TrainingError: There is no example to learn.

    Example:
        >>> spec = spec_of_rows(prepared, graph, ["counts"], prepared.examples("valid"), n_users=5, n_items=7)
        >>> spec.n_users, spec.n_items
        (5, 7)
    """
    if len(examples) == 0:
        raise TrainingError(
            "training examples",
            "there must be at least one, found none; widen the time range or move split.cuts",
        )
    some = examples.take(some_rows(len(examples), MOMENT_ROWS, 0))
    sample = some.labels
    top = np.array([fence(column) for column in sample.T])
    near = np.nan_to_num(np.fmax.reduce(np.minimum(sample, top)))  # so that no digits of squares are lost
    sums, positions = np.zeros((3, len(top))), 0  # no position where the log has none
    for part in examples.parts():
        labels = np.minimum(part.labels, top) - near
        sums += [(~np.isnan(labels)).sum(0), np.nansum(labels, 0), np.nansum(labels**2, 0)]
        if part.position is not None and len(part):
            positions = max(positions, int(part.position.max()) + 1)
    latest = graph.snapshots[-1]
    most = 0.0 if latest.rates is None else len(examples) / RARE_ROWS  # values of a category
    spec = FeatureSpec(
        tasks=_tasks(prepared, top, near, sums),
        n_users=n_users,
        n_items=n_items,
        macro_users=latest.macro_users,
        macro_items=latest.macro_items,
        recents=graph.manifest.settings.recents,
        widths={},
        moments={},
        user_side=_categories(prepared.user_side.encoders, most),
        item_side=_categories(prepared.item_side.encoders, most),
        context=_categories(prepared.context_features, most),
        positions=positions,
        rates=() if latest.rates is None else tuple(map(spec_of, latest.rates.groups)),
        task_mask_scores=tuple(graph.task_mask_scores),
    )
    keys = {
        name: [key.name for key in group.keys(spec) if key.kind == "dense"]
        for name, group in input_groups(needs).items()
        if not group.fresh or (some.moment is not None and latest.rates is None)
    }
    feed = Feed(prepared, graph, examples, frozenset(name for name in keys if keys[name]), spec)
    sample = feed.block(some_rows(len(examples), MOMENT_ROWS, 0))
    dense = {key: sample[key].double() for name in keys for key in keys[name] if key in sample}
    return replace(
        spec,
        widths={key: values.shape[1] for key, values in dense.items()},
        moments={
            key: (tuple(values.mean(0).tolist()), tuple(values.std(0, correction=0).tolist()))
            for key, values in dense.items()
        },
    )


def sizes_until(prepared: Prepared, split: Split) -> tuple[int, int]:
    """Return how many users and items the log holds before a split ends.

    Example:
        >>> sizes_until(prepared, "test") == (prepared.users.size, prepared.items.size)
        True
    """
    # the number of the snapshot that holds every window of the split; the last one holds the whole log
    known = {"train": prepared.valid_window, "valid": prepared.valid_window + 1, "test": -1}[split]
    return int(prepared.users_at[known]), int(prepared.items_at[known])


def _tasks(prepared: Prepared, top: NDArray, near: NDArray, sums: NDArray) -> tuple[TaskSpec, ...]:
    """Return the tasks with the moments of their labels.

    Args:
        prepared: Has their settings.
        top: Largest label that counts. Shape (T,).
        near: Subtracted from labels. Shape (T,).
        sums: Number of labels, their sum, and that of their squares. Shape (3, T).
    """
    mean, square = sums[1:] / np.maximum(sums[0], 1)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    settings = [TaskSettings.model_validate(task) for task in prepared.settings["tasks"]]
    names = [task.name for task in settings]
    return tuple(
        TaskSpec(
            name=task.name,
            kind=task.kind,
            weight=task.weight,
            given=None if task.given is None else names.index(task.given),
            mean=float(near[t] + mean[t]),
            std=float(std[t]) or 1.0,
            top=float(top[t]),
        )
        for t, task in enumerate(settings)
    )


def _categories(encoders: FeatureEncoders, most: float) -> tuple[CategoricalSpec, ...]:
    sizes = encoders.sizes
    return tuple(
        CategoricalSpec(
            feature.name,
            sizes[feature.name],
            multi=feature.kind == "multi",
            rare=sizes[feature.name] > most > 0,
        )
        for feature in encoders.features
        if feature.name in sizes
    )
