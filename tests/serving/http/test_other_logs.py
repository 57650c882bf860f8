"""A log that is not the one that was read before: older, emptied, another, or damaged."""

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from mgoe.bundle.held import HELD, Held, write_held
from mgoe.bundle.write import seal
from mgoe.config import load_settings
from mgoe.evaluation import read_rows
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.events.sqlite_log import SqliteLog
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, served

EVENT = {"user": 1, "item": 3, "behavior": "click"}
SHOWN = {"user": 1, "item": 3, "position": 0}


def copied(state: Path, place: Path) -> Path:
    """A backup of a log, as SQLite's own command makes it."""
    place.mkdir()
    with sqlite3.connect(state / "log.sqlite") as log, sqlite3.connect(place / "log.sqlite") as copy:
        log.backup(copy)
    return place


def exchanged(state: Path, other: Path, aside: Path) -> None:
    state.rename(aside)
    shutil.copytree(other, state)


def said(service: Served, **records: list) -> tuple[int, str]:
    answer = service.client.post("/v1/events", json=records)
    return answer.status_code, answer.json().get("error", "")


def detail(service: Served) -> str:
    return service.client.get("/readyz").json()["detail"] or ""


@pytest.mark.parametrize("how", ["older", "grown on", "emptied"])
def test_a_running_service_takes_nothing_into_another_log(shown: Path, tmp_path: Path, how: str):
    """And goes on ranking, and takes records again once the log is back."""
    state = tmp_path / "state"
    with served(shown / "bundle", state) as service:
        service.take(events=[EVENT], exposures=[SHOWN | {"request": "r1"}])
        older = copied(state, tmp_path / "older")
        service.take(events=[EVENT | {"item": 4}], exposures=[SHOWN | {"request": "r2"}])
        consumer, reader = service.reloader.engine.consumer, service.reloader.engine.exposures
        assert consumer._follower
        assert reader
        consumer._follower._next = 0.0  # not only every ten seconds
        until(lambda: consumer.exposures_mark.position == "2")
        if how == "emptied":
            (older / "log.sqlite").unlink()
        SqliteLog(older / "log.sqlite").close()
        if how == "grown on":
            log = ExposureLog(older / "log.sqlite")
            now = time.time_ns() // 1000
            log.append([reader.read_exposure(SHOWN | {"request": f"x{n}"}, now) for n in range(3)], [])
        exchanged(state, older, tmp_path / "latest")
        for records in ({"exposures": [SHOWN | {"request": "r3"}]}, {"events": [EVENT | {"item": 5}]}):
            status, error = said(service, **records)
            assert status == 503
            assert "restore the latest copy, or set this one aside" in error
        until(lambda: "up to which it was read" in detail(service))
        assert service.rank(user=1, k=3)["ranked"]
        shutil.rmtree(state)
        (tmp_path / "latest").rename(state)
        until(lambda: not detail(service))
        service.take(events=[EVENT | {"item": 5}], exposures=[SHOWN | {"request": "r3"}])
        assert ExposureLog(state / "log.sqlite").newest[0] == 3


def test_a_service_that_starts_on_another_log_says_so_and_takes_nothing(shown: Path, tmp_path: Path):
    state, bundle = tmp_path / "state", tmp_path / "bundle"
    SqliteLog(state / "log.sqlite").close()
    log = ExposureLog(state / "log.sqlite")
    shutil.copytree(shown / "bundle", bundle)
    write_held(bundle, {log.identity: Held("7", "5b2e" * 8)})
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").unlink()
    seal(bundle, manifest, load_settings(bundle / "settings.yaml"), read_rows(bundle / "metrics.json"))
    assert HELD in json.loads((bundle / "bundle.json").read_text())["checksums"]
    with served(bundle, state) as service:
        assert "ends before position 7, up to which it was read: it is an older copy" in detail(service)
        for records in ({"events": [EVENT]}, {"exposures": [SHOWN]}):
            assert said(service, **records)[0] == 503
        assert service.rank(user=1, k=3)["ranked"]
    assert log.newest == (0, 0)


def test_a_running_service_takes_nothing_into_a_damaged_log(shown: Path, tmp_path: Path):
    """It goes on ranking, and takes records again once the damaged entry is gone."""
    state = tmp_path / "state"
    with served(shown / "bundle", state) as service:
        service.take(events=[EVENT])
        with sqlite3.connect(state / "log.sqlite") as log:
            log.execute("INSERT INTO events(event, digest) SELECT event, x'00' FROM events")
        until(lambda: "the log is damaged at event 2" in detail(service))
        for records in ({"events": [EVENT | {"item": 5}]}, {"exposures": [SHOWN]}):
            status, error = said(service, **records)
            assert (status, "restore it from an intact copy" in error) == (503, True)
        assert service.rank(user=1, k=3)["ranked"]
        with sqlite3.connect(state / "log.sqlite") as log:
            log.execute("DELETE FROM events WHERE digest = x'00'")
        until(lambda: not detail(service))
        service.take(events=[EVENT | {"item": 5}])
