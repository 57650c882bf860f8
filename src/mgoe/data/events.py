"""Event logs: what happened, one behaviour per row, and the negatives that are sampled for it.

Negatives are from the same bucket, and seeded so that later events change no earlier draw.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts
from mgoe.config import DataSettings, NegativeSettings, RunSettings, did_you_mean, seconds
from mgoe.data.columns import Expr, Table
from mgoe.data.example_file import ExampleWriter
from mgoe.data.following import sample_at_moments
from mgoe.errors import DataError

BLOCK = 4_000_000
"""Positives and draws in memory at once."""
LARGEST = 1_000_000
"""Positives in memory at once, however few draws each has."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def task_masks(settings: RunSettings) -> dict[str, int]:
    """Return the mask of the tasks that each behaviour does: bit t is set for task t.

    In an exposure log each task is a behaviour of its own name.

    Example:
        >>> from mgoe.config import make_settings
        >>> tasks = ["click", {"name": "buy", "behaviors": ["buy", "repurchase"]}]
        >>> task_masks(make_settings({"data": {"log": "clicks.parquet"}, "tasks": tasks}))
        {'click': 1, 'buy': 2, 'repurchase': 2}
    """
    masks: dict[str, int] = {}
    for t, task in enumerate(settings.tasks):
        for behavior in task.done_by if settings.form == "events" else [task.name]:
            masks[behavior] = masks.get(behavior, 0) | 1 << t
    return masks


def check_behaviors(counts: Mapping[str, int], settings: RunSettings, place: str) -> None:
    """Refuse a log in which a behaviour that a task names never happens.

    Args:
        counts: Rows of each behaviour in the log.
        settings: Settings of the run.
        place: What the log is, for messages.

    Raises:
        DataError: A behaviour never happens.
    """
    for task in settings.tasks:
        for behavior in task.done_by:
            if behavior not in counts:
                raise DataError(
                    place,
                    f"every task must happen: found none of {behavior!r} in column "
                    f"{settings.data.behavior!r}{did_you_mean(behavior, list(counts))}; "
                    f"fix tasks.{task.name}.behaviors",
                )


def behavior_counts(rows: Table) -> dict[str, int]:
    """Return the number of rows of each behaviour."""
    counted = rows.group_by("behavior").aggregate(n=rows.count()).order_by("behavior").to_pyarrow()
    return dict(zip(counted["behavior"].to_pylist(), counted["n"].to_pylist(), strict=True))


def with_task_mask(rows: Table, masks: Mapping[str, int]) -> Table:
    """Return the rows whose behaviour does a task, with `task_mask` in place of `behavior`."""
    return rows.filter(rows.behavior.isin(list(masks))).select(
        *(name for name in rows.columns if name != "behavior"),
        task_mask=ibis.cases(
            *((rows.behavior == behavior, ibis.literal(m, "int32")) for behavior, m in masks.items())
        ),
    )


def rows_per_task(rows: Table, key: Expr, masks: Mapping[Any, int]) -> Table:
    """Return one row per event and task, with `task` as int8: an event that does several tasks is repeated.

    Args:
        rows: The events.
        key: A column of the events.
        masks: The mask of the tasks that an event does, by its value of `key`.
    """
    parts, rest = [], dict(masks)
    while rest:  # once where every behaviour does one task
        weakest = {value: (mask & -mask).bit_length() - 1 for value, mask in rest.items()}
        task = ibis.cases(
            *((key == value, ibis.literal(t, "int64")) for value, t in weakest.items()), else_=0
        )
        parts.append(rows.filter(key.isin(list(rest))).mutate(task=task.cast("int8")))
        rest = {value: mask & (mask - 1) for value, mask in rest.items() if mask & (mask - 1)}
    return ibis.union(*parts)


@ibis.udf.agg.builtin
def bit_or(mask: dt.int32) -> dt.int32:  # pyright: ignore[reportInvalidTypeForm]
    """The function of DuckDB and of Spark, where Ibis has none of its own."""


def positives(rows: Table, history: str = "cut") -> Table:
    """Return the events of a user on an item in a bucket as one row, with the union of their task masks.

    With `history: moment` it has `moment`, the time of the first of them, and `known`, the time
    of the first event of the item (microseconds).
    """
    mask = bit_or(rows.task_mask).cast("int32")
    pairs = rows.group_by(["bucket", "user", "item"])
    if history != "moment":
        return pairs.aggregate(task_mask=mask)
    first = rows.group_by("item").aggregate(known=rows.time.min())
    return pairs.aggregate(task_mask=mask, moment=rows.time.min()).inner_join(first, "item")


