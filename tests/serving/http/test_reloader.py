"""A service survives defects, stores that come back and bundles that go away, and frees what it replaced."""

import asyncio
import gc
import queue
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from mgoe.bundle import MANIFEST
from mgoe.errors import StoreError
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.http import watch
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.explanation import explain
from mgoe.serving.scoring.runtime import Runtime
from tests.serving.http.test_live_service import change_manifest, mgoe_name, until
from tests.serving.served import served


def test_a_process_that_ends_does_not_wait_for_a_bundle_that_is_opened():
    """Neither the event loop nor Python, which leaves daemons alone; see test_service.py for a process."""
    opened, seen = threading.Event(), queue.Queue[threading.Thread]()

    def open_slowly() -> None:
        seen.put(threading.current_thread())
        opened.wait(300)

    try:
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(watch.behind_requests(open_slowly), 0.1))
        thread = seen.get(timeout=60)
        assert thread.is_alive()
        assert thread.daemon
    finally:
        opened.set()
    thread.join(60)


def test_events_are_applied_after_a_defect(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with served(finished / "bundle", tmp_path) as service:

        def break_down() -> None:
            raise MemoryError("no room")

        monkeypatch.setattr(service.reloader.engine, "catch_up", break_down)
        service.add({"user": 10**9, "item": 1, "behavior": "buy", "id": "e1"})
        assert service.client.get("/readyz").json()["detail"] == "no room"
        monkeypatch.undo()
        until(lambda: service.client.get("/readyz").json()["detail"] is None)
        assert service.reloader.engine.live.stats["events"] == 1


def test_a_bundle_is_tried_again_if_nothing_was_wrong_with_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "PAUSE", 0.1)
    with served(own, tmp_path / "state") as service:
        opened, before = service.reloader._open, service.reloader.engine
        asked: list[int] = []

        def away_at_first() -> Engine:
            asked.append(1)
            if len(asked) < 3:
                raise StoreError("redis", "is away")
            return opened()

        monkeypatch.setattr(service.reloader, "_open", away_at_first)
        (own / MANIFEST).touch()
        until(lambda: service.reloader.engine is not before)
        assert (len(asked), service.reloader.refused) == (3, None)


def test_processes_of_a_service_open_a_bundle_in_turn(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(own, tmp_path / "state") as service:
        opened, before = service.reloader._open, service.reloader.engine
        others_wait: list[bool] = []

        def open_and_ask_for_a_turn() -> Engine:
            try:
                with FileLock(tmp_path / "state" / "open.lock", timeout=0):
                    others_wait.append(False)
            except Timeout:
                others_wait.append(True)
            return opened()

        monkeypatch.setattr(service.reloader, "_open", open_and_ask_for_a_turn)
        change_manifest(own, note="another")
        until(lambda: service.reloader.engine is not before)
        assert others_wait == [True]


def test_a_missing_bundle_is_reported_and_a_new_one_is_taken(own: Path, tmp_path: Path):
    with served(own, tmp_path / "state") as service:
        shutil.move(own / MANIFEST, tmp_path / "away")
        until(lambda: "missing or cannot be read" in (service.client.get("/readyz").json()["detail"] or ""))
        assert service.rank(user=1, k=1)["items"]
        shutil.move(tmp_path / "away", own / MANIFEST)
        until(lambda: service.client.get("/readyz").json()["detail"] is None)


def test_a_bundle_that_is_replaced_while_it_is_opened_is_not_taken(
    finished: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither at the start nor later: the files that were read may belong to two bundles."""
    opened = []

    def open_and_replace(path: Path, *how: Any) -> Engine:
        engine = Engine(path, *how)
        if len(opened) in (0, 2):
            change_manifest(own, note=len(opened))
        opened.append(engine)
        return engine

    monkeypatch.setattr(watch, "Engine", open_and_replace)
    with served(own, tmp_path / "state") as service:
        assert service.reloader.engine is opened[1]
        change_manifest(own, note="another")
        until(lambda: service.reloader.engine is not opened[1])
        assert service.reloader.engine is opened[3]
        assert service.reloader.engine.name == mgoe_name(own)


@pytest.mark.parametrize("how", [Runtime(engine="torch"), Runtime(engine="onnx")])
def test_an_engine_is_freed_with_its_last_request(finished: Path, tmp_path: Path, how: Any):
    """By reference counts, since objects that exist at the start are never collected (`gc.freeze`)."""
    engine = Engine(finished / "bundle", ServiceLog(tmp_path / "log.sqlite"), tmp_path, how)
    explain(engine, 1, 1, {})
    parts = [weakref.ref(part) for part in (engine, engine.scorer, engine.scorer._rows, engine.live)]
    gc.collect()
    gc.disable()
    try:
        del engine
        assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()
