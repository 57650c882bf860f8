"""Each case of examples/serving, with its files as they are shipped: from a registry to the answers of a
version that a cycle has made."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from numpy.testing import assert_allclose

import mgoe
from mgoe.lifecycle import Registry
from mgoe.serving import open_log
from tests.effort import SOAK, slow
from tests.lifecycle.test_taken import counted, counts_of, requests, take
from tests.lifecycle.test_update import stream
from tests.serving.machine import (
    EXAMPLES,
    Machine,
    free_ports,
    lines_of,
    needs,
    nginx,
    read_unit,
)
from tests.serving.served import check_ready

TOKEN = "a-token-of-this-test"
LENIENT = {"margin": 1, "error": 1e6, "calibration": 1e6, "latency": 1e3, "requests": 3}
"""Bounds of a release test: whatever the window, a candidate goes live."""
UNITS = [file.relative_to(EXAMPLES).as_posix() for file in sorted(EXAMPLES.glob("*/*.service"))]


def install(machine: Machine, bundle: Path, *lines: str) -> Registry:
    """Run what a page says, set the cycle up for a small log, and return the registry."""
    machine.administer(line.replace("runs/mine/bundle", str(bundle)) for line in lines)
    cycle = machine.path("/etc/mgoe/cycle.yaml")
    small = {"rows": 100, "weights": "keep", "bounds": LENIENT}
    cycle.write_text(yaml.safe_dump(yaml.safe_load(cycle.read_text()) | small))
    machine.path("/etc/mgoe/tokens").write_text(f"{TOKEN}\n")
    machine.cache_kernels("/var/cache/mgoe")
    return Registry(machine.path("/var/lib/mgoe/bundles"))


def client_of(url: str) -> httpx.Client:
    """A client with a token, which is patient with a busy machine."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120)


def send(client: httpx.Client, **records: list[dict[str, Any]]) -> None:
    """Send records, all of which must be accepted."""
    answer = client.post("/v1/events", json=records)
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == sum(map(len, records.values())), answer.text


def round_of(machine: Machine, unit: str) -> list[dict[str, Any]]:
    """Run a round of the cycle, which must end without a fault, and return its steps."""
    done = machine.once(unit)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def await_version(client: httpx.Client, name: str) -> None:
    """Wait until a service answers by a version."""
    end = time.monotonic() + 180
    while client.post("/v1/rank", json={"user": 1, "k": 3}).json()["bundle"] != name:
        assert time.monotonic() < end
        time.sleep(0.1)


def await_counts(client: httpx.Client, **figures: int) -> None:
    """Wait until a service counts what it should."""
    end = time.monotonic() + 180
    while True:
        lines = client.get("/metrics").text.splitlines()
        if not (missing := {f"{name} {float(n)}" for name, n in figures.items()} - {*lines}):
            return
        assert time.monotonic() < end, missing
        time.sleep(0.1)


@slow
@needs("curl")
def test_one_machine_with_systemd(shown: Path, tmp_path: Path):
    """Exposures and events in, two rounds under a read-only mount, and the next version answers."""
    [port] = free_ports(1)
    machine, first = Machine(tmp_path, {8000: port}), mgoe.load(shown / "bundle")
    registry = install(machine, shown / "bundle", *lines_of("deployment.md", "One machine"))
    assert machine.enabled == {"mgoe.service", "mgoe-cycle.timer"}
    state = machine.path("/var/lib/mgoe/state")
    asked = requests(first, 80)
    take(state, first, asked[:40]).close()  # whose labels are no longer waited for
    with machine.started("mgoe.service"), client_of(f"http://127.0.0.1:{port}") as client:
        check_ready(str(client.base_url))
        assert httpx.post(f"{client.base_url}/v1/rank", json={"user": 1}).status_code == 401
        ready, about = machine.administer(lines_of("deployment.md", "One machine", 1))
        assert json.loads(ready)["status"] == "ready"
        assert json.loads(about)["tasks"] == list(first.tasks)
        send(client, events=[asdict(event) for event in stream(first, 50)])
        assert [step["step"] for step in round_of(machine, "mgoe-cycle.service")][-1] == "learn"
        made = registry.aliases["candidate"]
        if SOAK:
            take(state, first, asked[40:]).close()
            steps = round_of(machine, "mgoe-cycle.service")
            assert [step["step"] for step in steps if "version" in step] == ["test", "promote", "learn"]
        else:
            registry.promote(made, force="a short test")
        assert registry.aliases["current"] == made
        figures = machine.path("/var/lib/mgoe/cycle.prom").read_text()
        assert 'mgoe_cycle_result{result="done"} 1\n' in figures
        await_version(client, made)
        send(client, **requests(first, 1, seed=1)[0])
        await_counts(client, mgoe_exposures_taken=324 if SOAK else 164)
    learned = counted(mgoe.load(registry.place(made))) - counted(first)
    assert learned == pytest.approx(counts_of(asked[:40]))
    assert {json.loads(line)["event"] for line in machine.said.splitlines()} >= {"serving", "stopped"}


SETTLED = 320 if SOAK else 0
"""Exposures on Redis whose labels are no longer waited for."""


