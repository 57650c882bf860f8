"""Settings that follow the log: rules over what a scan of it found, each value with its reason.

`docs/training.md` states the rules; `benchmarks/strangers.py` compares them with chosen settings.

Axes: `b` time buckets with rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.config import NegativeSettings, RunSettings, SplitSettings, TrainingSettings, seconds
from mgoe.data.columns import Table, only_row
from mgoe.data.schema import find_columns, read_columns
from mgoe.data.times import bucket_of, moment_of, snapshot_of, within
from mgoe.data.where import rows_where

BUCKETS = {"1d": 86_400, "6h": 21_600, "1h": 3_600, "10m": 600, "1m": 60, "1s": 1}
"""Seconds of each length of a bucket."""
USUAL = SplitSettings.model_fields["cuts"].default
"""Cuts of a log with many buckets: shares of the positives before each."""
LEAST = 0.05
"""Smallest share of the positives in a window."""
FEWEST_CUTS = 3
FEWEST_DAYS = 8
"""Days from which a day can be told to be unlike the others."""
ODD_SHARE, ODD_RATIO = 0.08, 4.0
"""A day is another world if it has at least this share of the positives, and this many times the median
day's."""
SLIVER, LONG = 0.001, 0.25
"""A head or a tail is almost empty if it has at most this share of the rows and is at least this many times
as long as the rest."""
APART = 0.1
"""Share of the rows up to which those that are further from all others than these are long are left out."""
FEWEST_BUCKETS = 30
"""Buckets with rows that a log should have."""
PER_BUCKET = 100
"""Rows per bucket with rows, below which a bucket is not made shorter than the span asks for."""
OF_LIFE, LIVED, SAMPLE = 0.5, 10, 2_000_000
"""Longest bucket as a share of the median life of an item, the users from which an item has one, and the rows
from which it is measured."""
RATIO = NegativeSettings().ratio
RETURNING = 0.1
"""Share of the users with rows on both sides of a cut, below which users do not return."""
STEPS = 100
"""Fewest batches of training rows per epoch, down to `SMALLEST_BATCH`."""
SMALLEST_BATCH = 256
LEARNING_RATE, EPOCHS = 2e-3, 8
"""With batches smaller than the default."""


@dataclass(frozen=True)
class Scan:
    """How large a log is, and how its rows are spread over time.

    Args:
        events: Whether it is an event log, whose negatives are sampled.
        rows, users, items: Their numbers.
        bucket: A bucket length that suits the log's span.
        buckets: Buckets with rows, rising. Shape (b,).
        counts: Rows in each. Shape (b,).
        done: Rows in each with a task done. Shape (b,).
        without_id: Rows without a user or without an item.
        pace: Why the bucket is shorter than the log's span asks for; empty if it is not.
        outside: Settings that leave out an almost empty head or tail, or moments that cannot be: a day,
            counted from 1970, and why.
    """

    events: bool
    rows: int
    users: int
    items: int
    bucket: str
    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    done: NDArray[np.int64]
    without_id: int = 0
    pace: str = ""
    outside: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, source: Table, settings: RunSettings, place: str, bucket: str = "", now: float = math.inf
    ) -> "Scan":
        """Scan a log.

        Args:
            source: The log.
            settings: Of a run; `data` and `tasks` are read.
            place: What the log is, for messages.
            bucket: Length of a bucket; by default one that suits the log's span and its items.
            now: Seconds since 1970, after which nothing can have happened.

        Raises:
            DataError: A column is missing or of a wrong type.
        """
        rows = rows_that_happen(source, settings, place)
        held = only_row(
            rows.aggregate(
                rows=rows.count(),
                users=rows.user.nunique(),
                items=rows.item.nunique(),
                without_id=rows.count(where=rows.user.isnull() | rows.item.isnull()),
            )
        )
        days, pace = days_of(rows), ""
        inside = _inside(days, now)
        if not bucket:
            bucket, pace = suited_bucket(rows, {name: column[inside] for name, column in days.items()})
        timed: Table = rows.select(bucket=bucket_of(rows.time, bucket), happened=rows.happened)
        grouped = timed.filter(timed.bucket.notnull()).group_by("bucket")
        counted = grouped.aggregate(n=ibis._.count(), done=ibis._.happened.sum()).order_by("bucket")
        found = counted.to_pyarrow()
        per_bucket = (
            found[name].fill_null(0).to_numpy().astype(np.int64) for name in ("bucket", "n", "done")
        )
        return cls(
            settings.form == "events", held["rows"], held["users"], held["items"], bucket,
            *per_bucket, without_id=held["without_id"], pace=pace, outside=_outside(days, inside),
        )  # fmt: skip

    def until(self, bucket: int, since: float = -math.inf) -> "Scan":
        """Return the scan of the rows before a bucket, from another one on."""
        kept = (self.buckets < bucket) & (self.buckets >= since)
        return Scan(
            self.events, int(self.counts[kept].sum()), self.users, self.items, self.bucket,
            self.buckets[kept], self.counts[kept], self.done[kept],
        )  # fmt: skip