def uniforms(seed: int, buckets: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), each a function of (seed, bucket, draw) alone.

    SplitMix64 (Steele et al. 2014) as a counter: buckets need no loop, and no draw depends on those before
    it.

    Args:
        seed: Seed of the run.
        buckets: Bucket number. Shape (n,).
        draws: Number of the draw within its bucket. Shape (n,).
    """
    keys = _mix(
        _mix(np.full(1, seed, dtype=np.int64).astype(np.uint64)) + buckets.astype(np.uint64) * _GOLDEN
    )
    return (_mix(keys + draws.astype(np.uint64) * _GOLDEN) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Pools:
    """The items that negatives are drawn from: those of whole buckets.

    Args:
        item: Items of all positives of some buckets, sorted by bucket, user, item. Shape (n,).
        bucket: Bucket of each. Shape (n,).
        distribution: See `NegativeSettings`.

    Attributes:
        buckets: Bucket numbers, rising. Shape (b,).
        first: The first positive of each. Shape (b,).
        items: Items of all buckets, bucket by bucket. Shape (p,).
        start: Where each bucket's items start. Shape (b,).
        count: How many items each bucket has. Shape (b,).
    """

    def __init__(self, item: NDArray[np.int64], bucket: NDArray[np.int64], distribution: str):
        self.buckets, self.first, self.count = np.unique(bucket, return_index=True, return_counts=True)
        self.items, self.start = item, self.first
        if distribution == "uniform":
            pairs = np.unique(np.stack([bucket, item], axis=1), axis=0)
            self.items = pairs[:, 1]
            self.count = np.unique(pairs[:, 0], return_counts=True)[1]
            self.start = np.cumsum(self.count) - self.count


def sample_negatives(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    bucket: NDArray[np.int64],
    settings: NegativeSettings,
    pools: Pools | None = None,
    before: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw items of the same bucket for each positive; drop a draw that the user did in that bucket.

    Args:
        user: User of each positive. Positives are distinct and sorted by bucket, user, item. Shape (n,).
        item: Item of each positive. Shape (n,).
        bucket: Bucket of each positive. Shape (n,).
        settings: Ratio, distribution and seed.
        pools: Pools of the whole buckets, if these positives are those of only some of their users.
        before: Number of positives of `pools` before these.

    Returns:
        For each negative kept, the row of its positive (which gives user and bucket) and its item. Shape (m,)
        each.
    """
    pools = pools or Pools(item, bucket, settings.distribution)
    group = np.searchsorted(pools.buckets, bucket)  # (n,) ordinal of the bucket
    source = np.repeat(np.arange(len(user)), settings.ratio)
    draw = np.arange(len(source)) + (before - pools.first[group[source]]) * settings.ratio
    place = (uniforms(settings.seed, bucket[source], draw) * pools.count[group[source]]).astype(np.int64)
    drawn = pools.items[pools.start[group[source]] + place]
    done = _pair_keys(group, user, item, group[source], user[source], drawn)
    kept = ~np.isin(done[len(user) :], done[: len(user)])
    return source[kept], drawn[kept]


