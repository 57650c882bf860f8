"""A service follows an alias while requests run, and keeps the version that it has open."""

import threading
from pathlib import Path

from mgoe._util.files import remove_unless_held
from mgoe.release import Registry, served_path
from tests.effort import SOAK
from tests.serving.http.test_live_service import change_manifest, hammer, until
from tests.serving.served import served

MOVES = 20 if SOAK else 2


def test_promotions_and_rollbacks_while_requests_run(registry: Registry, own: Path, tmp_path: Path):
    change_manifest(own, note="another version")
    versions = {registry.aliases["current"], registry.add(own)}
    with served(served_path(Path(f"registry:{registry.path}@current")), tmp_path / "state") as service:
        stop, found = threading.Event(), []
        asking = threading.Thread(target=hammer, args=(service, stop, found))
        asking.start()
        for move in range(MOVES):
            current = registry.rollback() if move else registry.promote(force="a test")
            until(lambda current=current: service.rank(user=1, k=1)["bundle"] == current)
        stop.set()
        asking.join()
        assert {status for status, _ in found} == {200}
        assert {name for _, name in found} <= versions
        assert not remove_unless_held(registry.place("current")), "a service has it open"
    assert registry.place("current").is_dir()
