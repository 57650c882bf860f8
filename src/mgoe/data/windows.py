"""Time buckets, cuts between windows, and which snapshot a row belongs to.

Bucket b holds the moments in [b, b + 1) lengths since 1970. Cut k is the number of the last bucket before it: snapshot k is the history
with bucket <= cuts[k], window k the examples with cuts[k] < bucket <= cuts[k + 1], so that no example reads an event of its own bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from mgoe.config import SplitSettings, seconds
from mgoe.data.expr import Expr, Table
from mgoe.errors import DataError

_DAY = 86_400_000_000  # microseconds


def microseconds(moment: date | datetime) -> int:
    """Microseconds since 1970; a moment without a zone is UTC."""
    if not isinstance(moment, datetime):
        return (moment - date(1970, 1, 1)).days * _DAY
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * _DAY + since.seconds * 1_000_000 + since.microseconds


def within(rows: Table, start: datetime | None, end: datetime | None) -> Table:
    """Rows whose `time` is not before the start, and before the end."""
    if start is not None:
        rows = rows.filter(rows.time >= microseconds(start))
    return rows if end is None else rows.filter(rows.time < microseconds(end))


def bucket_of(moment: Expr, length: str) -> Expr:
    """Bucket number of a moment in microseconds. int64."""
    return (moment // (seconds(length) * 1_000_000)).cast("int64")


def snapshot_of(bucket: Expr, cuts: NDArray[np.int32]) -> Expr:
    """First snapshot that contains a bucket: the number of cuts before it. int16."""
    before: Expr = sum((bucket > int(cut)).cast("int16") for cut in cuts)
    return before.cast("int16")


def make_cuts(
    settings: SplitSettings, length: str, buckets: NDArray[np.int64], positives: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Cuts by quantiles of the positive examples, or by dates.

    A quantile q falls in the first bucket up to which at least a share q of the positives lies; that bucket belongs to the earlier window.
    A date is the first moment after the cut; inside a bucket, that bucket still lies before.

    Args:
        settings: The quantiles or dates.
        length: Of a bucket.
        buckets: Buckets with positive examples, rising. Shape (b,).
        positives: Positive examples in each. Shape (b,).

    Returns:
        Bucket numbers, rising. Shape (n,).

    Raises:
        DataError: Two cuts fall into one bucket, or nothing lies before the first or after the last.
    """
    if isinstance(settings.cuts[0], float):
        reached = np.round(np.asarray(settings.cuts, dtype=float) * positives.sum(), 6)
        cuts = buckets[np.searchsorted(np.cumsum(positives), reached)]
    else:
        size = seconds(length) * 1_000_000
        cuts = np.array([(microseconds(cut) - 1) // size for cut in settings.cuts if isinstance(cut, date)])
    _check_windows(settings.cuts, cuts, length, buckets)
    return cuts.astype(np.int32)


def _check_windows(
    named: Sequence[object], cuts: NDArray[np.int64], length: str, buckets: NDArray[np.int64]
) -> None:
    same = np.flatnonzero(np.diff(cuts) <= 0)
    if same.size:
        k = int(same[0])
        found = f"cuts {named[k]} and {named[k + 1]} both fall into bucket {moment_of(int(cuts[k]), length)} of {len(buckets)} with positives"
        raise DataError(
            "split.cuts",
            f"every window needs a bucket of its own, found that {found}; take fewer cuts, or a shorter data.bucket",
        )
    span = f"positives from {moment_of(int(buckets[0]), length)} to {moment_of(int(buckets[-1]), length)}"
    if buckets[0] > cuts[0]:
        raise DataError(
            "split.cuts",
            f"the first snapshot needs history before the cut {named[0]}, found {span}; move the first cut later",
        )
    edges = [*cuts.tolist(), np.iinfo(np.int64).max]
    held = np.diff(np.searchsorted(buckets, edges, side="right"))
    for part, count in {"train": held[:-2].sum(), "valid": held[-2], "test": held[-1]}.items():
        if not count:
            mend = "move the cuts or take fewer, or use a shorter data.bucket"
            raise DataError(
                "split.cuts",
                f"every part needs positives, found none in {part} with cuts {_short(named)} and {span}; {mend}",
            )


def check_first_snapshot(
    history: Table, settings: SplitSettings, length: str, cuts: NDArray[np.int32]
) -> None:
    """See that something is known at the first cut: a label becomes history when it is known, which may be long after its exposure.

    Args:
        history: One row an event and task, with its `bucket`.
        settings: Of the cuts, for the message.
        length: Of a bucket.
        cuts: Bucket numbers, rising. Shape (n,).

    Raises:
        DataError: Nothing is.
    """
    first = history.bucket.min().to_pyarrow().as_py()
    if first is None or first > cuts[0]:
        rule = f"the first snapshot needs labels that are known before the cut {settings.cuts[0]}"
        found = "none" if first is None else f"the first one known in {moment_of(first, length)}"
        mend = "move the first cut later, or mend `delay` and `known_at`"
        raise DataError("split.cuts", f"{rule}, found {found}; {mend}")


def moment_of(bucket: int, length: str) -> str:
    """Where a bucket starts, for messages."""
    try:
        moment = datetime.fromtimestamp(bucket * seconds(length), tz=UTC)
    except (ValueError, OverflowError, OSError):
        return f"number {bucket}"
    return (
        moment.strftime("%Y-%m-%d")
        if moment.time() == datetime.min.time()
        else moment.strftime("%Y-%m-%d %H:%M:%S")
    )


def _short(named: Sequence[object]) -> str:
    return ", ".join(str(cut) for cut in named)
