"""Made-up days: how a published split that is no split in time is written as one (ours).

The library splits by time alone. A split by user, at random or by file becomes one when each row gets a made-up day: its part of the
data set, counted from 1 January 2000. Cuts between such days then name the split, and a row reads history of earlier parts alone, so
that no row reads its own label or that of its part. What a part cannot promise is that its history lies before it in real time.

Everything here is SQL of DuckDB that gives a number or a moment a row.
"""

from __future__ import annotations

PARTS = 10
"""In which training rows are cut, where a test set is published beside them."""
TEST = PARTS + 1
_DAY = 86_400  # seconds


def moment(part: str, place: str = "0") -> str:
    """A moment on a part's day.

    Args:
        part: From 1.
        place: Order within the user's rows, from 0, which the time of day keeps as seconds.
    """
    return f"TIMESTAMP '2000-01-01' + to_days(({part} - 1)::INTEGER) + to_seconds(least({place}, {_DAY - 1})::BIGINT)"


def drawn(key: str, parts: int = PARTS) -> str:
    """A part at random, the same for equal keys, on any machine and in any order of rows.

    Args:
        key: Text.
        parts: How many, equally likely.
    """
    return f"(1 + ('0x' || md5({key})[1:8])::BIGINT % {parts})"


def anywhere(key: str) -> str:
    """A place on the day at random, so that rows that say the same stay two rows.

    Args:
        key: Text, another one each row.
    """
    return f"(('0x' || md5({key})[9:16])::BIGINT % {_DAY})"


def along(place: str, count: str, parts: int = PARTS) -> str:
    """Equal shares of a sequence, in its order.

    Args:
        place: From 1.
        count: Length of the sequence.
        parts: How many shares.
    """
    return f"(1 + ({parts} * ({place} - 1)) // {count})"


def last_out(place: str, count: str) -> str:
    """Leave-last-out: the last row of a sequence is test, the one before validation, the others lie along parts 1 to 9.

    Args:
        place: From 1.
        count: Length of the sequence.
    """
    shares = along(place, f"({count} - 2)", PARTS - 1)
    return f"CASE WHEN {place} = {count} THEN {TEST} WHEN {place} = {count} - 1 THEN {PARTS} ELSE {shares} END"
