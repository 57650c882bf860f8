"""Time buckets, the cuts between windows, and the snapshot that a row belongs to.

Bucket b holds the moments in [b, b + 1) bucket lengths since 1970. Cut k is the number of the last bucket
before it: snapshot k is the history with bucket <= cuts[k], window k the examples with cuts[k] < bucket <=
cuts[k + 1]. So no example reads an event of its own bucket.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from mgoe.config import SplitSettings, seconds
from mgoe.data.checks import Expr, Table
from mgoe.data.times import microseconds
from mgoe.errors import DataError


def bucket_of(moment: Expr, length: str) -> Expr:
    """Return the bucket number of a moment in microseconds, as int64."""
    return (moment // (seconds(length) * 1_000_000)).cast("int64")


def snapshot_of(bucket: Expr, cuts: NDArray[np.int32]) -> Expr:
    """Return the first snapshot that contains a bucket, as int16: the number of cuts before it."""
    before: Expr = sum((bucket > int(cut)).cast("int16") for cut in cuts)
    return before.cast("int16")


def rows_per_bucket(rows: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the buckets that have rows, rising, and the number of rows in each. Shape (b,) each."""
    counted = rows.group_by("bucket").aggregate(n=rows.count()).order_by("bucket").to_pyarrow()
    return counted["bucket"].to_numpy().astype(np.int64), counted["n"].to_numpy().astype(np.int64)


def make_cuts(
    settings: SplitSettings, length: str, buckets: NDArray[np.int64], positives: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return cuts by quantiles of the positive examples, or by dates.

    A quantile q falls in the first bucket up to which at least a share q of the positives has happened; that
    bucket belongs to the earlier window. A date is the first moment after the cut; a bucket that contains it
    belongs to the earlier window too.

    Args:
        settings: The quantiles or dates.
        length: Length of a bucket.
        buckets: Buckets with positive examples, rising. Shape (b,).
        positives: Positive examples in each. Shape (b,).

    Returns:
        Bucket numbers, rising. Shape (n,).

    Raises:
        DataError: Two cuts fall into one bucket, or a window has no positives.
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
        raise DataError(
            "split.cuts",
            f"every window needs a bucket of its own, found that cuts {named[k]} and {named[k + 1]} both "
            "fall into "
            f"bucket {moment_of(int(cuts[k]), length)} of {len(buckets)} with positives; "
            "take fewer cuts, or a shorter data.bucket",
        )
    span = f"positives from {moment_of(int(buckets[0]), length)} to {moment_of(int(buckets[-1]), length)}"
    if buckets[0] > cuts[0]:
        raise DataError(
            "split.cuts",
            f"the first snapshot needs history before the cut {named[0]}, found {span}; move the first cut "
            "later",
        )
    edges = [*cuts.tolist(), np.iinfo(np.int64).max]
    held = np.diff(np.searchsorted(buckets, edges, side="right"))
    for part, count in {"train": held[:-2].sum(), "valid": held[-2], "test": held[-1]}.items():
        if not count:
            raise DataError(
                "split.cuts",
                f"every part needs positives, found none in {part} with cuts {', '.join(map(str, named))} "
                f"and {span}; "
                "move the cuts or take fewer, or use a shorter data.bucket",
            )


def check_first_snapshot(
    history: Table, settings: SplitSettings, length: str, cuts: NDArray[np.int32]
) -> None:
    """Require that something is known at the first cut.

    A label becomes history when it is known, which may be long after its exposure.

    Args:
        history: One row per event and task, with its `bucket`.
        settings: The cuts, for the message.
        length: Length of a bucket.
        cuts: Bucket numbers, rising. Shape (n,).

    Raises:
        DataError: Nothing is known by then.
    """
    first = history.bucket.min().to_pyarrow().as_py()
    if first is None or first > cuts[0]:
        found = "none" if first is None else f"the first one known in {moment_of(first, length)}"
        raise DataError(
            "split.cuts",
            f"the first snapshot needs labels that are known before the cut {settings.cuts[0]}, found "
            f"{found}; "
            "move the first cut later, or fix `delay` and `known_at`",
        )


def moment_of(bucket: int, length: str) -> str:
    """Return the start of a bucket, for messages."""
    try:
        moment = datetime.fromtimestamp(bucket * seconds(length), tz=UTC)
    except (ValueError, OverflowError, OSError):
        return f"number {bucket}"
    midnight = moment.time() == datetime.min.time()
    return moment.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M:%S")
