"""Sorting the events of a log by pair, out of core: divided by user on disk, then range by range in memory.

Events arrive in any order and leave in that of pair, then time (ours, a radix sort). One pass writes them to
a file, block by block, each block in the order of ranges of users. In memory, passes over the digits of item
and user bring a range in order, and each keeps the order of the passes before. Most logs are in the order of
time, so the events of a pair mostly are in order by then; where they are not, they are sorted.
"""

from collections.abc import Generator, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe._util.prefetch import in_turn
from mgoe.data.readers import together
from mgoe.graph.fold import USER_BITS, Events, joined

RANGE_BITS, LEAST_BITS = 8, 9
"""Bits of a user that decide its range; and a range has 512 users at least."""
DIGIT_BITS = 16
"""Most bits of an item that one pass brings in order."""
BLOCK, BLOCK_BYTES = 1 << 22, 160
"""Most events that are divided at once, so that those of a range are read back at a stretch; and the memory
of one on each thread, with the block that waits.
"""


def sorted_events(
    chunks: Iterable[Events], users: int, items: int, folder: Path, memory: int, threads: int
) -> Generator[Events, None, None]:
    """Yield events in the order of key, then event, all events of a range of users at once.

    Args:
        chunks: Events in any order.
        users, items: Number of nodes; every index is below it.
        folder: For a file without a name, which the system removes with this process.
        memory: In bytes. The sort takes more only if a 256th of the users has a tenth of it in events.
        threads: So many ranges are sorted at once.
    """
    bits = max(LEAST_BITS, (users - 1).bit_length() - RANGE_BITS)
    blocks = map(
        joined,
        together(((chunk, len(chunk[0])) for chunk in chunks), min(BLOCK, memory // (BLOCK_BYTES * threads))),
    )
    ranges = (one for one in _divided(blocks, bits, folder, threads) if any(map(len, one)))
    with closing(in_turn(partial(_in_order, items, bits), ranges, threads, threads + 1)) as found:
        yield from found


def _divided(blocks: Iterable[Events], bits: int, folder: Path, threads: int) -> list[list[NDArray]]:
    """Write events to a file, and return its parts by ranges of 2^bits users. Shape (n, 2) each."""

    def divide(block: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ends, rows = np.zeros(1 << RANGE_BITS, np.int64), np.empty((len(block[0]), 2), np.int64)
        _scatter(*block, USER_BITS + bits, ends, rows.reshape(-1), rows.reshape(-1)[1:], 2)
        return ends, rows

    cuts, written = [np.zeros(0, np.int64)], 0
    with TemporaryFile(dir=folder) as file, closing(in_turn(divide, blocks, threads, threads + 1)) as found:
        for ends, rows in found:
            file.write(rows.data)
            cuts.append(ends + written)
            written += len(rows)
        file.flush()
        every = np.memmap(file, np.int64, "r", shape=(written, 2)) if written else np.empty((0, 2), np.int64)
    parts = np.split(np.asarray(every), np.concatenate(cuts))
    return [parts[number :: 1 << RANGE_BITS] for number in range(1 << RANGE_BITS)]


def _in_order(items: int, bits: int, parts: list[NDArray[np.int64]]) -> Events:
    """Return the events of a range of 2^bits users in order."""
    width = (items - 1).bit_length()
    keys, moments = (np.concatenate([part[:, column] for part in parts]) for column in range(2))
    digits = [(shift, min(DIGIT_BITS, width - shift)) for shift in range(0, width, DIGIT_BITS)]
    for shift, size in (*digits, (USER_BITS, bits)):
        into = np.empty_like(keys), np.empty_like(moments)
        _scatter(keys, moments, shift, np.zeros(1 << size, np.int64), *into, 1)
        keys, moments = into
    late = np.flatnonzero((keys[1:] == keys[:-1]) & (moments[1:] < moments[:-1]))
    if len(late):
        wrong = np.isin(keys, keys[late])
        moments[wrong] = moments[wrong][np.lexsort((moments[wrong], keys[wrong]))]
    return keys, moments


@kernel("ends", "to_keys", "to_events")
def _scatter(keys, events, shift, ends, to_keys, to_events, step):  # pragma: no cover - compiled
    """Bring events in the order of some bits of their keys, `step` entries apart; `ends` gets where those of
    each value end."""
    last, total = len(ends) - 1, 0
    for n in range(len(keys)):
        ends[(keys[n] >> shift) & last] += 1
    for value in range(len(ends)):
        total, ends[value] = total + ends[value], total
    for n in range(len(keys)):
        value = (keys[n] >> shift) & last
        to = ends[value]
        to_keys[step * to], to_events[step * to], ends[value] = keys[n], events[n], to + 1
