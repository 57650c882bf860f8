"""A service that takes exposures and labels."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mgoe.errors import StoreError
from mgoe.lifecycle.taken import taken_rows
from mgoe.serving.events.event import EventReader
from mgoe.serving.events.log import ServiceLog
from tests.serving.served import Served, get, served


@pytest.fixture(scope="module")
def taking(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of the bundle of the exposure log, with tasks click, buy and stay."""
    with served(shown / "bundle", tmp_path_factory.mktemp("state")) as found:
        yield found


def gauges(service: Served) -> dict[str, float]:
    page = get(f"{service.url}/metrics").text
    wanted = ("mgoe_exposure", "mgoe_label")
    return {
        name: float(value)
        for name, value in (line.split() for line in page.splitlines() if line.startswith(wanted))
    }


def rows(service: Served) -> list[dict[str, Any]]:
    bundle, log = service.reloader.engine.bundle, service.reloader.log
    assert log is not None
    kinds = EventReader.of(bundle).kinds
    return taken_rows(log, bundle.settings, kinds, time.time_ns() // 1000).read_all().to_pylist()


def test_each_record_has_its_own_outcome_and_all_are_counted(taking: Served):
    before, rows_before = gauges(taking), rows(taking)
    one = {"user": 10**9, "item": 3, "request": "r1", "position": 0, "context": {"device": "phone"}}
    label = {"request": "r1", "item": 3, "labels": {"click": 1, "buy": 0}}
    found = taking.take(
        labels=[
            label,
            label | {"labels": {"clik": 1}},
            label | {"time": "2020-05-01T12:00:00Z"},
            {"request": "r0", "item": 3, "labels": {"click": 1}},
            label | {"labels": {"buy": 1}},
        ],
        exposures=[one, one, one | {"position": "top"}, one | {"item": 10**9}],
        events=[{"user": 10**9, "item": 3, "behavior": "click"}, {"user": 10**9}],
    )
    assert (found["accepted"], found["refused"]) == (7, 4)
    errors = [outcome["error"] for outcome in found["outcomes"]]
    assert [n for n, error in enumerate(errors) if error is not None] == [1, 4, 7, 8]
    assert "position: must be a whole number" in errors[4]
    assert "labels.clik: is no task; did you mean 'click'?" in errors[7]
    assert errors[8].startswith("time: a label must not be known before its exposure, which was at 20")
    assert {name: value - before[name] for name, value in gauges(taking).items()} == {
        "mgoe_exposures_taken": 2, "mgoe_exposure_duplicates": 1, "mgoe_labels_taken": 4,
        "mgoe_label_conflicts": 1, "mgoe_labels_dropped": 0, "mgoe_labels_waiting": 1,
    }  # fmt: skip
    columns = ("item_id", "click", "buy", "position", "device")
    added = [row for row in rows(taking) if row not in rows_before]
    assert [tuple(row[name] for name in columns) for row in added] == [
        (3, 1, 1, 0, "phone"), (10**9, None, None, 0, "phone"),
    ]  # fmt: skip


def test_records_that_many_clients_send_again_count_once(taking: Served):
    before = len(rows(taking))
    records = [
        {
            "exposures": [{"user": user, "item": item, "request": f"many {user}"} for item in range(20)],
            "labels": [{"request": f"many {user}", "item": 0, "labels": {"click": 1}}],
        }
        for user in range(10)
    ]

    def send(order: int) -> None:
        for one in records[::order]:
            taking.take(**one)

    threads = [threading.Thread(target=send, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = rows(taking)[before:]
    assert len(found) == 200
    assert [row["item_id"] for row in found if row["click"]] == [0] * 10


def test_workers_and_a_restart_share_what_was_taken(shown: Path, tmp_path: Path):
    one = {"user": 1, "item": 2, "request": "q"}
    with served(shown / "bundle", tmp_path) as first, served(shown / "bundle", tmp_path) as second:
        first.take(exposures=[one])
        second.take(
            exposures=[one, one | {"item": 3}], labels=[{"user": 1, "item": 2, "labels": {"stay": 2}}]
        )
        assert gauges(first) == gauges(second)
    with served(shown / "bundle", tmp_path) as again:
        assert [(row["item_id"], row["stay"]) for row in rows(again)] == [(2, 2.0), (3, None)]
        assert gauges(again)["mgoe_exposure_duplicates"] == 1


@pytest.mark.parametrize("records", ["exposures", "labels"])
def test_a_bundle_of_an_event_log_takes_none(service: Served, records: str):
    answer = service.client.post("/v1/events", json={records: [{"user": 1, "item": 2}]})
    assert (answer.status_code, answer.json()["place"]) == (422, records)
    assert "found one of an event log; send them as events" in answer.json()["error"]
    assert not any(gauges(service).values())


def test_an_empty_request_is_refused(taking: Served):
    answer = taking.client.post("/v1/events", json={"exposures": []})
    assert answer.status_code == 422
    assert answer.json()["error"] == "must hold an event, an exposure or a label, found none"


def test_a_store_that_is_away_acknowledges_nothing(taking: Served, monkeypatch: pytest.MonkeyPatch):
    def gone(*_: object, **__: object) -> None:
        raise StoreError("store", "is away; start it again")

    with monkeypatch.context() as away:
        away.setattr(ServiceLog, "append", gone)
        answer = taking.client.post("/v1/events", json={"exposures": [{"user": 1, "item": 2}]})
        assert (answer.status_code, answer.json()["place"]) == (503, "store")
    assert taking.take(exposures=[{"user": 1, "item": 2}])["accepted"] == 1
