"""What became of answers: labels of pairs from the exposures, or the events, that a service has taken.

Axes: `N` pairs, `M` exposures or events, `T` tasks.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mgoe.bundle import Bundle
from mgoe.bundle.held import START
from mgoe.bundle.ids import canonical_id
from mgoe.data.examples import mask_given
from mgoe.data.waiting import longest_delay
from mgoe.graph.pair_rows import Side
from mgoe.lifecycle.live_events import later
from mgoe.serving import EventReader, open_log
from mgoe.serving.events.event import Id
from mgoe.serving.events.taken import taken_rows

Labelled = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Rows of pairs, which may repeat, and their labels. Shapes (n,) and (n, T)."""


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
    user, item = (table[name].cast(pa.string()).to_pylist() for name in (data.user, data.item))
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
