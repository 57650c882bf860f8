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


def in_order(user: str, order: str) -> str:
    """Two columns: `place` of a row, from 1, among those of its user, and `n`, how many these are.

    Args:
        user: Whose rows they are.
        order: By what they are in order.
    """
    return f"row_number() OVER (PARTITION BY {user} ORDER BY {order}) AS place, count(*) OVER (PARTITION BY {user}) AS n"


def along(parts: int = PARTS, length: str = "n") -> str:
    """Equal shares of a sequence, in its order: the part of the row at `place`.

    Args:
        parts: How many shares.
        length: Of the sequence.
    """
    return f"(1 + ({parts} * (place - 1)) // {length})"


LAST_OUT = (
    f"CASE WHEN place = n THEN {TEST} WHEN place = n - 1 THEN {PARTS} ELSE {along(PARTS - 1, '(n - 2)')} END"
)
"""Leave-last-out: the last row of a sequence is test, the one before validation, the others lie along parts 1 to 9."""
