"""Counts of exposures after a snapshot, so that the rates of a node can be read as of any moment.

An exposure counts as shown from its time, and its labels, zeros and ones, from when they are known: as for a
service that follows its exposures.

Axes: `n` cells of a group, `V` records of them, `T` tasks, `R` regressions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import run_starts
from mgoe.graph.edges import last_before
from mgoe.graph.rates import RateGroup


class CellMoments(NamedTuple):
    """The cells of one group.

    Attributes:
        key: Of each cell, the first axis in the upper and the second in the lower 32 bits; rising. Shape
            (n,).
        indptr: Where the records of each cell start. Shape (n + 1,).
        time: Of the records, rising within a cell, microseconds. Shape (V,).
        counts, values: Sums from the snapshot to each record, as in `RateTable`. Shapes (V, 1 + 2T) and
            (V, R).
    """

    key: NDArray[np.int64]
    indptr: NDArray[np.int64]
    time: NDArray[np.int64]
    counts: NDArray[np.int32]
    values: NDArray[np.int64]

    @classmethod
    def of(cls, records: Any, group: RateGroup, regressions: NDArray[np.bool_]) -> CellMoments:
        """Count the exposures after a snapshot in a group of items or users.

        Args:
            records: Of `mgoe.data.exposure_history.exposure_history`, with their times. A table of Ibis.
            group: One that `is_live`.
            regressions: Whether each task is a regression. Shape (T,).
        """
        first, *second = group.axes
        key, tasks = records[first.side].cast("int64") * (1 << 32), len(regressions)
        for axis in second:
            category = records[f"context_{axis.name}"]
            key = key + (category.unnest() if axis.several else category)
        records = records.mutate(key=key)
        sums = [name for name in records.columns if name.startswith("value_")]
        labels = (records.labelled.cast("int64") * 2) + records.done.cast("int64") * (2 << tasks)
        shown = {"time": records.time, "bits": records.shown.cast("int64")}
        shown |= {name: ibis.literal(0, "int64") for name in sums}
        parts = (
            records.select("key", **shown),
            records.select("key", time=records.known, bits=labels, **{name: records[name] for name in sums}),
        )
        marks: Any = ibis.union(*parts)
        found = marks.filter(marks.bits > 0).order_by(["key", "time"]).to_pyarrow()
        key, time, bits = (found[name].to_numpy() for name in ("key", "time", "bits"))
        starts = np.flatnonzero(run_starts(key))
        indptr = np.r_[starts, len(key)]
        values = np.stack([found[name].to_numpy() for name in sums], 1) if sums else np.empty((len(key), 0))
        steps = (bits[:, None] >> np.arange(1 + 2 * tasks) & 1).astype(np.int32), values.astype(np.int64)
        for one in steps:
            one.cumsum(axis=0, dtype=one.dtype, out=one)
            one -= np.repeat(np.r_[np.zeros_like(one[:1]), one][starts], np.diff(indptr), axis=0)
        return cls(key[starts], indptr, time, *steps)

    def before(self, keys: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the last record of each cell strictly before a time, -1 where there is none. Shape (m,)
        each."""
        return last_before(self.key, self.indptr, self.time, keys, times)[1]
