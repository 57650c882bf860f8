"""Digests of the records of a log: each is chained over all records up to its own.

So a reader that knows the position and the digest of the last record that it has read, a `Mark`, notices an
older copy of the log, even one that has grown past that position.
"""

import hashlib

from mgoe.bundle.held import Mark
from mgoe.errors import OtherLogError


def chained(former: str, record: bytes) -> str:
    """Return the digest of a record and all before it.

    The first 32 hexadecimal digits of SHA-1, which is what Redis computes in a script. It finds mistakes, not
    forgery.

    Args:
        former: Digest of the record before; the identity of the log before the first.
        record: As it is stored.

    Example:
        >>> chained(chained("A3F0", b"one"), b"two")
        '18cfe0be2c8fa8b6b8c3e24fa0927b7a'
    """
    return hashlib.sha1(former.encode() + record, usedforsecurity=False).hexdigest()[:32]


def check_record(place: object, mark: Mark, found: Mark | None) -> None:
    """Check that the record at a mark is the one that was read.

    Args:
        place: The log, for messages.
        mark: Up to where it was read.
        found: Of the first record at its position or later; None if there is none.

    Raises:
        OtherLogError: It is not.
    """
    if found == mark:
        return
    is_gone = found is not None and found.position != mark.position
    what = "ends before" if found is None else "begins after" if is_gone else "holds another record at"
    why = (
        "rows between are gone; use a bundle that holds more of it, or train in full on files"
        if is_gone
        else "it is an older copy, was emptied, or is another log; restore the latest copy, or set this one "
        "aside and start with an empty one, and the bundle keeps what it holds"
    )
    raise OtherLogError(place, f"the log {what} position {mark.position}, up to which it was read: {why}")
