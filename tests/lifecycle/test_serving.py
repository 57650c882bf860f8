"""A service follows an alias while requests run, and keeps the version that it has open."""

import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from pathlib import Path
from typing import Any

from mgoe._util.files import remove_unless_held
from mgoe.bundle import Bundle
from mgoe.lifecycle import Registry
from tests.effort import SOAK
from tests.lifecycle.load import endless, under_load
from tests.lifecycle.test_acceptance import changed, enlarge_weights
from tests.serving.http.test_live_service import change_manifest, until
from tests.serving.http.test_shadow import taken
from tests.serving.served import served

MOVES = 20 if SOAK else 3


def test_promotions_and_rollbacks_while_requests_run(registry: Registry, own: Path, tmp_path: Path):
    change_manifest(own, note="another version")
    first, other = Bundle.open(registry.place("current")), registry.add(own)
    with served(registry.path / "current", tmp_path / "state") as service:
        with under_load(service.url, endless(first)) as load:
            until(lambda: bool(load.acknowledged))
            for move in range(MOVES):
                current = registry.rollback() if move % 2 else registry.promote(other, force="a test")
                until(lambda current=current: service.rank(user=1, k=1)["bundle"] == current)
        assert {name for _, name in load.answers if name} == {first.name, other}
        assert not remove_unless_held(registry.place("current")), "a service has it open"
    assert registry.place("current").is_dir()


def rename_tasks(_: Path, manifest: dict[str, Any]) -> None:
    manifest["tasks"] = [{"name": name, "kind": "binary"} for name in ("look", "have")]
    manifest["calibration"] = {}


def test_a_shadow_follows_its_alias(
    registry: Registry, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """There is a candidate only between two promotions."""
    current, shadow = (registry.path / alias for alias in ("current", "candidate"))
    caplog.set_level("INFO")
    changed(finished / "bundle", other := tmp_path / "other", enlarge_weights)
    with served(current, tmp_path / "state", shadow=shadow) as service:
        assert service.shadow is not None
        until(lambda: "shadow waits" in caplog.messages)
        assert service.client.get("/readyz").json()["detail"] is None
        name = registry.add(other)
        until(lambda: taken(service))
        assert service.shadow.engine is not None
        assert service.shadow.engine.name == name
        registry.promote(name, "a test")
        until(lambda: service.shadow is not None and service.shadow.engine is None)
        until(lambda: service.rank(user=1, k=1)["bundle"] == name)
        changed(finished / "bundle", tmp_path / "narrow", rename_tasks)
        registry.add(tmp_path / "narrow")
        until(lambda: service.client.get("/readyz").json()["detail"] is not None)
        detail = service.client.get("/readyz").json()["detail"]
        assert (
            "a shadow must have the tasks of the bundle that answers (click, buy), found look, have" in detail
        )
        assert service.rank(user=1, k=1)["items"]