def rows_that_happen(source: Table, settings: RunSettings, place: str) -> Table:
    """Return the rows of a log within its time, unchecked, with `happened`: whether a task is done.

    Args:
        source: The log.
        settings: Of a run; `data` and `tasks` are read.
        place: What the log is, for messages.

    Raises:
        DataError: A column is missing or of a wrong type.
    """
    source = rows_where(source, settings.data)
    names = find_columns(source, settings, place)
    raw: Table = source.select(**{ours: source[column] for ours, column in names.items()})
    rows = within(raw.select(**read_columns(raw, settings, names, place)[0]), settings.data)
    return rows.mutate(
        happened=rows.behavior.isin([one for task in settings.tasks for one in task.done_by])
        if settings.form == "events"
        else ibis.or_(*(rows[f"label_{task.name}"] > 0 for task in settings.tasks))
    )


def days_of(rows: Table) -> dict[str, NDArray[np.int64]]:
    """Return the days with rows, rising: `day`, rows `n`, first and last moment, rows `off` midnight."""
    timed = rows.filter(rows.time.notnull())
    days = timed.group_by(day=bucket_of(timed.time, "1d")).aggregate(
        n=timed.count(),
        low=timed.time.min(),
        high=timed.time.max(),
        off=(timed.time % (BUCKETS["1d"] * 1_000_000) != 0).sum(),
    )
    found = days.order_by("day").to_pyarrow()
    return {name: found[name].to_numpy().astype(np.int64) for name in found.column_names}


