"""`mgoe serve` as a process: workers, figures, a stop that loses nothing, and what it refuses to start
with."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.testclient import TestClient

from mgoe.bundle import Bundle
from mgoe.errors import MgoeError
from mgoe.serving import open_log
from mgoe.serving.events.answer_log import AnswerLog
from mgoe.serving.events.log import records
from mgoe.serving.http.service import check_start, logs_of
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.supervisor import METRICS, shared_metrics
from tests.cli.conftest import Mgoe
from tests.effort import SOAK, slow
from tests.serving.http.test_live_service import until
from tests.serving.served import check_ready, get, post

AS_COPIES = """
import multiprocessing
import mgoe.serving.http.service
import uvicorn._subprocess
from mgoe.cli import main
uvicorn._subprocess.spawn = multiprocessing.get_context("fork")
main()
"""
"""`mgoe`, whose workers are copies of their supervisor: none of them imports the library again."""


AS_SUPERVISOR = """
import psutil, uvicorn
from mgoe.cli import main
uvicorn.run = lambda *_, **__: print(psutil.Process().memory_info().rss)
main()
"""
"""`mgoe`, which prints its memory where it would start workers."""
MEMORY = 120 * 2**20
"""Bytes that a supervisor may keep."""


@contextmanager
def process(
    bundle: Path, *words: object, workers: int = 1, program: Sequence[str] = ("-m", "mgoe")
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The command, its address, and the lines it has logged so far."""
    command = map(str, [sys.executable, *program, "serve", bundle, "--port", 0, "--workers", workers, *words])
    running = subprocess.Popen(
        [*command], stderr=subprocess.PIPE, text=True, env=os.environ, start_new_session=True
    )
    lines: list[str] = []
    found = threading.Event()

    def read() -> None:
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line)
            if '"serving"' in line:
                found.set()
        found.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        assert found.wait(120)
        started = [line for line in map(json.loads, lines) if line["event"] == "serving"]
        assert started, "".join(lines)
        check_ready(url := started[0]["url"], workers=workers)
        yield running, url, lines
    finally:
        with suppress(ProcessLookupError):
            os.killpg(
                running.pid, signal.SIGKILL
            )  # workers too: one that lived on would hold the pipe that is read
        running.wait(30)
        thread.join(30)
        if running.stderr:
            running.stderr.close()


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "bundle", tmp_path / "own"))


