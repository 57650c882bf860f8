"""What a colleague would say about a log before anything is trained on it, each with what helps.

Axes: `N` examples, `T` tasks.
"""

from collections.abc import Iterator

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.config import FeatureSettings, RunSettings, seconds
from mgoe.data import Examples, Prepared
from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.rules import days_of, suited_bucket
from mgoe.data.times import rows_per_bucket
from mgoe.graph.pair_rows import SIDES
from mgoe.metrics import auc

KNOWN = 0.9
"""AUC of one context feature alone from which it seems to know the label."""
ROWS_PER_ID = 1.2
"""Rows of the log per id below which it looks like the number of a row."""
DROPPED = 0.05
"""Share of the rows that are left out, from which it is said."""
MIDNIGHTS = 0.05
"""Share of the times that are midnights, from which some are dates."""
UNLIKE = 2.0
"""Ratio of a task's share of what was done, in test and in training, from which the window is unlike."""
FEWEST = 100
"""Positives of a task in both from which the ratio is told."""
OLD, LACKING = 7 * 86_400_000_000, 0.05
"""Age of the history that is read (microseconds), and share of events of users or on items that it lacks and
that are known at their moment, from which it is said."""
NEW_USERS = 0.5
"""Share of the rows of test by users who first appear in it, from which it explains that nothing is told."""
PER_WINDOW = 2
"""Buckets with rows per window, below which a log is short for its windows."""


def of_log(prepared: Prepared, settings: RunSettings) -> list[str]:
    """Return what is odd about a prepared log: one sentence each."""
    return [
        *prepared.summary["warnings"],
        *_ids(prepared, settings),
        *_dropped(prepared, settings),
        *_zones(prepared, settings),
        *_dates(prepared, settings),
        *_unlike(prepared, settings),
        *_heavy_tails(prepared, settings),
        *_known_labels(prepared, settings),
        *_old_history(prepared, settings),
    ]


def shape_of(prepared: Prepared, settings: RunSettings) -> str:
    """Return why a log may not tell who does a task, whatever the task is: users who do not return, or few
    buckets for its windows. Empty if neither is so."""
    found, length, windows = [], settings.data.bucket, len(prepared.cuts)
    test = next(iter(prepared.streamed("test").parts()))
    new = (test.user >= prepared.users_at[test.snapshot]).sum() / max(1, len(test))
    if new > NEW_USERS:
        moment = "" if settings.data.history == "moment" else ", and set data.history: moment"
        found.append(
            f"{new:.0%} of the rows of test are of users who first appear in it, such as sessions: give "
            f"features that are known of them then (data.users, data.context){moment}"
        )
    rows: Table = prepared.history
    number, shorter = len(rows_per_bucket(rows)[0]), suited_bucket(rows, days_of(rows))[0]
    if seconds(shorter) < seconds(length):
        found.append(
            f"only {number} buckets of {length} have rows: set data.bucket: {shorter} and split.cuts: auto"
        )
    elif number < PER_WINDOW * windows:
        found.append(
            f"{number} buckets of {length} have rows, for {windows} windows: take a longer log, or fewer "
            "split.cuts, such as [0.4, 0.6, 0.8]"
        )
    return "; ".join(found)


