"""What becomes known of exposures, read as it comes, adds up to what the log says in the end."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import make_settings
from mgoe.errors import StoreError
from mgoe.lifecycle.taken import taken_rows
from mgoe.serving.events.log import DAY, ServiceLog
from mgoe.serving.online.live_rates import AT_ONCE, ExposureFollower
from tests.serving.events.test_exposures import (
    KINDS,
    KNOWN,
    NOW,
    SECOND,
    SHOWN,
    exposure,
    label,
    opened,
    shown,
    take,
)

HOUR = 3600 * SECOND
SETTINGS = make_settings(
    {
        "data": {"log": "unused", "user": "who"},
        "tasks": [
            {"name": "click", "label": "clicked", "delay": "1h"},
            {"name": "buy", "label": "bought", "known_at": "bought_at", "given": "click"},
            {"name": "stay", "label": "stayed", "kind": "regression"},
        ],
    }
)
Totals = dict[str, list[int]]


def followed(log: ServiceLog, after: int = 0) -> ExposureFollower:
    return ExposureFollower(log, SETTINGS.tasks, log.mark(after))


def everything(follower: ExposureFollower, now: int, totals: Totals) -> Totals:
    """Add all that is known now to the totals of each item: counts, then the sum of stays."""
    while (changes := follower.read(now)) is not None:
        for item, counts, values in zip(changes.item, changes.counts, changes.values, strict=True):
            one = totals.setdefault(item, [0] * 8)
            totals[item] = [a + int(b) for a, b in zip(one, [*counts, *values], strict=True)]
    return totals


def expected(log: ServiceLog, now: int, after: int = 0) -> Totals:
    """Count the rows of the log one by one."""
    totals: dict[str, Counter[int]] = {}
    for row in taken_rows(log, SETTINGS, KINDS, now, after).read_all().to_pylist():
        one = totals.setdefault(row["item_id"], Counter())
        one[0] += 1
        labels = [row["clicked"], row["bought"] if row["clicked"] == 1 else None, row["stayed"]]
        for t, value in enumerate(labels):
            one[1 + t] += value is not None
            one[4 + t] += bool(value)
        one[7] += round((row["stayed"] or 0) * 10**6)
    return {item: [one[column] for column in range(8)] for item, one in totals.items()}


@given(
    exposures=st.lists(SHOWN, min_size=1, max_size=12),
    labels=st.lists(KNOWN, max_size=12),
    first=st.integers(0, 5),
    data=st.data(),
)
def test_what_is_read_in_any_parts_adds_up(exposures: list, labels: list, first: int, data: st.DataObject):
    """Records come in any order, some twice; a label may go over to an exposure that comes late."""
    sent = [*(exposure(*one) for one in exposures), *(label(*one) for one in labels)]
    records = data.draw(st.permutations([*sent, *sent[:3]]), "order")
    with opened() as log:
        take(log, *records[:first], now=NOW)
        records, first = records[first:], log.newest[0]  # the bundle holds these
        now, follower, totals = NOW, followed(log, first), Totals()
        while records:
            size = data.draw(st.integers(1, len(records)), "size")
            take(log, *records[:size], now=now)
            records, now = records[size:], now + data.draw(st.sampled_from([SECOND, HOUR]), "pause")
            if data.draw(st.booleans(), "read"):
                everything(follower, now, totals)
                assert totals == expected(log, now, first)
        everything(follower, now, totals)
        assert everything(followed(log, first), now, Totals()) == expected(log, now, first)
        later = now + 2 * HOUR
        assert everything(follower, later, totals) == expected(log, later, first)
        follower.restart()
        assert everything(follower, later, Totals()) == expected(log, later, first)


def test_ones_and_zeros_wait_for_the_delay():
    with opened() as log:
        follower = followed(log)
        take(log, shown(request="q"), {"request": "q", "item": "a", "labels": {"click": 0}})
        assert everything(follower, NOW, Totals()) == {"a": [1, 0, 0, 0, 0, 0, 0, 0]}
        assert follower.read(NOW + HOUR - 11 * SECOND) is None
        assert everything(follower, NOW + HOUR, Totals()) == {"a": [0, 1, 0, 0, 0, 0, 0, 0]}
        assert follower.read(NOW + DAY) is None


def test_a_label_that_differs_later_is_corrected_and_done_wins():
    with opened() as log:
        follower, later = followed(log), NOW + HOUR
        take(log, shown(request="q"), {"request": "q", "item": "a", "labels": {"click": 0, "stay": 2.5}})
        totals = everything(follower, later, Totals())
        assert totals == {"a": [1, 1, 0, 1, 0, 0, 1, 2_500_000]}
        take(log, {"request": "q", "item": "a", "labels": {"click": 1, "stay": 1.5}})
        assert everything(follower, later, totals) == {"a": [1, 1, 0, 1, 1, 0, 1, 2_500_000]}


def test_a_label_counts_though_an_earlier_one_was_dropped_just_before():
    with opened() as log:
        take(log, {"request": "unknown", "item": "a", "labels": {"stay": 2}}, now=NOW)
        take(log, shown(request="q"), now=NOW + DAY)
        follower = followed(log)
        totals = everything(follower, NOW + DAY, Totals())
        take(log, {"request": "q", "item": "a", "labels": {"stay": 3}}, now=NOW + DAY + HOUR)
        assert log.counts["labels dropped"] == 1
        everything(follower, NOW + DAY + HOUR, totals)
        assert totals == expected(log, NOW + DAY + HOUR)


def test_many_exposures_are_read_in_parts():
    with opened() as log:
        follower = followed(log)
        take(log, *(shown(k, "a") for k in range(AT_ONCE + 7)))
        assert follower.is_due
        sizes = []
        while (changes := follower.read(NOW)) is not None:
            sizes.append((len(changes.item), follower.has_more))
        assert sizes == [(AT_ONCE, True), (7, False)]
        assert not follower.is_due  # for some seconds
        assert follower.bytes >= 8 * (AT_ONCE + 7)


def test_a_log_that_is_away_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    with opened() as log:
        follower = followed(log)
        take(log, shown(request="q"), {"request": "q", "item": "a", "labels": {"click": 1}})
        follower.read(NOW)
        take(log, shown(2, "b"))
        with monkeypatch.context() as patch:  # nor does one whose rows cannot be counted
            patch.setattr(follower, "_known", lambda *rows: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                follower.read(NOW + HOUR)

        def away(*_: Any) -> list:
            raise StoreError("log", "away")

        monkeypatch.setattr(log, "rows_of", away)
        with pytest.raises(StoreError):
            follower.read(NOW + HOUR)
        monkeypatch.undo()
        assert everything(follower, NOW + HOUR, Totals()) == {
            "a": [0, 1, 0, 0, 1, 0, 0, 0],
            "b": [1, 0, 0, 0, 0, 0, 0, 0],
        }


def test_ids_are_texts_of_the_log():
    """The vocabulary of the bundle decides what an id is, not the log."""
    assert pa.types.is_string(KINDS["item"])
    with opened() as log:
        take(log, shown(item="07"))
        changes = followed(log).read(NOW)
        assert changes is not None
        assert changes.item[0] == "07"
        assert np.array_equal(changes.counts, [[1, 0, 0, 0, 0, 0, 0]])
