"""Exposures and labels: what is taken, in any order, and the rows of a log that they make."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import make_settings
from mgoe.data.times import microseconds, read_time
from mgoe.errors import EventError, OtherLogError, StoreError
from mgoe.lifecycle.taken import taken_rows
from mgoe.serving.events.event import EventReader
from mgoe.serving.events.exposure import Exposure, ExposureReader, Label
from mgoe.serving.events.log import DAY, ServiceLog
from mgoe.serving.events.marked import DIGEST, NUMBER
from mgoe.serving.events.stores import open_log
from tests.effort import SOAK, up_to
from tests.serving.events.stores import events

KILLS = 10 if SOAK else 1
ROOT = Path(__file__).parents[3]
SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KINDS = {"user": pa.int64(), "item": pa.string()}
SETTINGS = make_settings(
    {
        "data": {
            "log": "unused",
            "user": "who",
            "position": "place",
            "weight": "importance",
            "context": [
                {"name": "tab"},
                {"name": "tags", "kind": "multi"},
                {"name": "age", "kind": "numeric"},
            ],
        },
        "tasks": [
            {"name": "click", "label": "clicked", "delay": "1h"},
            {"name": "buy", "label": "bought", "known_at": "bought_at"},
            {"name": "stay", "label": "stayed", "kind": "regression"},
        ],
    }
)
TASKS = {task.name: task for task in SETTINGS.tasks}
READER = ExposureReader(
    EventReader({"click": 1, "buy": 2, "stay": 4}, KINDS),
    TASKS,
    {feature.name: feature for feature in SETTINGS.data.context},
)


@contextmanager
def opened(window: int = DAY) -> Iterator[ServiceLog]:
    with tempfile.TemporaryDirectory() as folder:
        log = ServiceLog(Path(folder) / "log.sqlite", window)
        yield log
        log.close()


def take(log: ServiceLog, *records: dict[str, Any], now: int = NOW) -> dict[int, int]:
    """Append records as a client sends them: those with `labels` are labels."""
    exposures = [READER.read_exposure(one, now) for one in records if "labels" not in one]
    labels = [label for one in records if "labels" in one for label in READER.read_labels(one, now)]
    return log.append((), exposures, labels, READER.delay, now)


def rows(log: ServiceLog, as_of: int = NOW + DAY, **between: int) -> list[dict[str, Any]]:
    found = taken_rows(log, SETTINGS, KINDS, as_of, **between).read_all()
    return [
        {
            name: microseconds(value) if name in ("timestamp", "bought_at") and value is not None else value
            for name, value in row.items()
        }
        for row in found.to_pylist()
    ]


def shown(user: float | str = 1, item: str = "a", **more: Any) -> dict[str, Any]:
    return {"user": user, "item": item, "time": (NOW - 10 * SECOND) / SECOND, **more}


def test_rows_are_the_same_moments_in_any_zone():
    """Also in the hour that the clocks of New York show twice."""
    zone, twice = "America/New_York", 1_699_162_200  # 2023-11-05 01:30, and again an hour later
    settings = SETTINGS.model_copy(update={"data": SETTINGS.data.model_copy(update={"timezone": zone})})
    with opened() as log:
        take(log, shown(time=twice), shown(time=twice + 3600))
        found = ibis.memtable(taken_rows(log, settings, KINDS, NOW + DAY).read_all().select(["timestamp"]))
    moments = read_time(found["timestamp"], "timestamp", "auto", "log", zone=zone).to_pyarrow().to_pylist()
    assert moments == [twice * SECOND, (twice + 3600) * SECOND]


# --- in any order, in any parts ---

SECONDS = st.integers(0, 6)
USERS, ITEMS, REQUESTS = st.integers(0, 1), st.sampled_from("ab"), st.sampled_from([None, "r", "s"])
SHOWN = st.tuples(REQUESTS, USERS, ITEMS, SECONDS)
KNOWN = st.tuples(
    REQUESTS, USERS, ITEMS, SECONDS, st.sampled_from(["click", "buy", "stay"]), st.integers(0, 1)
)


def exposure(request: str | None, user: int, item: str, second: int) -> dict[str, Any]:
    """A request id decides whose it is and when, as one that is sent again does."""
    user, second = (user, second) if request is None else (ord(request) % 2, ord(request) % 5)
    return {
        "user": user, "item": item, "time": NOW // SECOND - 100 + second, "position": second,
        "request": request,
    }  # fmt: skip


def label(request: str | None, user: int, item: str, second: int, task: str, value: int) -> dict[str, Any]:
    whose = {"user": user} if request is None else {"request": request}
    return whose | {"item": item, "time": NOW // SECOND - 100 + second, "labels": {task: value}}


def expected(exposures: list[dict], labels: list[dict]) -> list[tuple]:
    """What the records say, one exposure after the other."""
    distinct = {(one["request"] or (one["user"], one["time"]), one["item"]): one for one in exposures}
    best: dict[tuple, tuple[float, float]] = {}
    for one in labels:
        if "request" in one:
            found = [key for key in distinct if key == (one["request"], one["item"])]
        else:
            found = [
                key for key, e in distinct.items() if (e["user"], e["item"]) == (one["user"], one["item"])
            ]
        found = [key for key in found if distinct[key]["time"] <= one["time"]]
        if found:
            ((task, value),) = one["labels"].items()
            latest = max(found, key=lambda key: (distinct[key]["time"], stored(distinct[key])))
            mine = (value, -one["time"])
            best[latest, task] = max(best.get((latest, task), mine), mine)
    return sorted(
        (
            e["user"], e["item"], e["time"] * SECOND, e["position"],
            *(best.get((key, task), (-1, 0))[0] for task in TASKS),
            -best[key, "buy"][1] * SECOND if (key, "buy") in best else e["time"] * SECOND,
        )
        for key, e in distinct.items()
    )  # fmt: skip


def stored(one: dict) -> str:
    """Of exposures at one moment, the label is of that with the last id of a request."""
    return READER.read_exposure(one, NOW).request


@given(
    exposures=st.lists(SHOWN, min_size=2, max_size=12),
    labels=st.lists(KNOWN, min_size=2, max_size=12),
    data=st.data(),
)
def test_any_order_and_any_parts_make_the_same_table(exposures: list, labels: list, data: st.DataObject):
    """Some are sent again."""
    sent = [exposure(*one) for one in exposures], [label(*one) for one in labels]
    records = data.draw(st.permutations([*sent[0], *sent[1], *sent[0][:3], *sent[1][:3]]), "order")
    with opened() as log:
        now = NOW
        while records:
            size = data.draw(st.integers(1, len(records)), "size")
            take(log, *records[:size], now=now)
            records, now = records[size:], now + SECOND
        found = sorted(
            (
                row["who"], row["item_id"], row["timestamp"], row["place"],
                *(-1 if row[str(task.label)] is None else row[str(task.label)] for task in TASKS.values()),
                row["bought_at"],
            )
            for row in rows(log)
        )  # fmt: skip
        assert found == expected(*sent)
        assert log.counts["exposures taken"] == len(found)
        assert log.counts["exposure duplicates"] == len(sent[0]) + len(sent[0][:3]) - len(found)


@up_to(8)
@given(sizes=st.lists(st.integers(1, 4), max_size=6), cut=st.integers(0, 30))
def test_parts_of_the_log_are_the_whole(sizes: list[int], cut: int):
    with opened() as log:
        for n, size in enumerate(sizes):
            take(
                log,
                *(shown(n, str(k)) for k in range(size)),
                {"user": n, "item": "0", "labels": {"click": 1}},
            )
        assert rows(log, upto=cut) + rows(log, after=cut) == rows(log)
        assert [row["clicked"] for row in rows(log)] == [
            1 if k == 0 else None for size in sizes for k in range(size)
        ]


# --- what each record says ---


def test_a_row_holds_what_was_sent():
    with opened() as log:
        context = {"tab": 7, "tags": ["x", 3, None], "age": 41}
        take(log, shown(request="q", position=2, propensity=0.25, context=context), shown(2, "b"))
        take(log, {"request": "q", "item": "a", "labels": {"click": True, "stay": 2.5}})
        one, other = rows(log)
        assert (one.pop(NUMBER), one.pop(DIGEST).hex()) == (1, log.mark(1).digest)
        assert one == {
            "request": "q", "propensity": 0.25, "who": 1, "item_id": "a", "timestamp": NOW - 10 * SECOND,
            "clicked": 1, "bought": None, "stayed": 2.5, "bought_at": NOW - 10 * SECOND, "importance": 1.0,
            "place": 2, "tab": "7", "tags": ["x", "3"], "age": 41.0,
        }  # fmt: skip
        unknown = ("request", "propensity", "clicked", "bought", "stayed", "place", "tab", "tags", "age")
        assert {name for name, value in other.items() if value is None} == set(unknown)


def test_a_label_is_null_until_it_is_known():
    """One and zero alike: at the exposure plus the delay, or when the client says."""
    with opened() as log:
        at = NOW // SECOND - 10
        take(log, shown(1), shown(2))
        take(log, {"user": 1, "item": "a", "labels": {"click": 1, "stay": 3, "buy": 1}, "time": at + 5})
        take(log, {"user": 2, "item": "a", "labels": {"click": 0, "stay": 0, "buy": 0}, "time": at + 5})
        assert [row["clicked"] for row in rows(log, as_of=(at + 3599) * SECOND)] == [None, None]
        assert [row["clicked"] for row in rows(log, as_of=(at + 3600) * SECOND)] == [1, 0]
        assert [(row["stayed"], row["bought"]) for row in rows(log, as_of=NOW)] == [(3, 1), (0, 0)]
        assert rows(log, as_of=NOW - 1) == []  # nothing was taken


def test_done_wins_and_the_first_time_counts():
    with opened() as log:
        at = NOW // SECOND
        take(log, shown(request="q", time=at - 100))
        for second, value in ((-50, 0), (-40, 1), (-30, 1), (-20, 0)):
            take(log, {"request": "q", "item": "a", "labels": {"buy": value}, "time": at + second})
        (row,) = rows(log)
        assert (row["bought"], row["bought_at"]) == (1, (at - 40) * SECOND)
        assert log.counts["label conflicts"] == 3
        take(log, {"request": "q", "item": "a", "labels": {"buy": 0}, "time": at - 20})  # sent again
        assert log.counts["label conflicts"] == 3
        assert log.counts["labels taken"] == 4


def test_a_click_today_and_none_tomorrow_is_no_conflict():
    with opened() as log:
        for second, value in ((1, 1), (5, 0)):
            take(log, shown(time=NOW // SECOND - 10 + second))
            take(
                log, {"user": 1, "item": "a", "labels": {"click": value}, "time": NOW // SECOND - 9 + second}
            )
        assert [row["clicked"] for row in rows(log)] == [1, 0]
        assert log.counts["label conflicts"] == 0


def test_a_request_id_used_again_with_other_items_is_more_items_of_it():
    with opened() as log:
        take(log, shown(request="q"))
        take(log, shown(request="q"), shown(request="q", item="b"))
        assert [(row["request"], row["item_id"]) for row in rows(log)] == [("q", "a"), ("q", "b")]
        assert log.counts["exposure duplicates"] == 1


def test_ids_and_requests_are_one_however_they_are_written():
    with opened() as log:
        take(log, shown(7, "a", request=3), shown("7", "a", request="3"), shown(7.0, "a", request="3"))
        assert [row["who"] for row in rows(log)] == [7]


def test_a_label_known_before_its_exposure_is_refused():
    with opened() as log:
        early = {"request": "q", "item": "a", "labels": {"click": 1}, "time": NOW // SECOND - 11}
        assert take(log, shown(request="q"), early) == {0: NOW - 10 * SECOND}
        assert log.counts["labels taken"] == 0
        assert take(log, early | {"time": NOW // SECOND - 10}) == {}
        assert [row["clicked"] for row in rows(log)] == [1]
        assert take(log, early | {"request": "r"}) == {}  # its exposure may still be one of before
        take(log, shown(request="r"))
        assert [row["clicked"] for row in rows(log)] == [1, None]
        assert log.counts["labels waiting"] == 1


def test_a_clock_that_is_ahead_loses_no_label():
    """The client dates the exposure a minute ahead, and the service the label."""
    for order in (1, -1):
        with opened() as log:
            for one in [shown(time=NOW // SECOND + 60), {"user": 1, "item": "a", "labels": {"buy": 1}}][
                ::order
            ]:
                assert take(log, one) == {}
            ((bought, at),) = [(row["bought"], row["bought_at"]) for row in rows(log)]
            assert (bought, at) == (1, NOW + 60 * SECOND)


def test_labels_wait_for_their_exposure_as_long_as_the_window():
    with opened(window=7200 * SECOND) as log:
        for k in range(3):
            take(log, {"request": f"q{k}", "item": "a", "labels": {"click": 1}}, now=NOW + k)
        assert (log.counts["labels waiting"], log.counts["labels dropped"]) == (3, 0)
        take(log, shown(request="q1"), now=NOW + 7200 * SECOND)
        assert (log.counts["labels waiting"], log.counts["labels dropped"]) == (2, 0)
        take(log, shown(request="q0"), now=NOW + 7200 * SECOND + 1)
        assert (log.counts["labels waiting"], log.counts["labels dropped"]) == (1, 1)
        assert [row["clicked"] for row in rows(log)] == [1, None]


def test_exposures_wait_for_their_labels_as_long_as_the_window():
    """Later rows are final, and a label that comes later is dropped."""
    with opened(window=7200 * SECOND) as log:
        take(log, shown(request="q"))
        take(log, shown(request="r"), now=NOW + SECOND)
        assert log.settled(now=NOW + 7200 * SECOND) == 0
        assert log.settled(now=NOW + 7200 * SECOND + 1) == 1
        assert log.settled(now=NOW + 7202 * SECOND) == 2
        assert log.settled(delay=2 * 7200 * SECOND, now=NOW + 7202 * SECOND) == 0
        take(log, {"request": "q", "item": "a", "labels": {"click": 1}}, now=NOW + 7200 * SECOND + 1)
        assert [row["clicked"] for row in rows(log)] == [None, None]
        take(log, shown(request="z"), now=NOW + 2 * 7200 * SECOND + 2)
        assert log.counts["labels dropped"] == 1


def test_forgetting_keeps_later_exposures_their_labels_and_positions():
    with opened(window=7200 * SECOND) as log:
        early = NOW - 3 * DAY
        for k in range(4):
            take(
                log,
                shown(k, time=early // SECOND),
                {"user": k, "item": "a", "labels": {"click": 1}},
                now=early + k,
            )
        before = rows(log)
        marks = [log.mark(upto) for upto in (0, 1, 3, 5, 7)]  # labels are between them
        log.forget(exposures=log.mark(3).number)
        assert rows(log) == before[1:]
        assert len(log._store.read("SELECT 1 FROM labels")) == 3
        for mark in marks[2:]:
            log.check(mark)
        with pytest.raises(OtherLogError, match=r"begins after position 1, .* train in full on files"):
            log.check(marks[1])
        take(log, shown(9), now=time.time_ns() // 1000)
        assert len(rows(log, after=8, as_of=2 * NOW)) == 1
        log.forget(exposures=1 << 40)
        assert len(rows(log, as_of=2 * NOW)) == 2  # the last that waits no more, and one that does


@up_to(15)
@given(
    exposures=st.lists(SHOWN, max_size=12),
    labels=st.lists(KNOWN, max_size=12),
    limit=st.sampled_from([0, 3, 1 << 40]),
)
def test_erased_exposures_are_gone_with_their_labels_and_change_nothing_else(
    exposures: list, labels: list, limit: int
):
    with opened() as log:
        take(log, *(exposure(*one) for one in exposures), *(label(*one) for one in labels))
        before, marks = rows(log), [log.mark(upto) for upto in range(len(exposures) + 1)]
        until = {"0": NOW - 100 * SECOND + limit * SECOND, "nobody": 1 << 60}
        gone = [row for row in before if row["who"] == 0 and row["timestamp"] <= until["0"]]
        held = {"0"} & {*log.users({"0": 1 << 60})}
        assert held >= {str(row["who"]) for row in before if row["who"] == 0}
        removed = log.erase(until, 1)
        assert removed["exposures"] == len(gone)
        assert rows(log) == [row for row in before if row not in gone]
        assert log.users(until) == []
        assert log.erase(until, 1) == {"events": 0, "exposures": 0, "labels": 0}
        for mark in marks:
            log.check(mark)
        last = log.newest
        take(log, shown(0, "new"), {"user": 0, "item": "new", "labels": {"click": 1}})
        assert log.newest > last
        assert log.newest[1] > last[1]
        assert rows(log)[-1]["clicked"] == 1


def test_many_labels_find_their_exposures_by_an_index():
    with opened() as log:
        exposures = [Exposure(f"r{k}", str(k % 99), "a", NOW) for k in range(40_000)]
        log.append(
            (), exposures, [Label(one.request, "", "a", "click", NOW, 1.0) for one in exposures], now=NOW
        )
        began = time.perf_counter()
        assert sum(row["clicked"] for row in rows(log)) == 40_000
        assert time.perf_counter() - began < 60  # each with each other takes minutes


def test_ids_of_another_type_are_left_out():
    with opened() as log:
        log.append((), [Exposure("rq", "A17", "a", NOW), Exposure("rq", "17", "b", NOW)], [], now=NOW)
        assert [row["who"] for row in rows(log)] == [17]


# --- the file ---


def test_exposures_and_events_share_a_file(tmp_path: Path):
    events_log = ServiceLog(tmp_path / "log.sqlite", 3600 * SECOND)
    events_log.append(events(2))
    log = ServiceLog(tmp_path / "log.sqlite", 3600 * SECOND)
    take(log, shown())
    assert log.identity == events_log.identity
    held = open_log(tmp_path, make=False)
    assert (held.window, rows(held)) == (3600 * SECOND, rows(log))
    assert ServiceLog(tmp_path / "log.sqlite").window == 3600 * SECOND
    with pytest.raises(StoreError, match="holds no log of events"):
        open_log(tmp_path / "nowhere", make=False)


def test_a_full_disk_leaves_nothing(tmp_path: Path):
    log = ServiceLog(tmp_path / "log.sqlite")
    take(log, shown(request="q"))
    log._store.write(lambda connection: connection.execute("PRAGMA max_page_count = 12"))
    with pytest.raises(StoreError, match="full; check that"):
        take(log, *(shown(k, "x" * 500) for k in range(1000)))
    log.close()
    assert len(rows(log)) == 1
    assert log.counts["exposures taken"] == 1


def test_every_acknowledged_record_survives_a_kill(tmp_path: Path):
    """A process that writes is killed at a random moment, again and again."""
    file, acknowledged = tmp_path / "log.sqlite", set()
    log = ServiceLog(file)
    for kill in range(KILLS):
        words = [sys.executable, "-m", "tests.serving.events.test_exposures", str(file), str(kill)]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(10 + kill % 7)]
            process.send_signal(signal.SIGKILL)
            lines += [line for line in process.stdout if line.endswith("\n")]
        acknowledged |= {tuple(json.loads(line)) for line in lines}
        take(log, shown(kill, request=f"here {kill}"))
        acknowledged.add((f"here {kill}", None))
    found = {(row["request"], row["clicked"]) for row in rows(log)}
    assert acknowledged - found == set()
    assert len(acknowledged) > 10 * KILLS


# --- bad input ---


@pytest.mark.parametrize(
    ("wrong", "place", "words"),
    [
        ({"user": None}, "user", "a text of 1 to 512 characters, found none"),
        ({"user": "A17"}, "user", "whole numbers of 64 bits, found 'A17'; send the log's own ids"),
        ({"item": True}, "item", "must be an id"),
        ({"place": 3}, "place", "is no field of an exposure; .* it has user, item, time, request"),
        ({"time": NOW // SECOND + 301}, "time", "at most 5 minutes ahead"),
        ({"time": "today"}, "time", "must be a number since 1970"),
        ({"request": ""}, "request", "a text of 1 to 512 characters, found ''"),
        ({"request": "q" * 513}, "request", "a text of 1 to 512 characters"),
        ({"request": "\ud800"}, "request", "must be an id"),
        ({"position": -1}, "position", "must be a whole number, at least 0 and below 100,000, found -1"),
        ({"position": 1.5}, "position", "found 1.5; or leave it out"),
        ({"position": True}, "position", "found True"),
        ({"position": 10**400}, "position", "must be a whole number"),
        ({"propensity": 0}, "propensity", "must be a probability above 0, at most 1, found 0"),
        ({"propensity": float("nan")}, "propensity", "found nan; or leave it out"),
        ({"context": 3}, "context", "must be values by feature, found 3"),
        (
            {"context": {"tabs": 3}},
            "context.tabs",
            "is no context feature of this bundle; did you mean 'tab'",
        ),
        ({"context": {"tab": ["x"]}}, "context.tab", "must be a text, a number, true or false, found list"),
        ({"context": {"tags": 3}}, "context.tags", "takes a list, or a text with separators, found 3"),
        ({"context": {"age": "old"}}, "context.age", "must be a number within 1e\\+100, found 'old'"),
    ],
)
def test_a_bad_exposure_is_refused(wrong: dict, place: str, words: str):
    with pytest.raises(EventError, match=words) as raised:
        READER.read_exposure(shown() | wrong, NOW)
    assert raised.value.place == place


@pytest.mark.parametrize(
    ("wrong", "place", "words"),
    [
        ({"user": None}, "user", "must be an id"),
        ({"user": "A17", "request": "q"}, "user", "whole numbers"),
        ({"item": None}, "item", "must be an id"),
        ({"position": 3}, "position", "is no field of a label"),
        ({"labels": {}}, "labels", 'must be values by task, as in {"click": 1}, found dict'),
        ({"labels": 1}, "labels", "must be values by task"),
        ({"labels": {"clicks": 1}}, "labels.clicks", "is no task; did you mean 'click'"),
        ({"labels": {"click": 2}}, "labels.click", "must be 0 or 1, found 2; leave an unknown label out"),
        ({"labels": {"click": None}}, "labels.click", "found none; leave an unknown label out"),
        ({"labels": {"stay": -1}}, "labels.stay", "must be a number from 0"),
        ({"labels": {"stay": float("inf")}}, "labels.stay", "must be a number from 0"),
        ({"time": NOW // SECOND + 301}, "time", "at most 5 minutes ahead"),
    ],
)
def test_a_bad_label_is_refused(wrong: dict, place: str, words: str):
    with pytest.raises(EventError, match=words) as raised:
        READER.read_labels({"user": 1, "item": "a", "labels": {"click": 1}} | wrong, NOW)
    assert raised.value.place == place


@pytest.fixture(scope="module")
def whatever(tmp_path_factory: pytest.TempPathFactory) -> ServiceLog:
    return ServiceLog(tmp_path_factory.mktemp("whatever") / "log.sqlite")


@given(
    raw=st.dictionaries(
        st.sampled_from(["user", "item", "time", "request", "position", "propensity", "context", "labels"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["tab", "tags", "age", "click", "stay"]), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    )
)
def test_whatever_is_sent_is_taken_or_refused(whatever: ServiceLog, raw: dict[str, Any]):
    for read in (READER.read_exposure, READER.read_labels):
        with suppress(EventError):
            found = read(raw, NOW)
            whatever.append((), *(([], found) if isinstance(found, list) else ([found], [])), now=NOW)
    assert len(rows(whatever)) == whatever.counts["exposures taken"]


def test_a_label_names_each_task_of_the_record():
    found = READER.read_labels({"request": 5, "item": "a", "labels": {"click": 1, "stay": 2}}, NOW)
    assert found == [Label("r5", "", "a", "click", None, 1.0), Label("r5", "", "a", "stay", None, 2.0)]


if __name__ == "__main__":
    writer, run = ServiceLog(Path(sys.argv[1])), sys.argv[2]
    for number in range(1_000_000):
        name = f"{run}:{number}"
        take(writer, shown(request=name))
        if number % 2:
            take(writer, {"request": name, "item": "a", "labels": {"click": number % 4 // 2}})
        print(json.dumps([name, number % 4 // 2 if number % 2 else None]), flush=True)
