"""What a service checks and reports when it starts, and how it ends."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

for _name in ("fastapi", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

from mgoe.bundle import MANIFEST  # noqa: E402
from mgoe.config import check_settings  # noqa: E402
from mgoe.errors import ConfigError, MgoeError, StoreError  # noqa: E402
from mgoe.serving.events.event import Event  # noqa: E402
from mgoe.serving.events.log import ServiceLog  # noqa: E402
from mgoe.serving.events.redis_log import RedisLog  # noqa: E402
from mgoe.serving.http import service, supervisor  # noqa: E402
from mgoe.serving.http.settings import ServeSettings  # noqa: E402
from mgoe.serving.scoring.runtime import Runtime  # noqa: E402
from tests._util.jobs import die_on  # noqa: E402
from tests.effort import slow  # noqa: E402
from tests.serving.http.test_live_service import change_manifest  # noqa: E402


class Opened(Exception):
    """The log is open; no bundle is needed."""


def said_of(
    log: ServiceLog, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[tuple[str, str]]:
    """Return level and event of each log line until the log of events is open."""

    def stop(*_: object, **__: object) -> None:
        raise Opened

    monkeypatch.setattr(service, "open_log", lambda *_: log)
    monkeypatch.setattr(service, "Reloader", stop)
    with caplog.at_level(logging.INFO), pytest.raises(Opened):
        service.application(ServeSettings(bundle=folder))
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize(
    ("durable", "said"), [(False, [("WARNING", "events may be lost")]), (True, []), (None, [])]
)
def test_a_redis_that_may_lose_events_gets_a_warning(
    durable: bool | None,
    said: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(RedisLog, "durable", durable)
    assert said_of(object.__new__(RedisLog), tmp_path, monkeypatch, caplog) == said


def test_a_folder_needs_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert said_of(ServiceLog(tmp_path / "log.sqlite"), tmp_path, monkeypatch, caplog) == []


@pytest.mark.parametrize(
    ("bundle", "state"),
    [
        (".", "under/one.state"),
        ("..", "under.state"),
        ("../link", "under/link.state"),
        ("../link/", "under/link.state"),
    ],
)
def test_the_state_is_stored_beside_the_bundle(
    bundle: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """For a link by the name of the link, so that the next bundle behind it keeps the events."""
    (tmp_path / "under" / "one").mkdir(parents=True)
    (tmp_path / "under" / "link").symlink_to("one")
    monkeypatch.chdir(tmp_path / "under" / "one")
    assert Path(os.path.abspath(service.state_of(ServeSettings(bundle=Path(bundle))))) == tmp_path / state
    assert service.state_of(ServeSettings(bundle=Path(bundle), state=tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"redis": "localhost:6379"}, "write it as in redis://host:6379/0"),
        ({"redis": "redis://localhost", "redis_password_file": "nowhere"}, "password cannot be read"),
        ({"state": "file"}, "cannot be used"),
        ({"redis": None}, "pip install"),
        ({"bundle": "."}, "no bundle"),
        ({"window": "2h"}, "found a window of 7200 s"),
    ],
)
def test_workers_are_not_started_if_none_could_start(
    given: dict, message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A wrong address, a file as folder, a missing extra, no bundle, another window."""
    (tmp_path / "file").write_text("")
    ServiceLog(tmp_path / "state" / "log.sqlite").close()
    monkeypatch.chdir(tmp_path)
    if message == "pip install":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    settings = ServeSettings.model_validate(
        {"bundle": finished / "bundle", "state": tmp_path / "state", "workers": 2} | given
    )
    with pytest.raises(MgoeError, match=message):
        service.check_start(settings)


@pytest.mark.parametrize(("check", "message"), [(None, "no bundle"), (die_on, "was killed; memory may")])
def test_a_supervisor_says_what_another_process_has_found(
    check: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor, "configure_logs", lambda: None)
    monkeypatch.setattr(supervisor, "_run", lambda *_, **__: pytest.fail("workers are started"))
    monkeypatch.setattr(supervisor, "_check", check or supervisor._check)
    with pytest.raises(MgoeError, match=message):
        supervisor.serve(ServeSettings(bundle=tmp_path, port=0, workers=2))


def test_workers_start_while_redis_is_away(finished: Path, tmp_path: Path):
    away = {"redis": "redis://127.0.0.1:1/0", "workers": 2, "runtime": Runtime(engine="torch")}
    service.check_start(ServeSettings(bundle=finished / "bundle", state=tmp_path, **away))


@pytest.mark.parametrize(
    ("wrong", "message"), [("log", "a record must hold an event"), ("model", "a bundle does not decide that")]
)
def test_workers_are_not_started_if_each_would_fail(wrong: str, message: str, own: Path, tmp_path: Path):
    """On a record that is not an event, or on a missing model class."""
    settings = ServeSettings(
        bundle=own, state=tmp_path / "state", workers=2, runtime=Runtime(engine="torch"), port=0
    )
    if wrong == "log":
        log = ServiceLog(tmp_path / "state" / "log.sqlite")
        log.append([cast(Event, SimpleNamespace(encode=lambda: b"[]"))])
        log.close()
    else:
        manifest = json.loads((own / MANIFEST).read_text())
        change_manifest(own, model=manifest["model"] | {"base": "nowhere:Model"})
    with pytest.raises(MgoeError, match=message):
        service.check_start(settings)


