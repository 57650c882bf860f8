"""The newest rows as examples: those that preparation makes of the same rows, with labels that are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.config import RunSettings
from mgoe.data import Examples, FeatureEncoders, Prepared, Vocabulary, newest_window, read_rows
from mgoe.data.times import microseconds
from mgoe.errors import DataError
from tests.effort import up_to

from .logs import DAY, START, event_settings, events, exposure_settings, exposures

HOURS = 3600
BUCKET = DAY * 1_000_000
IDS = st.integers(0, 5)
NOW = 2**57
"""Long after every exposure."""


def newest_rows(folder: Path, after: int) -> ibis.Table:
    """The rows of a log after a bucket."""
    log = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))])
    bucket = log["timestamp"].map(lambda moment: microseconds(moment.to_pydatetime()) // BUCKET)
    return ibis.memtable(log[bucket > after])


def rows_of(examples: Examples, mask: np.ndarray) -> list[tuple]:
    labels = np.nan_to_num(examples.labels[mask], nan=-1)
    columns = [examples.user[mask], examples.item[mask], examples.bucket[mask], *labels.T]
    columns += [values[mask] for values in examples.context.values()]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def newest(log: ir.Table, settings: RunSettings, known: Any, place: str, now: int, **how: Any) -> Examples:
    """Examples of a log that was not checked before."""
    return newest_window(read_rows(log, settings, place)[0], settings, known, place, now, **how)


def test_exposures_are_those_of_preparation(shown: Path, exposures: RunSettings):
    known = Prepared.open(shown / "data")
    expected = known.examples("test")
    found = newest(
        newest_rows(Path(exposures.data.log[0]), int(known.cuts[-1])), exposures, known, "log", NOW
    )
    every = np.ones(len(expected), np.bool_)
    assert rows_of(found, every) == rows_of(expected, every)


def test_positives_are_those_of_preparation_and_negatives_are_drawn_as_there(
    finished: Path, small: RunSettings
):
    known = Prepared.open(finished / "data")
    expected = known.examples("test")
    log = newest_rows(Path(small.data.log[0]), int(known.cuts[-1]))
    every = np.ones(len(expected), np.bool_)
    same = newest(log, small, known, "log", NOW, as_prepared=True)
    assert rows_of(same, every) == rows_of(expected, every)
    found = newest(log, small, known, "log", NOW)
    drawn, wanted = ((one.labels == 0).all(1) for one in (found, expected))
    positives = rows_of(found, ~drawn)
    assert positives == rows_of(expected, ~wanted)
    done = {row[:3] for row in positives}
    negatives = [row[:3] for row in rows_of(found, drawn)]
    assert not done & set(negatives)
    items = {bucket: {item for _, item, day in done if day == bucket} for _, _, bucket in done}
    assert all(item in items[bucket] for _, item, bucket in negatives)
    assert len(negatives) == pytest.approx(wanted.sum(), rel=0.05)


def knowing(ids: range) -> Any:
    """Encoders that know users and items with these ids."""
    nodes = Vocabulary(pa.array(ids, pa.int64()))
    return SimpleNamespace(users=nodes, items=nodes, context_features=FeatureEncoders((), {}, {}, {}))


@up_to(10)
@given(rows=st.lists(st.tuples(IDS, IDS, st.integers(12, 14)), min_size=1, max_size=30))
def test_newcomers_are_drawn_for_like_others_and_have_no_index(rows: list[tuple[int, int, int]]):
    log = ibis.memtable(events([(user, item, day, "click") for user, item, day in rows]))
    every, found = (newest(log, event_settings(), knowing(range(n)), "log", NOW) for n in (6, 2))
    done = {(user, item, START // DAY + day) for user, item, day in rows}
    positive = every.labels[:, 0] == 1
    pairs = list(zip(every.user.tolist(), every.item.tolist(), every.bucket.tolist(), strict=True))
    assert all((pair in done) == is_done for pair, is_done in zip(pairs, positive, strict=True))
    assert positive.sum() == len(done)
    assert_array_equal(found.user, np.where(every.user < 2, every.user, -1))
    assert_array_equal(found.item, np.where(every.item < 2, every.item, -1))
    assert_array_equal(found.labels, every.labels)


@up_to(10)
@given(hours=st.lists(st.integers(0, 100), min_size=1, max_size=20), now=st.integers(0, 150))
def test_a_label_that_is_not_known_yet_is_missing(hours: list[int], now: int):
    """Purchases are known after 36 hours."""
    settings = exposure_settings()
    log = exposures([(0, item, 0, 1.0, 0.0) for item in range(len(hours))])
    log["timestamp"] = START + np.array(hours) * HOURS
    moment = (START + now * HOURS) * 1_000_000
    found = newest(ibis.memtable(log), settings, knowing(range(20)), "log", moment)
    missing = np.isnan(found.labels)[np.argsort(found.item)]
    assert_array_equal(missing[:, 0], np.array(hours) > now)
    assert_array_equal(missing[:, 1], np.array(hours) + 36 > now)


def test_a_label_that_is_known_early_waits_for_its_delay():
    """Otherwise the newest rows would be mostly ones, since a 0 is known only after the delay."""
    tasks = [
        {"name": "click", "label": "clicked"},
        {"name": "buy", "label": "bought", "known_at": "known", "delay": "36h"},
    ]
    settings = exposure_settings(tasks=tasks)
    log = exposures([(0, item, 0, 1.0, 0.0) for item in range(3)])
    log["timestamp"] = START + np.array([0, 10, 20]) * HOURS
    log["known"] = pd.array([START, START + 50 * HOURS, None], dtype="Int64")
    for now, missing in ((35, [1, 1, 1]), (36, [0, 1, 1]), (49, [0, 1, 1]), (50, [0, 0, 1]), (56, [0, 0, 0])):
        moment = (START + now * HOURS) * 1_000_000
        found = newest(ibis.memtable(log), settings, knowing(range(3)), "log", moment)
        assert_array_equal(np.isnan(found.labels[np.argsort(found.item), 1]), missing)


def test_rows_without_a_task_are_refused():
    log = events([(0, 0, 12, "cart")])
    with pytest.raises(DataError, match="some rows must do a task, found none"):
        newest(ibis.memtable(log), event_settings(), knowing(range(2)), "log", NOW)