def _inside(found: Mapping[str, NDArray[np.int64]], now: float) -> slice:
    """Return the days that are neither an almost empty head or tail nor moments that cannot be."""
    days, counts = found["day"], found["n"]
    end = int(np.searchsorted(days, now // BUCKETS["1d"], side="right"))
    if counts[end:].sum() > APART * counts.sum():
        end = len(days)
    first = _left_out(days[:end], counts[:end])
    return slice(first, end - _left_out(-days[first:end][::-1], counts[first:end][::-1]))


def _left_out(days: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """Return how many of the first days are left out. Shapes (d,)."""
    before, gaps = counts.cumsum()[:-1], np.diff(days)
    kept = days[-1:] - days[1:] + 1
    sliver = (before <= SLIVER * counts.sum()) & (days[1:] - days[:1] >= LONG * kept)
    apart = (before <= APART * counts.sum()) & (gaps > kept)
    return int(np.flatnonzero(sliver | apart).max(initial=-1)) + 1


def _outside(found: Mapping[str, NDArray[np.int64]], inside: slice) -> dict[str, tuple[int, str]]:
    """Return the settings that leave out other days than those inside, each with its first day and why."""
    days, counts, settings = found["day"], found["n"], {}
    for key, part, side in (
        ("data.start", slice(0, inside.start), "before"),
        ("data.end", slice(inside.stop, len(days)), "after"),
    ):
        if len(left := days[part]):
            first, last = (moment_of(int(left[place]), "1d") for place in (0, -1))
            span = f"of {first}" if first == last else f"from {first} to {last}"
            settings[key] = (
                int(days[inside.start] if side == "before" else days[inside.stop - 1] + 1),
                f"{counts[part].sum():,} of {counts.sum():,} rows are {span}, {side} almost all others; "
                "remove this line to keep them",
            )
    return settings


def suited_bucket(rows: Table, days: Mapping[str, NDArray[np.int64]]) -> tuple[str, str]:
    """Return the length of a bucket, and why it is shorter than the span asks for, if it is.

    Args:
        rows: Of the log, with `item`, `user` and `time`.
        days: The days that count, of `days_of`.
    """
    if not days["off"].any():
        return "1d", ""
    span = float(days["high"].max() - days["low"].min()) / 1e6
    usual, busy, life = _longest(span / FEWEST_BUCKETS), len(days["day"]) * BUCKETS["1d"], _life(rows)
    asked = {
        f"rows are on {len(days['day'])} days of {span / BUCKETS['1d']:.0f}": busy / FEWEST_BUCKETS,
        f"half of the items get most of their rows within {life / 3600:.1f} hours": (
            OF_LIFE * life if life < BUCKETS["1d"] else math.inf
        ),
    }
    why, longest = min(asked.items(), key=lambda one: one[1])
    fewest = PER_BUCKET * (days["high"] - days["low"]).sum() / 1e6 / days["n"].sum()
    shorter = next((name for name in reversed(BUCKETS) if BUCKETS[name] >= fewest), "1d")
    shorter = max(shorter, _longest(longest), key=BUCKETS.__getitem__)
    return (shorter, why) if BUCKETS[shorter] < BUCKETS[usual] else (usual, "")


def _longest(limit: float) -> str:
    return next((name for name, length in BUCKETS.items() if length <= limit), "1s")


def _life(rows: Table) -> float:
    """Return the seconds in which the median item gets the middle four fifths of its rows; infinite if most
    rows are on items with few users."""
    parts = 1 + rows.count().to_pyarrow().as_py() // SAMPLE
    part = rows.filter(rows.item.hash() % parts == 0, rows.time.notnull())
    lives = part.group_by("item").aggregate(
        n=part.count(),
        users=part.user.nunique(),
        life=part.time.quantile(0.9) - part.time.quantile(0.1),
    )
    known = lives.users >= LIVED
    held = only_row(
        lives.aggregate(
            all=lives.n.sum(), known=lives.n.sum(where=known), life=lives.life.median(where=known)
        )
    )
    return held["life"] / 1e6 if 2 * (held["known"] or 0) > (held["all"] or 0) else math.inf


@dataclass(frozen=True)
class Chosen:
    """A setting that a rule chose.

    Args:
        value: As it is written in a configuration.
        reason: Why; empty where it is the default.
    """

    value: Any
    reason: str


def choose(scan: Scan, may_end: bool = True, zone: str = "UTC", may_start: bool = False) -> dict[str, Chosen]:
    """Return the settings that follow from a scan, by dotted key (ours).

    Args:
        scan: Of the log.
        may_end: Whether `data.end` may be chosen; otherwise the log is taken as long as it is.
        zone: The zone in which `data.end` is read.
        may_start: Whether `data.start` may be chosen.

    Returns:
        `data.start` and `data.end` if the log has an almost empty head or tail or moments that cannot be,
        `data.end` if it ends with a day that is another world, `split.cuts`, and settings of `training`
        that differ from their defaults.

    Example:
        >>> days = np.arange(100)
        >>> scan = Scan(True, 10**6, 5000, 3000, "1d", days, np.full(100, 10**4), np.full(100, 10**4))
        >>> choose(scan)["split.cuts"].value
        [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """
    found = {}
    length = seconds(scan.bucket) / BUCKETS["1d"]
    for key, allowed in (("data.start", may_start), ("data.end", may_end)):
        if allowed and key in scan.outside:
            day, why = scan.outside[key]
            found[key] = Chosen(moment_of(day, "1d", zone), why)
            edge = day / length
            scan = scan.until(2**62, edge) if key == "data.start" else scan.until(math.ceil(edge))
    if may_end and (end := _end(scan)) is not None:
        at, share = moment_of(end, scan.bucket, zone), _share_of_day(scan, end)
        found["data.end"] = Chosen(
            at,
            f"{at} alone holds {share:.0%} of what was done, so it would be most of the test; "
            "remove this line if such days are what you rank for",
        )
        scan = scan.until(end)
    ends, cuts = _windows(scan)
    found["split.cuts"] = Chosen(
        cuts, "share of the positives before each; the last window is test, the one before valid"
    )
    return found | _training(scan, ends)


def _windows(scan: Scan) -> tuple[list[int], list[float]]:
    """Return the place of the last bucket before each cut, and the cuts as shares of the positives.

    The usual cuts stay where each window gets buckets of its own and `LEAST` of the positives. Others move to
    the end of a bucket, or are dropped.
    """
    share, before, ends, cuts = np.array([0.0]), np.array([0.0]), list[int](), list[float]()
    held = np.flatnonzero(scan.done > 0)
    if len(held):
        share = scan.done[held].cumsum() / scan.done[held].sum()
        before = np.concatenate([[0.0], share[:-1]])
    odd = odd_buckets(scan.bucket, scan.buckets, scan.done)[held] if len(held) else np.zeros(1, bool)
    end = len(share) - 1
    for usual in reversed(USUAL):
        if end == 0 or usual > share[end] - LEAST:
            continue
        last = min(int(np.searchsorted(share, usual)), end - 1)
        if share[end] - share[last] < LEAST:
            last -= 1
        if last < 0:
            continue
        while len(ends) == 1 and last > FEWEST_CUTS and _mostly(odd, scan.done[held], last, end):
            last -= 1  # validation that is one odd day would choose for that day
        ends.append(last)
        cuts.append(usual if before[last] < usual <= share[last] else _between(before[last], share[last]))
        end = last
    if len(cuts) < FEWEST_CUTS and len(held) > FEWEST_CUTS:  # most positives are in one bucket
        ends = np.linspace(0, len(held) - 1, FEWEST_CUTS + 2)[FEWEST_CUTS:0:-1].astype(int).tolist()
        cuts = [_between(float(before[last]), float(share[last])) for last in ends]
    if len(cuts) < FEWEST_CUTS:  # `make_cuts` says that buckets are too few, and what to do
        return [0] * FEWEST_CUTS, [0.4, 0.6, 0.8]
    return held[ends[::-1]].tolist(), cuts[::-1]


def share_that_returns(rows: Table, scan: Scan) -> float:
    """Return the share of the users who have rows on both sides of a cut.

    Args:
        rows: `user` and `bucket`.
        scan: Of the same log.
    """
    cuts = scan.buckets[_windows(scan)[0]].astype(np.int32)
    users = rows.group_by("user").aggregate(first=ibis._.bucket.min(), last=ibis._.bucket.max())
    first, last = (snapshot_of(bucket, cuts) for bucket in (users.first, users.last))
    return only_row(users.aggregate(share=(first < last).mean()))["share"]


def _between(low: float, high: float) -> float:
    """Return a number well inside an interval, with as few digits as possible."""
    middle = float(low + high) / 2
    rounded = (round(middle, digits) for digits in range(1, 6))
    return next((one for one in rounded if abs(one - middle) < (high - low) / 4), middle)


def odd_buckets(length: str, buckets: NDArray[np.int64], done: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which buckets belong to a day that is another world, such as a sale.

    Args:
        length: Of a bucket.
        buckets: Buckets with rows, rising. Shape (b,).
        done: Positives in each. Shape (b,).

    Returns:
        Shape (b,).
    """
    days = buckets * seconds(length) // BUCKETS["1d"]
    _, day = np.unique(days, return_inverse=True)
    of_day = np.bincount(day, done)
    if len(of_day) < FEWEST_DAYS or not of_day.sum():
        return np.zeros(len(days), bool)
    odd = (of_day >= ODD_SHARE * of_day.sum()) & (of_day >= ODD_RATIO * np.median(of_day))
    return odd[day]


def _mostly(odd: NDArray[np.bool_], done: NDArray[np.int64], last: int, end: int) -> bool:
    """Return whether most positives of the window after one bucket, until another one, are of odd days."""
    window = slice(last + 1, end + 1)
    return bool(2 * done[window][odd[window]].sum() > done[window].sum())


def _end(scan: Scan) -> int | None:
    """Return the first bucket of an odd day that most of the test would be; None without one."""
    odd, last = odd_buckets(scan.bucket, scan.buckets, scan.done), _windows(scan)[0][-1]
    if not (odd.any() and _mostly(odd, scan.done, last, len(odd) - 1)):
        return None
    first = int(scan.buckets[last + 1 + int(odd[last + 1 :].argmax())])
    return first if (scan.buckets < first).sum() > FEWEST_CUTS else None


def _share_of_day(scan: Scan, first: int) -> float:
    day = (scan.buckets >= first) & (scan.buckets < first + max(1, BUCKETS["1d"] // seconds(scan.bucket)))
    return float(scan.done[day].sum() / scan.done.sum())


def _training(scan: Scan, ends: list[int]) -> dict[str, Chosen]:
    """Return settings of training for a log with few training rows: smaller batches make more steps."""
    kept = slice(ends[0] + 1, ends[-2] + 1)
    rows = int(scan.done[kept].sum()) * (1 + RATIO) if scan.events else int(scan.counts[kept].sum())
    usual = TrainingSettings()
    batch = usual.batch_size
    while batch > SMALLEST_BATCH and rows < STEPS * batch:
        batch //= 2
    if batch == usual.batch_size:
        return {}
    why = f"some {rows:,} training rows, so smaller batches and more of them"
    return {
        "training.batch_size": Chosen(batch, why),
        "training.learning_rate": Chosen(LEARNING_RATE, "for such batches"),
        "training.epochs": Chosen(EPOCHS, "at most; validation chooses"),
    }
