"""Synthetic days: express a published split that is not a split by time as one (ours).

The library splits by time only. A split by user, at random or by file becomes one when each row gets a
synthetic day: its part of the data set, counted from 1 January 2000. Cuts between these days then define the
split, and a row reads the history of earlier parts only, so it never reads its own label or one of its own
part. A part cannot promise that its history precedes it in real time.

Everything here is DuckDB SQL that yields one number or one timestamp per row.
"""

PARTS = 10
"""Number of parts of the training rows if a test set is published beside them."""
TEST = PARTS + 1
_DAY = 86_400  # seconds


def moment(part: str, place: str = "0") -> str:
    """Return a timestamp on a part's day.

    Args:
        part: From 1.
        place: Order within the user's rows, from 0, stored as seconds of the day.
    """
    second = f"to_seconds(least({place}, {_DAY - 1})::BIGINT)"
    return f"TIMESTAMP '2000-01-01' + to_days(({part} - 1)::INTEGER) + {second}"


def drawn(key: str, parts: int = PARTS) -> str:
    """Return a random part that depends on the key alone, not on the machine or the order of rows.

    Args:
        key: Text.
        parts: Number of parts, equally likely.
    """
    return f"(1 + ('0x' || md5({key})[1:8])::BIGINT % {parts})"


def anywhere(key: str) -> str:
    """Return a random second of the day, so that equal rows stay two rows.

    Args:
        key: Text that differs between rows.
    """
    return f"(('0x' || md5({key})[9:16])::BIGINT % {_DAY})"


def in_order(user: str, order: str) -> str:
    """Return two columns: the `place` of a row among those of its user, from 1, and their number `n`.

    Args:
        user: Column of the user.
        order: Columns that order the rows.
    """
    window = f"PARTITION BY {user}"
    return f"row_number() OVER ({window} ORDER BY {order}) AS place, count(*) OVER ({window}) AS n"


def along(parts: int = PARTS, length: str = "n") -> str:
    """Return the part of the row at `place` if a sequence is cut into equal parts in its order.

    Args:
        parts: Number of parts.
        length: Length of the sequence.
    """
    return f"(1 + ({parts} * (place - 1)) // {length})"


LAST_OUT = (
    f"CASE WHEN place = n THEN {TEST} WHEN place = n - 1 THEN {PARTS} ELSE {along(PARTS - 1, '(n - 2)')} END"
)
"""Leave-last-out: the last row of a sequence is test, the one before validation, the others follow along
parts 1 to 9.
"""
