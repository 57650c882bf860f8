"""What a shadow says in the log of answers: how two versions differ, and which of them predicted better.

Both have scored the same pairs as of the same moments. Differences are taken over pairs drawn at random from
all that were scored. Quality is taken over pairs with labels. Most of these are what the version that
answered ranked first, among which its own scores differ less than elsewhere, so the other version looks
better than it would by itself. The release test decides what goes live.

Axes: `N` pairs, `M` exposures or events, `T` tasks.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from mgoe.bundle import Bundle
from mgoe.bundle.held import START
from mgoe.bundle.ids import canonical_id
from mgoe.bundle.manifest import iso_time
from mgoe.config import Settings, seconds_of
from mgoe.data.examples import mask_given
from mgoe.data.waiting import longest_delay
from mgoe.errors import DataError
from mgoe.graph.pair_rows import Side
from mgoe.lifecycle.acceptance import Compared, compare, predicted_over_observed
from mgoe.lifecycle.taken import later, taken_rows
from mgoe.metrics import spearman
from mgoe.serving import EventReader, open_log
from mgoe.serving.events.answer_log import FOLDER, IS_OF_SHADOW, Answer, read_answers
from mgoe.serving.events.event import Id

Labelled = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Rows of pairs, which may repeat, and their labels. Shapes (n,) and (n, T)."""


class Difference(Settings):
    """How far the scores of a task differ."""

    task: str
    candidate: float
    """Mean score."""
    current: float
    correlation: float | None
    """Rank correlation of both scores over pairs; null if one of them is constant."""


class ShadowReport(Settings):
    """What `mgoe registry compare` prints.

    Example:
        >>> facts = {"candidate": "3f9a", "baseline": "61c0", "requests": 1, "pairs": 500, "labelled": 0}
        >>> moments = dict.fromkeys(("first", "last"), "2026-05-02T06:10:00+00:00")
        >>> ShadowReport(**facts, **moments, differences=[]).compared
        []
    """

    candidate: str
    """The version that scored as a shadow."""
    baseline: str
    """The version that answered."""
    requests: int
    first: str
    """When the first of these was answered."""
    last: str
    pairs: int
    """Pairs drawn at random from all that were scored."""
    differences: list[Difference]
    """Over these pairs."""
    labelled: int
    """Pairs whose labels have matured."""
    compared: list[Compared] = Field(default=[])
    """Empty while too few users have labels of both kinds."""
    calibration: dict[str, tuple[float, float]] = Field(default={})
    """Predicted over observed by task: of the shadow, and of the version that answered."""