def _ids(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    log = prepared.summary
    for side, column in (("users", settings.data.user), ("items", settings.data.item)):
        if log["rows"] < ROWS_PER_ID * log[side]:
            yield (
                f"{column!r} has {log[side]:,} values in {log['rows']:,} rows, so it looks like the number "
                f"of a row or of a request; name the column of {side} in data.{side[:-1]}"
            )


def _dropped(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    dropped, rows = prepared.summary["dropped_rows"], prepared.summary["rows"]
    if dropped["duplicates"] > DROPPED * rows:
        yield (
            f"{dropped['duplicates']:,} of {rows:,} rows repeat another in every column and count once; if "
            "they are separate events, give them times that differ, else `data.duplicates: refuse` names the "
            "first"
        )
    if dropped.get("missing_ids", 0) > DROPPED * rows:
        yield (
            f"{dropped['missing_ids']:,} rows without {settings.data.user!r} or {settings.data.item!r} are "
            "left out; if these are visitors whom nobody knows, give each session an id"
        )


def _zones(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    share = prepared.summary.get("with_zone")
    if share is not None and 0 < share < 1:
        yield (
            f"{share:.0%} of the times in {settings.data.time!r} name a zone and the others are read as "
            f"{settings.data.timezone}, so rows may be in the wrong order; set data.timezone to the zone of "
            "the others, or write all with theirs"
        )


def _dates(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    share = prepared.summary.get("midnights", 0.0)
    if settings.data.history == "moment" and share > MIDNIGHTS:
        yield (
            f"{share:.0%} of the times in {settings.data.time!r} are midnights, so they look like dates "
            "among times, and other rows read such events hours before they happened; give their times, or "
            "set data.history: bucket"
        )


def _unlike(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    splits = prepared.summary["splits"]
    whole = {split: max(1, splits[split]["examples"]) for split in ("train", "test")}
    for task in settings.tasks:
        done = {split: splits[split]["tasks"][task.name]["positives"] for split in whole}
        if task.kind == "regression" or min(done.values()) < FEWEST:
            continue
        ratio = (done["test"] / whole["test"]) / (done["train"] / whole["train"])
        if not 1 / UNLIKE < ratio < UNLIKE:
            yield (
                f"{task.name} is {ratio:.1f} times as frequent in test as in training: test is unlike the "
                "time before, so probabilities are off; cut an unusual end off with data.end, or move "
                "split.cuts"
            )


def _heavy_tails(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    train = next(iter(prepared.streamed("train").parts()))
    for t, task in enumerate(settings.tasks):
        done = np.sort(train.labels[train.labels[:, t] > 0, t]).astype(np.float64)
        if task.kind == "regression" and 2 * done[len(done) * 99 // 100 :].sum() > done.sum():
            yield (
                f"1% of the labels of {task.name} above 0 hold more than half of their sum, so a few rows "
                f"decide its errors; predict a column log(1 + {task.label}) in its place, or one with a cap"
            )


def _known_labels(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    if not settings.data.context:
        return
    # of a log that is streamed, the first part of each
    train, valid = (next(iter(prepared.streamed(split).parts())) for split in ("train", "valid"))
    for feature in settings.data.context:
        if feature.kind == "multi":
            continue
        seen, values = (_values(part, prepared, feature) for part in (train, valid))
        found = {
            task.name: _alone(seen, values, train, valid, t)
            for t, task in enumerate(settings.tasks)
            if task.kind == "binary"
        }
        known = {name: area for name, area in found.items() if area > KNOWN}
        if known:
            task, area = max(known.items(), key=lambda one: one[1])
            yield (
                f"the context {feature.name!r} alone has an AUC of {area:.2f} for {task} on validation, as "
                "what follows from the label would have; keep only what is known when the item is shown"
            )


def _old_history(prepared: Prepared, settings: RunSettings) -> Iterator[str]:
    """Say how old the history of test rows is, if they read up to the cut and times are finer than buckets;
    or up to the bucket, and it is that of users who are new in it."""
    read = {"cut": ("snapshot", SIDES), "bucket": ("bucket", SIDES[:1])}.get(settings.data.history)
    if read is None:
        return
    slot, sides = read
    rows: Table = prepared.history
    test = rows.filter(rows.snapshot > prepared.valid_window + 1)
    for side in sides:
        first = {f"{side}_known": rows.time.min(), f"{side}_held": rows[slot].min()}
        test = test.inner_join(rows.group_by(side).aggregate(**first), side)
    cuts: Expr = ibis.literal(prepared.cuts.tolist(), "array<int64>")
    ends = test.bucket if slot == "bucket" else cuts[test.snapshot - 1] + 1
    bucket = seconds(settings.data.bucket) * 1_000_000
    facts = only_row(
        test.aggregate(
            age=(test.time - ends * bucket).mean(),
            fine=(test.time % bucket != 0).mean(),
            **{f"{side}_lacks": (test[f"{side}_held"] == test[slot]).mean() for side in sides},
            **{f"{side}_new": (test[f"{side}_known"] == test.time).mean() for side in sides},
        )
    )
    if (facts["fine"] or 0) < 0.5:
        return
    unread = {side: facts[f"{side}_lacks"] - facts[f"{side}_new"] for side in sides}
    side = max(sides, key=lambda one: unread[one])
    if facts["age"] > OLD or unread[side] > LACKING:
        whose = {"user": "by users", "item": "on items"}[side]
        yield (
            f"what happens in test comes {facts['age'] / 86_400e6:.1f} days after the history that its rows "
            f"read, and {facts[f'{side}_lacks']:.0%} of it is {whose} that are new to it, "
            f"{facts[f'{side}_new']:.0%} at their moment; set `data.history: moment`, so that rows read what "
            "a service knows by then"
        )


def _values(examples: Examples, prepared: Prepared, feature: FeatureSettings) -> NDArray:
    """Return the encoded values of a single-valued context feature. Shape (N,)."""
    if feature.kind == "numeric":
        return examples.context["numeric"][:, prepared.context_features.names("numeric").index(feature.name)]
    return examples.context[feature.name]


def _alone(seen: NDArray, values: NDArray, train: Examples, valid: Examples, t: int) -> float:
    """Return the AUC of one feature for one task on validation; NaN where it does not exist."""
    if values.dtype.kind == "f":
        area = auc(valid.labels[:, t], np.nan_to_num(values))
        return max(area, 1 - area)
    labelled = ~np.isnan(train.labels[:, t])
    size = int(max(values.max(initial=0), seen.max(initial=0))) + 1
    done = np.bincount(seen[labelled], train.labels[labelled, t], size)
    rate = (done + 1) / (np.bincount(seen[labelled], minlength=size) + 2)  # of each category, in training
    return auc(valid.labels[:, t], rate[values])
