"""Writing a guessed configuration as a person would: short, with a comment where there is something to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ibis
import numpy as np
import yaml
from numpy.typing import NDArray

from mgoe.config import SplitSettings
from mgoe.data.columns import read_time
from mgoe.data.expr import Table
from mgoe.data.roles import Column
from mgoe.data.windows import bucket_of, make_cuts, moment_of
from mgoe.errors import DataError

BUCKETS = {"1d": 86_400, "6h": 21_600, "1h": 3_600, "10m": 600, "1m": 60, "1s": 1}
"""Seconds of each."""
CUTS: tuple[list[float], ...] = (
    [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    [0.3, 0.45, 0.6, 0.7, 0.8, 0.9],
    [0.4, 0.55, 0.7, 0.85],
    [0.4, 0.6, 0.8],
)
"""Tried from the first, until no window is empty."""
_WIDTH = 44  # where comments start


@dataclass
class Draft:
    """What was guessed.

    Args:
        user, item, time: Columns.
        behavior: Column of an event log.
        tasks: Name to its behaviour or label column, weakest first.
        amounts: Tasks among these that are regressions.
        rare: Behaviours that are no task, with their rows.
        position, weight: Columns of an exposure log.
        context: Other columns of an exposure log, which may be features.
    """

    user: str
    item: str
    time: str
    behavior: str | None = None
    tasks: dict[str, str] = field(default_factory=dict)
    amounts: list[str] = field(default_factory=list)
    rare: dict[str, int] = field(default_factory=dict)
    position: str | None = None
    weight: str | None = None
    context: list[Column] = field(default_factory=list)


@dataclass(frozen=True)
class Measure:
    """How large the log is and how it lies in time.

    Args:
        rows, users, items: How many.
        bucket: A length that suits the log's span.
        buckets: Those with rows, rising. Shape (b,).
        counts: Rows in each. Shape (b,).
        done: Rows in each with a task done. Shape (b,).
    """

    rows: int
    users: int
    items: int
    bucket: str
    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]
    done: NDArray[np.int64]


def measure(draft: Draft, source: Table, place: str) -> Measure:
    """Count a log by time."""
    moment = read_time(source[draft.time], draft.time, "auto", place)
    happened = (
        ibis.literal(True)
        if draft.behavior
        else ibis.or_(*(source[label].cast("float64") > 0 for label in draft.tasks.values()))
    )
    sizes = {
        "users": source[draft.user].nunique(),
        "items": source[draft.item].nunique(),
        "low": moment.min(),
        "high": moment.max(),
    }
    off_midnight = (moment % (BUCKETS["1d"] * 1_000_000) != 0).sum()
    held = source.aggregate(rows=source.count(), off=off_midnight, **sizes).to_pyarrow().to_pylist()[0]
    seconds = (held["high"] - held["low"]) / 1e6
    bucket = (
        "1d"
        if not held["off"]
        else next((name for name, length in BUCKETS.items() if seconds >= 30 * length), "1s")
    )
    timed: Table = source.select(bucket=bucket_of(moment, bucket), happened=happened)
    grouped = (
        timed.filter(timed.bucket.notnull())
        .group_by("bucket")
        .aggregate(n=ibis._.count(), done=ibis._.happened.sum())
    )
    columns = grouped.order_by("bucket").to_pyarrow()
    buckets, counts, done = (
        columns[name].fill_null(0).to_numpy().astype(np.int64) for name in ("bucket", "n", "done")
    )
    return Measure(held["rows"], held["users"], held["items"], bucket, buckets, counts, done)


def write_draft(paths: Sequence[str], draft: Draft, log: Measure) -> str:
    """The configuration as YAML."""
    lines = [
        ("# A first guess, made by `mgoe init` from names, types and values. Read it through, then:", ""),
        ("#   mgoe run THIS.yaml --out runs/first", ""),
        *_data_lines(paths, draft, log),
        ("tasks:", "weakest to strongest"),
        *((f"  - {_task(draft, name, value)}", "") for name, value in draft.tasks.items()),
    ]
    if draft.rare:
        shown = ", ".join(f"{value} ({n:,})" for value, n in list(draft.rare.items())[:8])
        lines.append((f"  # left out as too rare: {shown}", ""))
    cuts = "share of the positives before each; the last window is test, the one before valid"
    lines += [("split:", ""), (f"  cuts: {_cuts(log)}", cuts)]
    if draft.behavior is not None:
        lines += [("negatives:", ""), ("  ratio: 3", "for each positive")]
    lines += [("models: [mgoe, shared-bottom, mmoe]", "the first one is served"), ("seeds: [0]", "")]
    return "".join(f"{text:<{_WIDTH}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


def _data_lines(paths: Sequence[str], draft: Draft, log: Measure) -> list[tuple[str, str]]:
    span = f"{moment_of(int(log.buckets[0]), log.bucket)} to {moment_of(int(log.buckets[-1]), log.bucket)}"
    lines = [
        ("data:", ""),
        (f"  log: {_yaml(paths[0] if len(paths) == 1 else list(paths))}", f"{log.rows:,} rows, {span}"),
        (f"  user: {_yaml(draft.user)}", f"{log.users:,} users"),
        (f"  item: {_yaml(draft.item)}", f"{log.items:,} items"),
        (f"  time: {_yaml(draft.time)}", ""),
    ]
    if draft.behavior is not None:
        lines.append(
            (
                f"  behavior: {_yaml(draft.behavior)}",
                "what happened; negatives are sampled from the same bucket",
            )
        )
    lines.append((f"  bucket: {log.bucket}", "of time; no example reads an event of its own bucket"))
    top = int(log.counts.argmax())
    share = log.counts[top] / log.counts.sum()
    if share > 0.08 and len(log.counts) >= 30:
        at = moment_of(int(log.buckets[top]), log.bucket)
        lines.append(
            (f"  # end: {at}", f"{at} alone holds {share:.0%} of the rows; cut it off if it is no usual day")
        )
    if draft.position is not None:
        lines.append((f"  position: {_yaml(draft.position)}", "where it was shown: a bias in training only"))
    if draft.weight is not None:
        lines.append((f"  weight: {_yaml(draft.weight)}", "of a row in the loss"))
    if draft.context:
        lines.append(
            (
                "  # context:",
                "features of an exposure: keep what is known when it is shown, never what follows from it",
            )
        )
        lines += [
            (f"  #   - {{name: {_yaml(column.name)}, kind: {_feature(column)}}}", "")
            for column in draft.context
        ]
    return lines


def _cuts(log: Measure) -> list[float]:
    held = log.done > 0
    for cuts in CUTS:
        try:
            make_cuts(SplitSettings(cuts=cuts), log.bucket, log.buckets[held], log.done[held])
        except DataError:
            continue
        return cuts
    return CUTS[-1]


def _task(draft: Draft, name: str, value: str) -> str:
    if draft.behavior is not None:
        return _yaml(name) if name == value else f"{{name: {_yaml(name)}, behaviors: [{_yaml(value)}]}}"
    kind = ", kind: regression" if name in draft.amounts else ""
    return f"{{name: {_yaml(name)}, label: {_yaml(value)}{kind}}}"


def _feature(column: Column) -> str:
    return {"float": "numeric", "list": "multi"}.get(column.kind, "categorical")


def _yaml(value: object) -> str:
    """A value as it stands inside a line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1_000_000).strip()[1:-1]