def compare_shadow(
    candidate: str, current: Bundle, state: Path, events: str, window: str = "1d", now: int | None = None
) -> ShadowReport:
    """Compare a version that scored as a shadow with the one that answered.

    Args:
        candidate: Name of the shadow's version.
        current: The bundle that answered.
        state: State folder of the service.
        events: Where its live events are: the same folder, or a Redis server.
        window: For how long an event, or an exposure, may follow its answer.
        now: The present, in microseconds since 1970.

    Raises:
        ConfigError: The window is no length of time.
        DataError: The log holds nothing of the two.
        StoreError: A log cannot be read.
    """
    records = _records(candidate, current.name, state)
    scores = np.array([row for one in records for row in one.served_scores or ()])  # (N, T)
    theirs = np.array([row for one in records for row in one.scores or ()])
    pairs = _pairs(records, current)
    drawn = ~pairs["shown"].to_numpy()
    length = seconds_of(window, "window") * 1_000_000
    rows, labels = outcomes(current, pairs, events, length, time.time_ns() // 1000 if now is None else now)
    users = np.unique(pairs["user"].to_numpy(str), return_inverse=True)[1][rows]
    known = labels, users, current.settings.tasks
    ratios, former = (predicted_over_observed(of[rows], *known) for of in (theirs, scores))
    moments = [one.time for one in records]
    return ShadowReport(
        candidate=candidate,
        baseline=current.name,
        requests=len({one.request for one in records}),
        first=iso_time(min(moments)),
        last=iso_time(max(moments)),
        pairs=int(drawn.sum()),
        differences=[
            Difference(
                task=task,
                candidate=float(theirs[drawn, t].mean()),
                current=float(scores[drawn, t].mean()),
                correlation=None if np.isnan(rho := spearman(scores[drawn, t], theirs[drawn, t])) else rho,
            )
            for t, task in enumerate(current.tasks)
        ],
        labelled=len(rows),
        compared=compare(theirs[rows], scores[rows], *known) if len(rows) else [],
        calibration={task: (ratio, former[task][0]) for task, (ratio, _) in ratios.items()},
    )


def _records(candidate: str, current: str, state: Path) -> list[Answer]:
    log, found = read_answers(state), defaultdict[tuple[str, str | None], list[Answer]](list)
    for one in log.where(IS_OF_SHADOW) if log else ():
        found[one.version, one.served].append(one)
    if (candidate, current) not in found:
        held = ", ".join(
            f"{len({one.request for one in several}):,} of {shadow} beside {version}"
            for (shadow, version), several in found.items()
        )
        raise DataError(
            state / FOLDER,
            f"must hold requests that {candidate} scored beside {current}, found {held or 'none'}; name the "
            "--state of the service, or serve with --shadow",
        )
    return found[candidate, current]


def _pairs(records: list[Answer], bundle: Bundle) -> pd.DataFrame:
    """Return the pairs of records. N of them."""
    users = [one.user or "" for one in records for _ in one.items]
    return pd.DataFrame({
        "user": texts_of(bundle, "user", users),
        "item": texts_of(bundle, "item", [item for one in records for item in one.items]),
        "time": np.repeat([one.time for one in records], [len(one.items) for one in records]),
        "shown": [place < (one.shown or 0) for one in records for place in range(len(one.items))],
    })  # fmt: skip


def outcomes(bundle: Bundle, answers: pd.DataFrame, events: str, window: int, now: int) -> Labelled:
    """Return the labels of pairs that have matured.

    Of a bundle of an exposure log, each exposure that waits for no more labels belongs to the latest answer
    that held its user and item, within the window before it. Of an event log, an item of an answer that is
    older than the window is done where its user did it within the window, and otherwise not. What was done
    belongs to the latest answer before it.

    Args:
        bundle: Gives the tasks.
        answers: N pairs that were answered: their `user` and `item` as `texts_of` returns them, the `time` in
            microseconds since 1970, and whether the answer put the item forward, `shown`.
        events: State folder or Redis server of the service.
        window: Microseconds.
        now: The present, in microseconds since 1970.

    Raises:
        StoreError: The log cannot be read.
    """
    labelled = _of_exposures if bundle.settings.form == "exposures" else _of_events
    rows, labels = labelled(bundle, answers, events, window, now)
    return rows, mask_given(labels.astype(np.float32), bundle.settings.tasks).astype(np.float64)


def texts_of(bundle: Bundle, side: Side, ids: Sequence[Id]) -> list[str]:
    """Return ids as texts: 7 and "7" are one id where ids are numbers. One that no node can have is empty."""
    kind = EventReader.of(bundle).kinds[side]
    found = (canonical_id(one, kind) for one in ids)
    return ["" if one is None else str(one) for one in found]


def _of_exposures(bundle: Bundle, answers: pd.DataFrame, events: str, window: int, now: int) -> Labelled:
    tasks, data, log = bundle.settings.tasks, bundle.settings.data, open_log(events, make=False)
    after, upto = log.before(int(np.min(answers["time"]))), log.settled(longest_delay(tasks), now)
    table = taken_rows(log, bundle.settings, EventReader.of(bundle).kinds, now, after, upto).read_all()
    log.close()
    user, item = (table[name].cast(pa.string()).to_pylist() for name in (data.user_column, data.item))
    row = _latest_before(answers, user, item, table[data.time].cast(pa.int64()).to_numpy(), window)
    labels = np.column_stack([table[str(task.label)].cast(pa.float64()).to_numpy() for task in tasks])
    return row[row >= 0], labels[row >= 0]


def _of_events(bundle: Bundle, answers: pd.DataFrame, events: str, window: int, now: int) -> Labelled:
    log = open_log(events, make=False)
    found, _ = later(log, START, EventReader.of(bundle))
    log.close()
    user, item, time, task = zip(*found, strict=True) if found else ((), (), (), ())
    shown = answers.query("shown").reset_index(names="place")
    row = _latest_before(shown, [*map(str, user)], [*map(str, item)], np.array(time, np.int64), window)
    labels = np.zeros((len(shown), len(bundle.tasks)))
    labels[row[row >= 0], np.array(task, np.int64)[row >= 0]] = 1
    mature = (shown["time"] <= now - window).to_numpy()
    return shown["place"].to_numpy()[mature], labels[mature]


def _latest_before(
    answers: pd.DataFrame, user: Sequence[str], item: Sequence[str], time: NDArray[np.int64], window: int
) -> NDArray[np.int64]:
    """Return for M users, items and times the latest answer within the window before each, -1 without one.

    Of a pair that an answer holds twice, the first row counts. Shape (M,).
    """
    columns = ["user", "item", "time"]
    held = answers.filter(columns).reset_index(names="row").drop_duplicates(columns)
    asked = pd.DataFrame({"user": user, "item": item, "time": time}).reset_index(names="place")
    found = pd.merge_asof(
        asked.astype({"user": object, "item": object}).sort_values("time", kind="stable"),
        held.astype({"user": object, "item": object}).sort_values("time", kind="stable"),
        on="time",
        by=["user", "item"],
        tolerance=window,
    )
    row = np.full(len(time), -1)
    row[found["place"]] = found["row"].fillna(-1)
    return row
