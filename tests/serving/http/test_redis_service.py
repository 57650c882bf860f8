"""Services with their events, exposures and labels on one Redis."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mgoe
from mgoe.cli.app import app
from mgoe.errors import ConfigError, OtherLogError, StoreError
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.redis_server import RedisServer
from mgoe.serving.events.stores import open_log, with_query
from tests.cli.test_serve import process
from tests.effort import slow
from tests.lifecycle.test_taken import counted, counts_of, requests, take
from tests.serving.events.stores import Server
from tests.serving.http.test_live_exposures import gauges, rows
from tests.serving.http.test_live_service import until
from tests.serving.http.test_other_logs import store_of
from tests.serving.served import Served, post, served, timeless

SECRET = "a secret/of#Redis"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


def detail(service: Served) -> str:
    return service.client.get("/readyz").json()["detail"] or ""


def test_what_one_service_takes_the_other_has_and_an_update_learns(
    shown: Path, server: Server, tmp_path: Path
):
    url, old = with_query(server.url, prefix="shop"), mgoe.load(shown / "bundle")
    asked, later = requests(old, 20), {"user": 1, "item": 2, "request": "later"}
    take(open_log(url), old, asked)  # which have waited for their labels
    with (
        served(shown / "bundle", tmp_path / "one", redis=url) as one,
        served(shown / "bundle", tmp_path / "two", redis=url) as two,
    ):
        one.take(exposures=[later], events=[{"user": 10**9, "item": 2, "behavior": "click"}])
        two.take(labels=[{"request": "later", "item": 2, "labels": {"stay": 2}}], exposures=[later])
        until(lambda: gauges(one) == gauges(two) and not two.rank(user=10**9, k=1)["unseen_user"])
        assert rows(one) == rows(two)
        assert (rows(two)[-1]["item_id"], rows(two)[-1]["stay"]) == (2, 2.0)
        assert gauges(two)["mgoe_exposure_duplicates"] == 1
        until(lambda: two.reloader.engine.consumer.stats["exposures"] == 81)
        until(lambda: timeless(one.rank(user=1, k=5)) == timeless(two.rank(user=1, k=5)))
    found = CliRunner().invoke(
        app,
        ["update", str(shown / "bundle"), "--redis", url, "--out", str(tmp_path / "new"), "--groups", "keep"],
    )
    assert found.exit_code == 0, found.output
    new = mgoe.load(tmp_path / "new")
    assert counted(new) - counted(old) == pytest.approx(counts_of(asked))
    with served(tmp_path / "new", tmp_path / "one", redis=url) as again:
        until(lambda: again.reloader.engine.consumer.stats["exposures"] == 1)


def test_a_redis_that_cannot_write_shows_while_nobody_posts(finished: Path, server: Server, tmp_path: Path):
    url, client = with_query(server.url, prefix="full"), RedisServer(server.url).client
    with served(finished / "bundle", tmp_path, redis=url) as service:
        assert not detail(service)
        client.config_set("maxmemory", 1)
        try:
            until(lambda: "the log of events cannot be used" in detail(service))
            assert store_of(service) == (0, 0)
            assert service.rank(user=1, k=3)["ranked"]
        finally:
            client.config_set("maxmemory", 0)
        until(lambda: not detail(service))


def test_a_service_starts_while_redis_is_away(shown: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    server, exposure = Server(tmp_path / "redis"), {"user": 1, "item": 2}
    server.kill()
    try:
        with served(shown / "bundle", tmp_path / "state", redis=server.url) as service:
            assert service.rank(user=1, k=3)["ranked"]
            assert "cannot be used" in detail(service)
            assert "events are away" in caplog.messages
            for records in ({"exposures": [exposure]}, {"events": [exposure | {"behavior": "click"}]}):
                answer = service.client.post("/v1/events", json=records)
                assert (answer.status_code, answer.json()["place"]) == (503, "redis")
            server.start()
            until(lambda: not detail(service))
            service.take(exposures=[exposure], events=[{"user": 10**9, "item": 2, "behavior": "click"}])
            assert not service.rank(user=10**9, k=1)["unseen_user"]
            assert len(rows(service)) == 1
    finally:
        server.kill()


@slow
def test_workers_start_while_redis_is_away(shown: Path, tmp_path: Path):
    server = Server(tmp_path / "redis")
    server.kill()
    try:
        words = ("--engine", "torch", "--state", tmp_path / "state", "--redis", server.url)
        with process(shown / "bundle", *words, workers=2) as (_, url, lines):
            assert post(url + "/v1/events", json={"exposures": [{"user": 1, "item": 2}]}).status_code == 503
            server.start()
            until(lambda: post(url + "/v1/events", json={"exposures": [{"user": 1, "item": 2}]}).is_success)
            assert not [line for line in lines if json.loads(line)["event"] == "cannot start"]
    finally:
        server.kill()


def test_the_password_comes_from_a_file_or_the_environment_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server, file = Server(tmp_path / "redis", SECRET), tmp_path / "secret"
    try:
        file.write_text(SECRET + "\n")
        for address in (with_query(server.url, password_file=file), server.url):
            RedisLog(address).identity  # noqa: B018
            with pytest.raises(StoreError, match="cannot be used") as raised:
                RedisLog(with_query(server.url, password_file=wrong(tmp_path))).identity  # noqa: B018
            assert SECRET[2:] not in str(raised.value)
            monkeypatch.setenv("MGOE_REDIS_PASSWORD", SECRET)
    finally:
        server.kill()
    with pytest.raises(ConfigError, match="password cannot be read"):
        RedisServer(with_query(server.url, password_file=tmp_path / "nowhere"))


def wrong(folder: Path) -> Path:
    (folder / "wrong").write_text(SECRET[2:])
    return folder / "wrong"


@pytest.mark.parametrize("address", [f"redis://:{SECRET}@localhost:6379/0", f"localhost:{SECRET}"])
def test_a_wrong_address_is_refused_without_showing_its_password(address: str, finished: Path):
    for words in (["serve", str(finished / "bundle")], ["predict", str(finished / "bundle"), "none"]):
        found = CliRunner().invoke(app, [*words, "--redis", address])
        assert (found.exit_code, "as in redis://host:6379/0" in found.stderr) == (2, True)
        assert "secret" not in found.stderr + found.stdout


def test_a_prefix_remembers_its_deployment(shown: Path, finished: Path, server: Server, tmp_path: Path):
    url = with_query(server.url, prefix="mixed")
    with served(shown / "bundle", tmp_path / "one", redis=url) as one:
        one.take(exposures=[{"user": 1, "item": 2}])
        with served(finished / "bundle", tmp_path / "two", redis=url) as two:
            assert "is of a deployment with the tasks click, buy, stay" in detail(two)
            answer = two.client.post(
                "/v1/events", json={"events": [{"user": 1, "item": 2, "behavior": "click"}]}
            )
            assert answer.status_code == 503
    with pytest.raises(OtherLogError, match="name another prefix"):
        RedisLog(url).claim(["click"])
    assert isinstance(open_log(url), RedisLog)