@slow
def test_workers_share_events_and_figures_and_stop_when_all_is_answered(own: Path):
    with process(own, "--engine", "torch", workers=2) as (running, url, lines):
        assert (
            post(
                url + "/v1/events", json={"events": [{"user": 10**9, "item": 1, "behavior": "click"}]}
            ).json()["accepted"]
            == 1
        )
        asked, seen, end = 0, 0, time.monotonic() + 60
        while seen < 12:  # of either worker: a connection each
            asked, unseen = (
                asked + 1,
                post(url + "/v1/rank", json={"user": 10**9, "k": 1}).json()["unseen_user"],
            )
            seen = 0 if unseen else seen + 1
            assert time.monotonic() < end
        count = re.search(
            r'mgoe_requests_total\{route="/v1/rank",status="200"\} (\d+)', get(url + "/metrics").text
        )
        assert count
        assert int(count[1]) == asked
        assert psutil.Process(running.pid).memory_info().rss < MEMORY
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(
                b"POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert slow.recv(65536).startswith(b"HTTP/1.1 100")  # a worker waits for the rest
            running.send_signal(signal.SIGTERM)
            end = time.monotonic() + 60
            while not any("Waiting for connections" in line for line in lines):
                assert time.monotonic() < end, "".join(lines)
                time.sleep(0.01)
            slow.sendall(b'{"user": 1, "k":2}')
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert running.wait(60) == 0
    found = [json.loads(line) for line in lines]
    assert {"serving", "stopped", "request"} <= {line["event"] for line in found}
    assert all({"time", "level"} <= set(line) for line in found)


@contextmanager
def registering(url: str, registered: list[int]) -> Iterator[None]:
    """Register one item after the other while the block runs, as long as the service lives."""

    def register() -> None:
        with suppress(httpx.TransportError):
            while not ended.is_set():
                item = {"item": 10**9 + len(registered), "name": "new"}
                assert post(url + "/v1/items", json={"items": [item]}).json()["accepted"] == 1
                registered.append(item["item"])

    ended, thread = threading.Event(), threading.Thread(target=register)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def check_registered(state: Path, registered: list[int]) -> None:
    """Every acknowledged item is in the log of a service."""
    with closing(open_log(state, make=False)) as log:
        assert {*registered} <= {one.item for _, one in records(log)}


@slow
def test_no_acknowledged_item_is_lost_when_a_service_is_killed(own: Path, tmp_path: Path):
    registered: list[int] = []
    for kill in range(20):
        with process(own, "--engine", "torch", "--state", tmp_path) as (running, url, _):
            before = len(registered)
            with registering(url, registered):
                while len(registered) < before + 20 + kill:
                    time.sleep(0.01)
                running.kill()
        check_registered(tmp_path, registered)


def test_a_supervisor_keeps_nothing_of_what_its_workers_open(own: Path):
    words = ["serve", own, "--port", 0, "--workers", 2, "--engine", "torch"]
    done = subprocess.run(
        [sys.executable, "-c", AS_SUPERVISOR, *map(str, words)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEMORY


def test_workers_do_not_outlive_their_supervisor(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And the next supervisor removes the folder of its metrics."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    program, registered = ("-m", "mgoe") if SOAK else ("-c", AS_COPIES), list[int]()
    words = (own, "--engine", "torch", "--state", tmp_path)
    with process(*words, workers=2, program=program) as (running, url, lines):
        host, port = url.removeprefix("http://").split(":")
        with registering(url, registered):
            while len(registered) < 5:
                time.sleep(0.01)
            running.kill()
        running.wait(30)
        check_registered(tmp_path, registered)
        end, free = time.monotonic() + 60, False
        while not free:
            assert time.monotonic() < end, "".join(lines)
            time.sleep(0.1)
            with suppress(OSError), socket.create_server((host, int(port))):
                free = True
    assert len([*folder.glob(f"{METRICS}*")]) == 1
    with shared_metrics() as shared:
        assert [*folder.glob(f"{METRICS}*")] == [shared]


@slow
def test_every_worker_takes_new_tokens_and_none_ends_with_a_hang_up(own: Path, tmp_path: Path):
    old, new, file = "a" * 20, "b" * 20, tmp_path / "tokens"
    file.write_text(old)
    with process(own, "--engine", "torch", "--token-file", file, workers=2) as (running, url, lines):

        def statuses(token: str, path: str = "/v1/about") -> set[int]:
            """Of several connections, so that each worker answers some."""
            headers = {"Authorization": f"Bearer {token}"}
            return {get(url + path, headers=headers).status_code for _ in range(20)}

        workers = psutil.Process(running.pid).children()
        assert (statuses(old), statuses(new)) == ({200}, {401})
        file.write_text(f"{new} rank")
        for one in [running, *workers]:
            if "tracker" not in " ".join(psutil.Process(one.pid).cmdline()):
                one.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while (statuses(old), statuses(new)) != ({401}, {200}):
            assert time.monotonic() < end
        assert statuses(new, "/metrics") == {403}
        file.write_text("")
        time.sleep(2)
        assert (statuses(old), statuses(new)) == ({401}, {200})
        assert psutil.Process(running.pid).children() == workers
        assert sum('"tokens kept"' in line for line in lines) == 2


@slow
def test_one_worker_stops_well(own: Path, tmp_path: Path):
    engine = () if SOAK else ("--engine", "torch")  # which has nothing to export
    words = ("--state", tmp_path / "state", "--no-access-log", *engine)
    with process(own, *words) as (running, url, lines):
        assert get(url + "/v1/about").json()["behaviors"]
        assert get(url + "/v1/about", headers={"Host": "rebound.example"}).status_code == 403
        assert get(url + "/v1/about", headers={"x": "x" * 200_000}).status_code == 431
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    assert not any('"request"' in line for line in lines)
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("workers", "opens"), [(1, "service.application"), (2, "supervisor.check_workers")])
def test_one_that_is_stopped_while_it_opens_its_bundle_ends_well(
    mgoe: Mgoe, own: Path, asked: signal.Signals, workers: int, opens: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"mgoe.serving.http.{opens}", lambda settings: signal.raise_signal(asked))
    monkeypatch.setattr("mgoe.serving.http.supervisor._run", lambda *_, **__: pytest.fail("it goes on"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    try:
        result = mgoe("serve", own, "--port", 0, "--workers", workers)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, result.output) == (0, "")


def test_a_shadow_scores_what_the_service_answers(
    mgoe: Mgoe, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = Path(shutil.copytree(own, tmp_path / "other"))
    (other / "bundle.json").write_text((other / "bundle.json").read_text() + "\n")  # another version by name
    logged = re.compile(r'mgoe_shadow_requests_total{outcome="logged"} [1-9]')

    def ask(app: Any, *_: object, **__: object) -> None:
        with TestClient(app, "http://127.0.0.1") as client:
            until(
                lambda: (
                    client.post("/v1/rank", json={"user": 1}).status_code == 200
                    and logged.search(client.get("/metrics").text) is not None
                )
            )

    monkeypatch.setattr("mgoe.serving.http.supervisor._run", ask)
    monkeypatch.setattr("mgoe.serving.http.supervisor.configure_logs", lambda: None)
    words = ("--port", 0, "--engine", "torch", "--shadow", other, "--shadow-share", 1)
    result = mgoe("serve", own, *words)
    assert result.exit_code == 0, result.output


@pytest.fixture
def two_arms(own: Path, finished: Path, tmp_path: Path) -> Path:
    """The file of an experiment of the served bundle and a copy of it."""
    copy, file = shutil.copytree(finished / "bundle", tmp_path / "copy"), tmp_path / "experiment.yaml"
    file.write_text(
        f"{{id: one, arms: [{{name: a, share: 0.5}}, {{name: b, share: 0.5, bundle: {copy}}}], compare: 0.5}}"
    )
    return file


@slow
def test_no_answer_is_missing_in_the_log_when_a_service_is_killed_and_arms_stay(
    own: Path, two_arms: Path, tmp_path: Path
):
    answered, state = dict[str, tuple[int, str]](), tmp_path / "state"
    words = "--engine", "torch", "--experiment", two_arms, "--state", state
    for _ in range(2):
        with process(own, *words) as (running, url, _):

            def ask(user: int, url: str = url) -> None:
                with suppress(httpx.TransportError):
                    while True:
                        found = post(url + "/v1/recommend", json={"user": user, "k": 3})
                        answered[found.headers["x-request-id"]] = user, found.json()["arm"]

            before, threads = len(answered), [threading.Thread(target=ask, args=(user,)) for user in range(4)]
            for thread in threads:
                thread.start()
            until(lambda before=before: len(answered) >= before + 50)
            running.kill()
            for thread in threads:
                thread.join(120)
    log = AnswerLog(state, make=False)
    held = {one.request: (int(one.user or -1), one.arm) for one in log if one.use == "answer"}
    assert answered.items() <= held.items()
    assert len({*answered.values()}) == 4  # each user has one arm, also after a restart


def test_an_experiment_that_cannot_be_is_one_sentence_before_workers_start(
    own: Path, two_arms: Path, tmp_path: Path
):
    settings = ServeSettings(bundle=own, experiment=[two_arms], state=tmp_path / "state")
    check_start(settings)
    manifest = tmp_path / "copy" / "bundle.json"
    text = two_arms.read_text()
    for wrong, rule in (
        (text.replace("share: 0.5,", "share: 0.4,"), r"the shares must sum to 1, found 0\.9"),
        (text.replace("/copy", "/nowhere"), "nowhere"),
        (text.replace("name: a,", f"name: a, bundle: {manifest.parent},"), "the first arm is the control"),
        ("[]", "must hold a mapping with `id:` and `arms:`, found list"),
    ):
        two_arms.write_text(wrong)
        with pytest.raises(MgoeError, match=rule):
            check_start(settings)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_what_it_does_not_start_with(
    mgoe: Mgoe, own: Path, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MGOE_TOKEN", raising=False)
    monkeypatch.setattr(
        "mgoe.serving.http.service.application",
        lambda settings: logs_of(settings) and Bundle.open(settings.bundle) and pytest.fail("it starts"),
    )
    for words, message in (
        ([own, "--host", "0.0.0.0"], "a token is needed"),
        ([own, "--port", 70000], "port"),
        ([own, "--port", taken], "port: must be free on 127.0.0.1"),
        (
            [own, "--host", "203.0.113.1", "--public"],
            "host: must be an address",
        ),  # of no machine (RFC 5737)
        ([own, "--host", "a..b", "--public"], "host: must be an address"),
        ([own, "--redis", "10.0.0.5:6379"], "--redis: must begin with redis://"),
        ([own, "--workers", 0], "workers"),
        ([own, "--precision", "int8"], "'int8' is not one of 'float32', 'bfloat16'"),
        ([tmp_path / "none"], "holds no bundle"),
        ([own, "--token-file", tmp_path / "none"], "cannot be read"),
    ):
        result = mgoe("serve", *words)
        assert result.exit_code == 2, result.output
        assert message in result.output
        assert "Traceback" not in result.output
    (own / "spec.json").write_text("{}")
    assert "checksum" in mgoe("serve", own).output


def test_the_extra_is_named_where_it_is_missing(mgoe: Mgoe, own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "orjson", None)
    result = mgoe("serve", own)
    assert result.exit_code == 2
    assert "pip install -e '.[serve]'" in result.output
