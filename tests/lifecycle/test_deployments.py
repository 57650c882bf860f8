"""A store, a Redis prefix and a bundle of another deployment are refused, unless they are moved."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from mgoe.bundle import Bundle
from mgoe.bundle.membership import deployment_of
from mgoe.errors import OtherDeploymentError
from mgoe.lifecycle import CycleSettings, Registry, Sources, run_cycle, update
from mgoe.serving import Event, open_log
from mgoe.serving.events.stores import with_query
from mgoe.serving.http.service import application, check_start
from mgoe.serving.http.settings import ServeSettings
from tests.cli.conftest import Mgoe
from tests.serving.events.stores import Server
from tests.serving.http.test_live_service import until
from tests.serving.served import served

RULE = "is of the deployment .* found a bundle of the deployment"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


def registry_in(folder: Path, bundle: Path) -> Registry:
    made = Registry(folder / "bundles")
    made.promote(made.add(bundle))
    return made


@pytest.mark.parametrize("store", ["file", "redis"])
def test_another_deployment_is_refused_everywhere_and_moved_on_purpose(
    finished: Path, tmp_path: Path, mgoe: Mgoe, store: str, request: pytest.FixtureRequest
):
    """Both have the same first bundle, and so the same tasks."""
    ours, theirs = (registry_in(tmp_path / name, finished / "bundle") for name in ("ours", "theirs"))
    state = tmp_path / "state"
    url = (
        with_query(request.getfixturevalue("server").url, prefix=tmp_path.name) if store == "redis" else None
    )
    logs = state if url is None else with_query(url, state=state)
    words = ("--redis", url) if url else ("--state", state)
    with served(ours.path / "current", state, redis=url) as service:
        service.add({"user": 1, "item": 2, "behavior": "click"})
    last = int(Bundle.open(finished / "bundle").graph.manifest.last)
    log = open_log(logs)
    log.append([Event(10**6 + k, 2, "click", last + k) for k in range(5)])
    log.close()

    settings = {"bundle": theirs.path / "current", "state": state, "redis": url}
    for start in (application, check_start):
        with pytest.raises(OtherDeploymentError, match=RULE):
            start(ServeSettings(**settings, runtime={"engine": "torch"}))
    refused = mgoe("update", theirs.path / "current", *words, "--out", tmp_path / "refused")
    assert (refused.exit_code, "is of the deployment" in " ".join(refused.stderr.split())) == (2, True)
    refused = mgoe("erase", "--registry", theirs.path, *words, "--user", 10**6)
    assert (refused.exit_code, "is of the deployment" in " ".join(refused.stderr.split())) == (2, True)
    with pytest.raises(OtherDeploymentError, match=RULE):
        run_cycle(CycleSettings(registry=theirs.path, state=str(logs), rows=1), lambda step: None)

    made = update(ours.path / "current", Sources(events=logs), tmp_path / "made", groups="keep")
    assert deployment_of(made) == deployment_of(Bundle.open(ours.path / "current"))
    refused = mgoe("registry", "add", theirs.path, made.path)
    assert (refused.exit_code, "is of the deployment" in " ".join(refused.stderr.split())) == (2, True)
    link = tmp_path / "link"
    link.symlink_to(ours.path / "current")
    with served(link, state, redis=url) as service:  # on a swap
        link.unlink()
        link.symlink_to(theirs.path / "current")
        until(lambda: service.reloader.refused is not None)
        assert "is of the deployment" in service.client.get("/readyz").json()["detail"]
        assert service.add({"user": 1, "item": 3, "behavior": "click"})["accepted"] == 1

    assert (
        mgoe("update", theirs.path / "current", *words, "--out", tmp_path / "moved", "--adopt").exit_code == 0
    )
    assert deployment_of(Bundle.open(tmp_path / "moved")) == deployment_of(made)
    assert mgoe("registry", "add", theirs.path, made.path, "--adopt").exit_code == 0
    assert deployment_of(Bundle.open(theirs.place(made.name))) == deployment_of(
        Bundle.open(theirs.path / "current")
    )
    application(ServeSettings(**settings, runtime={"engine": "torch"}, adopt=True))
    with pytest.raises(OtherDeploymentError, match=RULE):
        update(ours.path / "current", Sources(events=logs), tmp_path / "late", groups="keep")


def test_a_bundle_without_a_deployment_is_of_that_of_what_takes_it(
    finished: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    """And so is what is made from it; a rollback changes nothing."""
    state, run = tmp_path / "state", Bundle.open(finished / "bundle")
    with served(run.path, state) as service:
        service.add({"user": 1, "item": 2, "behavior": "click"})
    log = open_log(state)
    ours = log.deployment
    log.append([Event(10**6, 2, "click", int(run.graph.manifest.last) + 5)])
    log.close()
    assert (ours is not None, deployment_of(run)) == (True, None)
    made = update(run.path, Sources(events=state), tmp_path / "made", groups="keep")
    assert deployment_of(made) == ours
    assert [line for line in said.messages if f"is taken for one of the deployment {ours}" in line]
    registry = Registry(tmp_path / "bundles")
    registry.promote(registry.add(run.path))
    assert deployment_of(Bundle.open(registry.path / "current")) not in (None, ours)
    with pytest.raises(OtherDeploymentError, match=RULE):
        registry.add(made.path)
    registry.promote(registry.add(made.path, adopt=True), force="a test")
    before = deployment_of(Bundle.open(registry.place("current")))
    assert registry.rollback() == run.name
    assert deployment_of(Bundle.open(registry.place("current"))) == before
