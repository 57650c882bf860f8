"""A log that is not the one that was read before: older, emptied, another, or damaged."""

import json
import re
import resource
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

import mgoe
from mgoe.bundle.held import HELD, NEW_STORE, Held, write_held
from mgoe.bundle.write import seal
from mgoe.config import load_settings
from mgoe.evaluation import read_rows
from mgoe.serving.events.log import ServiceLog
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
        until(lambda: consumer.exposures_mark.position == "3")
        if how == "emptied":
            (older / "log.sqlite").unlink()
        ServiceLog(older / "log.sqlite").close()
        if how == "grown on":
            log = ServiceLog(older / "log.sqlite")
            now = time.time_ns() // 1000
            log.append((), [reader.read_exposure(SHOWN | {"request": f"x{n}"}, now) for n in range(3)], [])
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
        assert ServiceLog(state / "log.sqlite").newest[0] == 5


def holding(bundle: Path, path: Path, held: dict[str, Held]) -> Path:
    """Copy a bundle, which then holds rows of logs."""
    shutil.copytree(bundle, path)
    write_held(path, held)
    manifest = mgoe.load(bundle).manifest
    (path / "bundle.json").unlink()
    seal(path, manifest, load_settings(path / "settings.yaml"), read_rows(path / "metrics.json"))
    assert HELD in json.loads((path / "bundle.json").read_text())["checksums"]
    return path


def store_of(service: Served) -> tuple[int, int]:
    """Whether the store is up, and whether it is damaged."""
    up, damaged = (
        re.search(rf"^mgoe_store_{name} ([\d.]+)$", service.client.get("/metrics").text, re.MULTILINE)
        for name in ("up", "damaged")
    )
    assert up
    assert damaged
    return int(float(up[1])), int(float(damaged[1]))


def test_a_state_that_is_empty_although_the_bundle_holds_rows_is_shown(shown: Path, tmp_path: Path):
    """As long as a bundle is served that holds none of its rows; it takes events, since it may be meant."""
    of_another = {"A3F0": Held("7", "5b2e" * 8, 1_700_000_000_000_000)}
    bundle, state = holding(shown / "bundle", tmp_path / "bundle", of_another), tmp_path / "state"
    with served(bundle, state) as service:
        assert detail(service) == NEW_STORE
        assert store_of(service) == (1, 1)
        service.take(events=[EVENT])
        assert store_of(service) == (1, 1)
        with closing(ServiceLog(state / "log.sqlite")) as log:
            here = {log.identity: Held(*log.read()[-1][0], last=1_700_000_000_000_000)}
        holding(shown / "bundle", tmp_path / "next", of_another | here)
        bundle.rename(tmp_path / "former")
        (tmp_path / "next").rename(bundle)
        until(lambda: not detail(service))
        assert store_of(service) == (1, 0)


def test_a_full_disk_shows_while_nobody_posts(finished: Path, tmp_path: Path):
    with served(finished / "bundle", tmp_path) as service:
        assert (detail(service), store_of(service)) == ("", (1, 0))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limits[1]))
        try:
            until(lambda: "the log of events cannot be used: File too large" in detail(service))
            assert store_of(service) == (0, 0)
            assert service.rank(user=1, k=3)["ranked"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        until(lambda: not detail(service))
        assert store_of(service) == (1, 0)
        assert not [file for file in tmp_path.iterdir() if file.name.startswith("tmp")]


def test_a_service_that_starts_on_another_log_says_so_and_takes_nothing(shown: Path, tmp_path: Path):
    state = tmp_path / "state"
    ServiceLog(state / "log.sqlite").close()
    log = ServiceLog(state / "log.sqlite")
    bundle = holding(shown / "bundle", tmp_path / "bundle", {log.identity: Held("7", "5b2e" * 8)})
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
            log.execute("INSERT INTO records(kind, record, digest) SELECT kind, record, x'00' FROM records")
        until(lambda: "the log is damaged at event 2" in detail(service))
        for records in ({"events": [EVENT | {"item": 5}]}, {"exposures": [SHOWN]}):
            status, error = said(service, **records)
            assert (status, "restore it from an intact copy" in error) == (503, True)
        assert service.rank(user=1, k=3)["ranked"]
        with sqlite3.connect(state / "log.sqlite") as log:
            log.execute("DELETE FROM records WHERE digest = x'00'")
        until(lambda: not detail(service))
        service.take(events=[EVENT | {"item": 5}])
