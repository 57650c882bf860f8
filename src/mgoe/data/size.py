"""How large a log is, by a scan of seconds: what a forecast of a run is made from.

Axes: `b` time buckets with rows.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings
from mgoe.data.columns import only_row
from mgoe.data.log import NO_ROWS, open_source, place_of, work_database
from mgoe.data.rules import rows_that_happen
from mgoe.data.times import bucket_of, make_cuts, newest_buckets
from mgoe.errors import DataError

EXACT = 1_000_000
"""Rows up to which distinct values are counted; of more, their number is estimated, within about a tenth."""


@dataclass(frozen=True)
class LogSize:
    """How many rows a log has, of whom and when. Rows that repeat another one count too.

    Attributes:
        users, items: Their numbers; in an event log, of those with a task.
        pairs: Distinct pairs of a user and an item on which a task is done.
        buckets: Buckets with rows, rising. Shape (b,).
        counts: Rows in each. Shape (b,).
        happened: Rows in each on which a task is done. Shape (b,).
        positives: Positive examples in each. Shape (b,).

    Example:
        >>> size = LogSize.of(settings)
        >>> size.users == int(prepared.users_at[-1]), int(size.counts.sum()) == prepared.summary["rows"]
        (True, True)
    """

    users: int
    items: int
    pairs: int
    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    happened: NDArray[np.int64]
    positives: NDArray[np.int64]

    @classmethod
    def of(cls, settings: RunSettings) -> "LogSize":
        """Scan the log that settings name.

        Raises:
            DataError: The log cannot be read, a column is missing or of a wrong type, or no task is done.
        """
        place, data = place_of(settings.data.log), settings.data
        with (
            TemporaryDirectory(prefix="mgoe-") as folder,
            work_database(Path(folder, "work"), place, settings.memory, data.timezone) as con,
        ):
            source = open_source(con, data, None)
            read = rows_that_happen(source, settings, place)
            rows = read.select(
                "user",
                "item",
                pair=ibis.struct({"user": read.user, "item": read.item}),
                buckets=bucket_of(read.time, data.bucket),
                happened=read.happened.fill_null(False),
            ).filter(ibis._.buckets.notnull())
            count = "approx_nunique" if int(rows.count().to_pyarrow().as_py()) > EXACT else "nunique"
            pairs = getattr(rows.pair, count)(where=rows.happened)
            numbered = rows.happened | (
                settings.form == "exposures"
            )  # who does no task of an event log is not
            whole = only_row(
                rows.aggregate(
                    users=getattr(rows.user, count)(where=numbered),
                    items=getattr(rows.item, count)(where=numbered),
                    pairs=pairs,
                )
            )
            if not whole["pairs"]:
                raise DataError(
                    place,
                    "some row must do a task, found none; see tasks, data.start and data.end"
                    if source.count().to_pyarrow().as_py()
                    else NO_ROWS,
                )
            parts = (
                rows.group_by("buckets")
                .aggregate(
                    counts=rows.count(),
                    happened=rows.happened.sum(),
                    positives=pairs if settings.form == "events" else rows.happened.sum(),
                )
                .order_by("buckets")
                .to_pyarrow()
                .to_pydict()
            )
        whole.update((name, np.array(values, np.int64)) for name, values in parts.items())
        return cls(**whole)

    def windows(self, settings: RunSettings) -> tuple[list[float], dict[str, int]]:
        """Return what the cuts of a run make of the log.

        Returns:
            The share of all that is done which each snapshot holds, the last one all; and the examples of
            each split, at most, since some negatives are not drawn.

        Raises:
            DataError: The log cannot be cut so, or its newest bucket has more rows than `training.rows`.
        """
        cuts = make_cuts(
            settings.split,
            settings.data.bucket,
            self.buckets[self.positives > 0],
            self.positives[self.positives > 0],
            settings.data.timezone,
        )
        held = np.r_[0, np.cumsum(self.happened)][np.searchsorted(self.buckets, cuts, side="right")]
        events, window = settings.form == "events", settings.split.valid_window
        rows = self.positives * (1 + settings.negatives.ratio) if events else self.counts
        ends = [int(cuts[number]) for number in (0, window, window + 1)]
        if (limit := settings.training.rows) is not None:
            ends[0] = newest_buckets(limit, self.buckets, rows, ends[0], ends[1])
        split = np.searchsorted(ends, self.buckets)  # 0 is history alone
        return [*(held / self.happened.sum()).tolist(), 1.0], {
            name: int(rows[split == number].sum())
            for number, name in enumerate(("train", "valid", "test"), 1)
        }
