"""Sampled negatives of event logs: from the same bucket, and seeded so that later events change no earlier
draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgoe.config import NegativeSettings

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


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
    bits = _mix(keys + draws.astype(np.uint64) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Pools:
    """The items that negatives are drawn from: those of whole buckets.

    Attributes:
        buckets: Bucket numbers, rising. Shape (b,).
        first: The first positive of each. Shape (b,).
        items: Items of all buckets, bucket by bucket. Shape (p,).
        start: Where each bucket's items start. Shape (b,).
        count: How many items each bucket has. Shape (b,).
    """

    buckets: NDArray[np.int64]
    first: NDArray[np.int64]
    items: NDArray[np.int64]
    start: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, item: NDArray[np.int64], bucket: NDArray[np.int64], distribution: str) -> Pools:
        """Return the pools of all positives of some buckets, sorted by bucket, user, item. Shape (n,)
        each."""
        buckets, first, count = np.unique(bucket, return_index=True, return_counts=True)
        if distribution == "popularity":
            return cls(buckets, first, item, first, count)
        items, distinct = _distinct_per_bucket(item, bucket)
        return cls(buckets, first, items, np.cumsum(distinct) - distinct, distinct)


def _distinct_per_bucket(
    item: NDArray[np.int64], bucket: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each bucket's distinct items, bucket by bucket, and how many each bucket has. Shapes (p,) and
    (b,)."""
    order = np.lexsort((item, bucket))
    item, bucket = item[order], bucket[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(item) != 0) | (np.diff(bucket) != 0)
    return item[new], np.unique(bucket[new], return_counts=True)[1]


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
    pools = pools or Pools.of(item, bucket, settings.distribution)
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
    block = (np.cumsum(counts) - 1) // size
    edges = np.flatnonzero(np.diff(block, prepend=-1))
    yield from zip(edges.tolist(), [*edges[1:].tolist(), len(counts)], strict=True)


def _pair_keys(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number for each distinct (bucket, user, item) of the positives followed by the negatives."""
    group, user, item = (np.concatenate(pair) for pair in zip(columns[:3], columns[3:], strict=True))
    _, pair = np.unique(user * (item.max() + 1) + item, return_inverse=True)
    return group * (pair.max() + 1) + pair


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
