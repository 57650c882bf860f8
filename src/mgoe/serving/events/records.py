"""How events lie in a file of the log: each is its length and checksum (eight bytes), then itself, a JSON list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from zlib import crc32

import numpy as np

from mgoe.errors import EventError
from mgoe.serving.events.event import Event

HEAD = 8
LARGEST = 1 << 20
"""Bytes of a record; a longer one is no record."""


def record(event: Event) -> bytes:
    """An event as it is written.

    Raises:
        EventError: It is too long.
    """
    payload = event.encode()
    if len(payload) > LARGEST:
        raise EventError(
            "event", f"must take at most {LARGEST:,} bytes, found {len(payload):,}; send shorter ids"
        )
    return len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload


def records(held: bytes) -> Iterator[bytes]:
    """Whole records from the first byte on."""
    at = 0
    while at + HEAD <= len(held):
        size, check = (
            int.from_bytes(held[at : at + 4], "little"),
            int.from_bytes(held[at + 4 : at + HEAD], "little"),
        )
        payload = held[at + HEAD : at + HEAD + size]
        if not 0 < size <= LARGEST or len(payload) < size or crc32(payload) != check:
            return
        yield payload
        at += HEAD + size


def whole(held: bytes) -> int:
    """Bytes of the whole records at the start."""
    return sum(HEAD + len(payload) for payload in records(held))


def some(count: int) -> int:
    """Bytes that hold at least one record, and most of so many."""
    return LARGEST + HEAD + 256 * count


def damaged(file: int, place: int) -> bool:
    """Whether a place of an open file holds no whole record while one follows it, which is no end that a killed process left.

    A checksum is looked at only where a length that can be stands before the first byte of a list.
    """
    at = place
    while len(held := os.pread(file, 3 * LARGEST + HEAD, at)) > HEAD:
        letters = np.frombuffer(held, np.uint8)
        may_be = (letters[HEAD:] == ord("[")) & (
            letters[3 : 3 - HEAD] == 0
        )  # a length ends with 0: it is at most LARGEST
        heads = np.flatnonzero(may_be[: 2 * LARGEST])
        sizes = letters[heads[:, None] + np.arange(4)].view("<u4")[:, 0].astype(np.int64)
        fits = heads + HEAD + sizes <= len(held)
        for head, size in zip(heads[fits].tolist(), sizes[fits].tolist(), strict=True):
            if whole(held[head : head + HEAD + size]):
                return at + head > place
        at += 2 * LARGEST
    return False
