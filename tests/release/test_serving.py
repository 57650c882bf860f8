"""A service follows an alias while requests run, and keeps the version that it has open."""

import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from pathlib import Path

from mgoe._util.files import remove_unless_held
from mgoe.bundle import Bundle
from mgoe.release import Registry, served_path
from tests.effort import SOAK
from tests.release.load import endless, under_load
from tests.serving.http.test_live_service import change_manifest, until
from tests.serving.served import served

MOVES = 20 if SOAK else 3


def test_promotions_and_rollbacks_while_requests_run(registry: Registry, own: Path, tmp_path: Path):
    change_manifest(own, note="another version")
    first, other = Bundle.open(registry.place("current")), registry.add(own)
    with served(served_path(Path(f"registry:{registry.path}@current")), tmp_path / "state") as service:
        with under_load(service.url, endless(first)) as load:
            for move in range(MOVES):
                current = registry.rollback() if move % 2 else registry.promote(other, force="a test")
                until(lambda current=current: service.rank(user=1, k=1)["bundle"] == current)
        assert {name for _, name in load.answers if name} == {first.name, other}
        assert load.acknowledged
        assert not remove_unless_held(registry.place("current")), "a service has it open"
    assert registry.place("current").is_dir()