def blocks(counts: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Split buckets into runs [from, to) of about `size` rows."""
    edges = np.flatnonzero(np.diff((np.cumsum(counts) - 1) // size, prepend=-1))
    yield from zip(edges.tolist(), [*edges[1:].tolist(), len(counts)], strict=True)


def write_event_examples(
    found: Table,
    buckets: NDArray[np.int64],
    counts: NDArray[np.int64],
    first: int,
    cuts: NDArray[np.int32],
    settings: RunSettings,
    writer: ExampleWriter,
) -> None:
    """Write positives and their sampled negatives, in blocks of whole buckets; a long bucket in parts of
    whole users.

    Args:
        found: What `positives` returned.
        buckets: Buckets with positives, rising. Shape (b,).
        counts: Positives in each. Shape (b,).
        first: The last bucket without examples.
        cuts: Bucket number of each cut.
        settings: Settings of the run.
        writer: Where the examples go.
    """
    negatives, tasks = settings.negatives, len(settings.tasks)
    size = block_size(negatives)
    end = cuts[settings.split.valid_window]
    training, evaluated = (buckets > first) & (buckets <= end), buckets > end
    for part, sampling in ((training, negatives.of_training), (evaluated, negatives)):
        for low, high in blocks(counts[part], size):
            ends = int(buckets[part][low]), int(buckets[part][high - 1])
            rows = found.filter(found.bucket.between(*ends)).order_by(["bucket", "user", "item"])
            for columns in examples_of(rows.to_pyarrow(), sampling, tasks, settings.data):
                writer.write(**columns)


def block_size(settings: NegativeSettings) -> int:
    """Return how many positives are in memory at once, with their draws."""
    return max(1, min(LARGEST, BLOCK // (1 + settings.ratio)))


def examples_of(
    whole: pa.Table, settings: NegativeSettings, tasks: int, data: DataSettings
) -> Iterator[dict[str, Any]]:
    """Yield user, item, bucket and labels of the examples of whole buckets, in the order of a file; and the
    moment that each is read strictly before, unless all read up to the cut.

    Args:
        whole: The positives of these buckets, sorted by bucket, user, item. A table much longer than
            `block_size` is divided between users.
        settings: How their negatives are drawn.
        tasks: Number of tasks.
        data: Says what a row reads.
    """
    size, lag = block_size(settings), seconds(data.lag) * 1_000_000
    user, item, bucket = (whole[name].to_numpy() for name in ("user", "item", "bucket"))
    if data.history == "moment":
        time, known = (whole[name].to_numpy() for name in ("moment", "known"))
        given = user.astype(np.int64), item.astype(np.int64), bucket.astype(np.int64), time - lag, known
        done, source, drawn = sample_at_moments(*given, settings, uniforms)
        rows, masks = np.r_[done, source], np.zeros(len(done) + len(source), np.int64)
        masks[: len(done)] = whole["task_mask"].to_numpy()[done]
        yield _in_order(user[rows], np.r_[item[done], drawn], bucket[rows], masks, tasks, time[rows] - lag)
        return
    pools = Pools(item, bucket, settings.distribution)
    rows_of_part = size if len(whole) >= 2 * size else len(whole)
    for start, end in itertools.pairwise(_whole_users(user, bucket, rows_of_part)):
        columns = _examples(whole[start:end], settings, tasks, pools, start)
        if data.history == "bucket":
            columns["moment"] = columns["bucket"] * seconds(data.bucket) * 1_000_000 - lag
        yield columns


def whole_buckets(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yield rows that are sorted by bucket as tables of at least `size` rows, without dividing a bucket."""
    held, rows, last = list[pa.RecordBatch](), 0, None
    for batch in batches:
        bucket = batch.column("bucket").to_numpy()
        start = int(np.searchsorted(bucket, bucket[-1]))
        if rows >= size and (start or bucket[0] != last):
            yield pa.Table.from_batches([*held, batch[:start]])
            held, rows, batch = [], 0, batch[start:]
        held, rows, last = [*held, batch], rows + len(batch), bucket[-1]
    if held:
        yield pa.Table.from_batches(held)


def _whole_users(user: NDArray[np.int64], bucket: NDArray[np.int32], size: int) -> list[int]:
    """Return where parts of about `size` rows begin and end, with the rows of a user in a bucket together."""
    begins = np.flatnonzero(run_starts(user, bucket))
    wanted = np.searchsorted(begins, np.arange(0, len(user), size), side="right") - 1
    return [*np.unique(begins[wanted]).tolist(), len(user)]


def _examples(
    block: pa.Table, settings: NegativeSettings, tasks: int, pools: Pools, before: int
) -> dict[str, Any]:
    user, item, bucket, done = (
        block[name].to_numpy().astype(np.int64) for name in ("user", "item", "bucket", "task_mask")
    )
    source, drawn = sample_negatives(user, item, bucket, settings, pools, before)
    rows, masks = np.r_[np.arange(len(user)), source], np.r_[done, np.zeros(len(source), np.int64)]
    return _in_order(user[rows], np.r_[item, drawn], bucket[rows], masks, tasks)


def _in_order(
    user: NDArray, item: NDArray, bucket: NDArray, masks: NDArray, tasks: int, moment: NDArray | None = None
) -> dict[str, Any]:
    """Return columns of examples in the order of a file."""
    order = np.lexsort((masks == 0, item, user, bucket))
    labels = (masks[order, None] >> np.arange(tasks) & 1).astype(np.float32)
    columns = {"user": user[order], "item": item[order], "bucket": bucket[order], "labels": labels}
    return columns if moment is None else columns | {"moment": moment[order]}


def _pair_keys(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number for each distinct (bucket, user, item) of the positives followed by the negatives."""
    group, user, item = (np.concatenate(pair) for pair in zip(columns[:3], columns[3:], strict=True))
    _, pair = np.unique(user * (item.max(initial=0) + 1) + item, return_inverse=True)
    return group * (pair.max(initial=0) + 1) + pair


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
