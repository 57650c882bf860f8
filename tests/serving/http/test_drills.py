"""Backup, restore and upgrade as their scripts do it, on small deployments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mgoe
from mgoe.lifecycle import Registry
from mgoe.lifecycle.erasure import erase, verify
from mgoe.serving import open_log
from tests.effort import slow
from tests.lifecycle.test_taken import requests, take
from tests.lifecycle.test_update import stream
from tests.serving.machine import COMMAND, EXAMPLES, ROOT, Machine, free_ports, lines_of, needs, wait_for_port

pytestmark = needs("curl", "flock", "tar")


STEPS = {"before the backup": 20, "after it": 30, "restored": 20, "sent again, twice": 30}
"""What the drill of a restore says, and how many records it has sent that count."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {})


def deploy(machine: Machine, bundle: Path, redis: str | None = None) -> Registry:
    """Make a registry with one version, and a state with events, and exposures if the bundle is of some; on
    Redis events alone."""
    place, opened = machine.path("/var/lib/mgoe"), mgoe.load(bundle)
    registry, state = Registry(place / "bundles"), place / "state"
    registry.promote(registry.add(bundle))
    if opened.settings.form == "exposures" and redis is None:
        take(state, opened, requests(opened, 10)).close()
    log = open_log(redis or state)
    log.append(stream(opened, 50))
    log.close()
    return registry


@slow
def test_a_loss_is_restored_to_the_last_event(shown: Path, machine: Machine):
    deploy(machine, shown / "bundle")
    [said] = machine.administer(lines_of("backup.md", "Practise a restore"))
    assert said.splitlines() == [f"{when}: {50 + n} events, {40 + n} exposures" for when, n in STEPS.items()]


@slow
@needs("redis-server", "redis-cli")
def test_a_loss_of_redis_is_restored(shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MGOE_REDIS_PASSWORD", "secret")
    [port] = free_ports(1)
    machine = Machine(tmp_path, {6379: port})
    machine.install("redis/redis.conf", "/etc/mgoe/redis.conf")
    machine.writable("/var/lib/mgoe-redis")
    words = ["redis-server", str(machine.path("/etc/mgoe/redis.conf")), "--requirepass", "secret"]
    with machine.running(words, os.environ, tmp_path):
        wait_for_port(port)
        deploy(machine, shown / "bundle", redis := f"redis://127.0.0.1:{port}/0?prefix=shop")
        [said] = machine.administer([f"examples/serving/restore-drill.sh /var/lib/mgoe/bundles '{redis}'"])
    assert said.splitlines() == [f"{when}: {50 + n} events, {n} exposures" for when, n in STEPS.items()]


@slow
@needs("nginx")
def test_an_upgrade_fails_no_request(finished: Path, machine: Machine):
    deploy(machine, finished / "bundle")
    library, command = (machine.path(f"/opt/mgoe-new/{name}") for name in ("lib", "bin/mgoe"))
    shutil.copytree(ROOT / "src" / "mgoe", library / "mgoe")
    version = library / "mgoe" / "__init__.py"
    version.write_text(version.read_text().replace('version("mgoe")', '"99.0.1"'))
    command.parent.mkdir()
    first = f"import sys\nsys.path.insert(0, {str(library)!r})\n"
    command.write_text(COMMAND.replace("import sys\n", first, 1))
    command.chmod(0o755)
    [said] = machine.administer(lines_of("backup.md", "Upgrade"))
    replaced = [line.split(": ")[1] for line in said.splitlines()[:2]]
    assert replaced == [f"{mgoe.__version__}, then 99.0.1"] * 2
    assert "none failed" in said.splitlines()[2]


def test_a_restore_mixes_nothing(finished: Path, machine: Machine):
    before = deploy(machine, finished / "bundle").aliases
    backup, restore = (lines_of("backup.md", heading) for heading in ("Back up", "Restore"))
    machine.administer(backup[:1])
    made = machine.path("/backup/today")
    assert not list((made / "registry").rglob("*lock"))
    empty, bundles, state = (
        machine.path(place) for place in ("/empty", "/var/lib/mgoe/bundles", "/var/lib/mgoe/state")
    )
    for places, message in (
        ([made, bundles, state], f"{bundles} is there"),
        ([made, empty, state], "log.sqlite is there"),
        ([empty, empty, empty], "is no backup"),
    ):
        words = ["sh", EXAMPLES / "restore.sh", *map(str, places)]
        refused = subprocess.run(words, capture_output=True, text=True)
        assert refused.returncode == 2
        assert message in refused.stderr
    machine.administer(restore)
    assert Registry(bundles).aliases == before
    assert len(open_log(state).read()) == 50


@slow
def test_who_was_erased_after_the_backup_is_erased_again(finished: Path, machine: Machine):
    registry = deploy(machine, finished / "bundle")
    backup, restore = (lines_of("backup.md", heading) for heading in ("Back up", "Restore"))
    machine.administer(backup[:1])
    state = machine.path("/var/lib/mgoe/state")
    user = open_log(state).read()[0][1].user
    erase(registry.path, [str(user)], state=state)
    machine.administer(restore)
    assert user not in [event.user for _, event in open_log(state).read()]
    assert verify(registry.path, [str(user)], state=state)["remains"] in ({}, None, [])