@contextmanager
def filled(machine: Machine, bundle: mgoe.Bundle) -> Iterator[None]:
    """Have these exposures on Redis before a service starts."""
    log = open_log(machine.moved("redis://127.0.0.1:6379/0?password_file=/etc/mgoe/redis-password"))
    assert log is not None
    take(log, bundle, requests(bundle, SETTLED // 4, seed=2)).close()
    yield


@slow
@needs("redis-server", "nginx")
def test_two_services_with_redis_and_nginx(shown: Path, tmp_path: Path):
    """Each service sees what the other has taken, one of them dies, and both take the version of a cycle."""
    store, one, other, front = free_ports(4)
    machine = Machine(tmp_path, {6379: store, 8001: one, 8002: other, 8080: front})
    before = [line for line in lines_of("deployment.md", "One machine")[:-1] if "mgoe registry" not in line]
    registry = install(machine, shown / "bundle", *before, *lines_of("deployment.md", "Two services"))
    registry.promote(registry.add(shown / "bundle"))
    first = mgoe.load(shown / "bundle")
    services = {"mgoe-redis.service", "mgoe@8001.service", "mgoe@8002.service"}
    assert machine.enabled == {machine.moved(name) for name in services} | {"mgoe-cycle.timer"}
    with (
        machine.started("mgoe-redis.service") as redis,
        filled(machine, first),
        machine.started("mgoe@8001.service") as killed,
        machine.started("mgoe@8002.service"),
        nginx(machine, machine.path("/etc/nginx/conf.d/mgoe.conf")),
        client_of(f"http://127.0.0.1:{front}") as client,
    ):
        for port in (one, other):
            check_ready(f"http://127.0.0.1:{port}")
        events = [asdict(event) for event in stream(first, 150)]
        records = {"events": events, **requests(first, 1)[0]}
        with client_of(f"http://127.0.0.1:{one}") as direct:
            send(direct, **records)
        with client_of(f"http://127.0.0.1:{other}") as direct:
            await_counts(direct, mgoe_live_events=len(events), mgoe_exposures_taken=SETTLED + 4)
        asked = {"user": events[0]["user"], "k": 3}
        answers = [client.post("/v1/rank", json=asked).json()["scores"] for _ in range(6)]
        assert_allclose(answers, answers[:1] * 6, rtol=1e-3)  # PyTorch rounds otherwise than exported graphs
        for origin, status in ((client.base_url, 200), ("http://other.example", 403)):
            headers = {"Origin": str(origin).rstrip("/")}
            assert client.post("/v1/rank", json=asked, headers=headers).status_code == status
        assert client.get("/metrics").status_code == 404
        if SOAK:
            assert round_of(machine, "mgoe-cycle.service")[-1]["step"] == "learn"
            made = registry.promote(force="a test")
            for port in (one, other):
                with client_of(f"http://127.0.0.1:{port}") as direct:
                    await_version(direct, made)
        killed.kill()
        killed.wait(60)
        for _ in range(4):
            send(client, **records)  # which count once
        with client_of(f"http://127.0.0.1:{other}") as direct:
            await_counts(direct, mgoe_exposures_taken=SETTLED + 4, mgoe_exposure_duplicates=16)
        assert client.get("/v1/explain", params={"user": 10**9, "item": events[0]["item"]}).status_code == 200
        redis.kill()
        redis.wait(60)
        for _ in range(4):
            assert client.post("/v1/events", json=records).is_server_error
        assert client.post("/v1/rank", json=asked).status_code == 200, "a store that is away stops rankings"
    logs = machine.said + machine.path("/var/log/nginx/mgoe.log").read_text()
    assert str(10**9) not in logs, "a log holds an id"


@pytest.mark.parametrize("file", UNITS)
def test_a_unit_can_write_what_it_must_and_is_limited(file: str):
    unit = read_unit(EXAMPLES / file)
    service = {key: values[-1] for key, values in unit["Service"].items()}
    assert service["ProtectSystem"] == "strict"
    assert "ReadWritePaths" not in service, "such a folder must exist, and one of StateDirectory is made"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert service["User"] in (EXAMPLES / "systemd" / "sysusers.conf").read_text().split()
    assert service["LogNamespace"] == "mgoe"
    assert {"MemoryMax", "NoNewPrivileges", "PrivateTmp"} <= service.keys()
    if service.get("Type") != "oneshot":
        assert int(service["LimitNOFILE"]) >= 65536
        assert service["Restart"] == "always"
        assert unit["Install"]["WantedBy"] == ["multi-user.target"]
    if "mgoe serve" in service["ExecStart"] or "mgoe cycle" in service["ExecStart"]:
        assert f"NUMBA_CACHE_DIR=/var/cache/{service['CacheDirectory']}" in unit["Service"]["Environment"]


@needs("systemd-analyze")
@pytest.mark.parametrize("case", ["systemd", "redis"])
def test_systemd_takes_the_units(case: str, tmp_path: Path):
    for folder in ("systemd", case):
        for file in (EXAMPLES / folder).iterdir():
            if file.suffix in (".service", ".timer"):
                (tmp_path / file.name).write_text(file.read_text())
    names = ["mgoe@8001.service" if "@" in file.name else file.name for file in tmp_path.iterdir()]
    words = ["systemd-analyze", "verify", *names]
    checked = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    missing = r".* is not executable: No such file or directory"
    assert [line for line in checked.stderr.splitlines() if not re.fullmatch(missing, line)] == []


@needs("systemd-sysusers")
def test_systemd_makes_the_user():
    words = ["systemd-sysusers", "--dry-run", EXAMPLES / "systemd" / "sysusers.conf"]
    made = subprocess.run(words, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