@pytest.mark.parametrize(
    ("given", "token", "local"),
    [
        ({}, "", True),
        ({"public": True}, "", False),
        ({}, "0123456789abcdef", False),
        ({"host": "::1"}, "", True),
    ],
)
def test_only_a_service_of_this_machine_alone_checks_host_names(
    given: dict, token: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said: list[object] = []
    monkeypatch.setenv("MGOE_TOKEN", token)
    monkeypatch.setattr(service, "Reloader", lambda *_, url, **__: said.append(url))
    monkeypatch.setattr(service, "create_app", lambda *_, local, **__: said.append(local))
    service.application(ServeSettings(bundle=tmp_path, state=tmp_path, **given))
    assert said == ["http://[::1]:8000" if given.get("host") else "http://127.0.0.1:8000", local]


@pytest.mark.parametrize(
    ("window", "held"), [(None, 86_400_000_000), ("5m", 300_000_000), ("90m", 5_400_000_000)]
)
def test_exposures_wait_as_long_as_the_log_says(
    window: str | None, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Which the first service decides: another window is refused and changes nothing."""
    said: list[ServiceLog] = []
    monkeypatch.setattr(service, "Reloader", lambda path, log, *_, **__: said.append(log))
    monkeypatch.setattr(service, "create_app", lambda *_, **__: None)

    def start(window: str | None) -> None:
        service.application(ServeSettings(bundle=tmp_path, state=tmp_path, window=window))

    start(window)
    with pytest.raises(StoreError, match=rf"wait for {held / 1e6:g} s, found a window of 7200 s; leave --w"):
        start("2h")
    start(None)
    assert [log.window for log in said] == [held, held]


@pytest.mark.parametrize("window", ["20s", "4m", "299s"])
def test_a_window_is_not_lengthened_in_silence(window: str):
    with pytest.raises(ConfigError, match=f"must be at least 5m, .* found '{window}'"):
        check_settings(ServeSettings, {"bundle": "bundle", "window": window}, "serve")


def test_the_folder_of_shared_metrics_goes_with_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A service started later in the same process would look for a folder that is gone."""
    there: list[bool] = []
    for name in (supervisor.SETTINGS, "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(supervisor, "check_workers", lambda settings: None)
    monkeypatch.setattr(supervisor, "configure_logs", lambda: None)
    monkeypatch.setattr(
        supervisor, "_run", lambda *_, **__: there.append(Path(os.environ[supervisor.SHARED]).is_dir())
    )
    supervisor.serve(ServeSettings(bundle=tmp_path, port=0, workers=2))
    assert there == [True]
    assert supervisor.SHARED not in os.environ


def test_what_killed_supervisors_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor.tempfile, "tempdir", str(tmp_path))
    (left := tmp_path / "mgoe-metrics-left").mkdir()
    (left / "counter_1.db").touch()
    with supervisor.shared_metrics() as first, supervisor.shared_metrics() as second:
        assert {*tmp_path.iterdir()} == {first, second}
    assert not [*tmp_path.iterdir()]


def test_a_free_port_is_named_before_it_is_listened_on():
    assert supervisor.check_address(ServeSettings(bundle=Path(), port=0)) > 0


STOPPED = """
import asyncio, contextlib, time, torch
from mgoe.serving.http import service, supervisor
from mgoe.serving.http.watch import behind_requests
from mgoe.serving.http.settings import ServeSettings

x = torch.ones(1, requires_grad=True)
x.register_hook(lambda _: [time.sleep(1e-3) for _ in range(10**6)])

def run(*_, **__):
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(behind_requests(x.sum().backward), 1))

supervisor.uvicorn.run, supervisor.configure_logs = run, lambda: None
service.application = service.alone = lambda one: one
supervisor.serve(ServeSettings(bundle=".", port=0))
"""


@slow
def test_a_service_that_stops_while_a_bundle_is_opened_ends_well():
    """Python ends other threads at exit; one in C++ code then aborts the process, as a PyTorch hook shows."""
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_worker_that_stops_while_a_bundle_is_opened_ends_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    last: list[object] = []
    monkeypatch.setattr(supervisor, "configure_logs", lambda: None)
    monkeypatch.setattr(service, "application", lambda settings: settings)
    monkeypatch.setattr(service, "alone", lambda app: app)
    monkeypatch.setattr(supervisor.atexit, "register", last.append)
    monkeypatch.setenv(supervisor.SETTINGS, ServeSettings(bundle=tmp_path).model_dump_json())
    supervisor.worker()
    assert last == [service.leave]


def test_a_worker_that_cannot_start_logs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(supervisor, "configure_logs", lambda: None)
    (file := tmp_path / "file").write_text("")
    monkeypatch.setenv(supervisor.SETTINGS, ServeSettings(bundle=tmp_path, state=file).model_dump_json())
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        supervisor.worker()
    (line,) = caplog.records
    assert (line.levelname, line.getMessage()) == ("ERROR", "cannot start")
    assert line.exc_info is None
