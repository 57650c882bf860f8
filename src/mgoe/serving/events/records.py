"""The format of events in a file: length and checksum, in eight bytes, then the event as a JSON list."""

import os
from collections.abc import Iterator
from zlib import crc32

import numpy as np

from mgoe.errors import EventError
from mgoe.serving.events.event import Event

HEAD = 8
"""Bytes of a record before the event."""
LARGEST = 1 << 20
"""Most bytes of an event."""


def record(event: Event) -> bytes:
    """Return an event as it is written.

    Raises:
        EventError: It is too long.
    """
    payload = event.encode()
    if len(payload) > LARGEST:
        rule = f"must take at most {LARGEST:,} bytes, found {len(payload):,}; send shorter ids"
        raise EventError("event", rule)
    return len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload


def records(content: bytes) -> Iterator[bytes]:
    """Yield the payloads of intact records from the first byte on."""
    at = 0
    while at + HEAD <= len(content):
        size, check = (int.from_bytes(content[at + k : at + k + 4], "little") for k in (0, 4))
        payload = content[at + HEAD : at + HEAD + size]
        if not 0 < size <= LARGEST or len(payload) < size or crc32(payload) != check:
            return
        yield payload
        at += HEAD + size


def intact(content: bytes) -> int:
    """Return how many bytes at the start are intact records."""
    return sum(HEAD + len(payload) for payload in records(content))


def bytes_of(count: int) -> int:
    """Return how many bytes to read for at least one record, and for most of `count` records."""
    return LARGEST + HEAD + 256 * count


def is_corrupt(file: int, place: int) -> bool:
    """Return whether a place of an open file holds no intact record although one follows.

    A torn write is at the end of a file; corruption before intact records is not a torn write. A checksum is
    computed only where a possible length stands before the first byte of a list."""
    at = place
    while len(content := os.pread(file, 3 * LARGEST + HEAD, at)) > HEAD:
        letters = np.frombuffer(content, np.uint8)
        # a length is at most LARGEST, so its last byte is 0
        possible = (letters[HEAD:] == ord("[")) & (letters[3 : 3 - HEAD] == 0)
        heads = np.flatnonzero(possible[: 2 * LARGEST])
        sizes = letters[heads[:, None] + np.arange(4)].view("<u4")[:, 0].astype(np.int64)
        fits = heads + HEAD + sizes <= len(content)
        for head, size in zip(heads[fits].tolist(), sizes[fits].tolist(), strict=True):
            if intact(content[head : head + HEAD + size]):
                return at + head > place
        at += 2 * LARGEST
    return False
