"""Who may ask for what, and how a service learns of new tokens."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

for _name in ("orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

from mgoe.bundle.calibration import Calibration  # noqa: E402
from mgoe.errors import ConfigError  # noqa: E402
from mgoe.serving.http import tokens as module  # noqa: E402
from mgoe.serving.http.middleware import OPEN, Middleware  # noqa: E402
from mgoe.serving.http.settings import Limits, ServeSettings  # noqa: E402
from mgoe.serving.http.telemetry import Telemetry  # noqa: E402
from mgoe.serving.http.tokens import ADMIN, ALL, NEEDED, NONE, RANK, Tokens, read_tokens  # noqa: E402
from tests.serving.http.test_middleware import done, never  # noqa: E402
from tests.serving.served import get, served  # noqa: E402

TOKEN, OTHER = b"0123456789abcdef", b"another-token-of-20."
PATHS = [*sorted(NEEDED), "/v1/rank", "/v1/about", "/nothing", *sorted(OPEN)]


def settings_of(file: Path, text: str | None = None) -> ServeSettings:
    if text is not None:
        file.write_text(text)
    return ServeSettings(bundle=file, token_file=file)


def test_a_service_is_not_opened_to_the_network_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MGOE_TOKEN", raising=False)
    settings = ServeSettings(bundle=tmp_path, host="0.0.0.0")
    with pytest.raises(ConfigError, match="a token is needed"):
        read_tokens(settings)
    assert read_tokens(settings.model_copy(update={"public": True})) == {}
    assert read_tokens(ServeSettings(bundle=tmp_path)) == {}
    monkeypatch.setenv("MGOE_TOKEN", TOKEN.decode())
    assert read_tokens(settings) == {TOKEN: ALL}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("\n", "found none"),
        ("short\n", r"line 1: a token has at least 16 characters, found one of 5"),
        (f"{'x' * 20} rank\n\n{'y' * 20} rank,wirte\n", "line 3: scopes are .*, found 'wirte'; write"),
        (f"{'x' * 20} rank, write admin\n", "line 1: scopes are .*, found 'write admin'"),
        (f"{'x' * 20} rank,\n", "line 1: scopes are .*, found ''"),
    ],
)
def test_a_token_file_that_breaks_a_rule(tmp_path: Path, text: str | None, said: str):
    with pytest.raises(ConfigError, match=said):
        read_tokens(settings_of(tmp_path / "tokens", text))


@given(
    lines=st.dictionaries(
        st.text("abcdefABC0123-_.=", min_size=16, max_size=70),
        st.lists(st.sampled_from(sorted(ALL)), max_size=4),
        min_size=1,
        max_size=5,
    ),
    comma=st.sampled_from([",", ", ", " ,"]),
)
def test_a_line_is_a_token_and_its_scopes(
    tmp_path_factory: pytest.TempPathFactory, lines: dict[str, list[str]], comma: str
):
    text = "\n".join(f"{token} {comma.join(scopes)}" for token, scopes in lines.items())
    read = read_tokens(settings_of(tmp_path_factory.getbasetemp() / "tokens", text))
    expected = {
        token.encode(): ALL if ADMIN in scopes or not scopes else frozenset(scopes)
        for token, scopes in lines.items()
    }
    assert read == expected
    held = Tokens(lambda: read)
    assert {token: held.scopes(f"bearer {token.decode()}") for token in read} == expected
    assert held.scopes("") == held.scopes(f"Bearer {'z' * 16}") == held.scopes(f"Basic {next(iter(lines))}")
    assert held.scopes("") == NONE


def asked(path: str, scopes: frozenset[str], token: bytes | None = TOKEN) -> tuple[int, frozenset[str]]:
    """Return the status that a token with some scopes gets, and the scopes that the route sees."""
    seen: list[Any] = [0, NONE]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen[1] = scope["state"]["scopes"]
        await done(scope, receive, send)

    async def hear(message: Any) -> None:
        seen[0] = message.get("status", seen[0])

    held = Tokens(lambda: {OTHER: ALL, TOKEN: scopes})
    middleware = Middleware(app, Limits(), held, Telemetry(dict, Calibration), frozenset(), access_log=False)
    headers = [] if token is None else [(b"authorization", b"Bearer " + token)]
    asyncio.run(middleware({"type": "http", "method": "POST", "path": path, "headers": headers}, never, hear))
    return seen[0], seen[1]


@given(path=st.sampled_from(PATHS), scopes=st.sets(st.sampled_from(sorted(ALL)), min_size=1))
def test_each_path_needs_its_scope(path: str, scopes: set[str]):
    allowed = path in OPEN or NEEDED.get(path, RANK) in scopes
    assert asked(path, frozenset(scopes)) == ((200, frozenset(scopes)) if allowed else (403, NONE))
    assert asked(path, frozenset(scopes), OTHER) == (200, ALL)
    assert asked(path, frozenset(scopes), None) == (200 if path in OPEN else 401, NONE)


def test_tokens_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A file that is gone, empty or wrong keeps the former tokens, is logged once and counted each time."""
    file, failures = tmp_path / "tokens", []
    settings = settings_of(file, TOKEN.decode())
    tokens = Tokens(lambda: read_tokens(settings))
    tokens.failed = lambda: failures.append(1)
    monkeypatch.setattr(module, "EVERY", 0.0)
    tokens._due = 0.0

    def scopes(token: bytes) -> frozenset[str]:
        return tokens.scopes(f"Bearer {token.decode()}")

    with caplog.at_level(logging.INFO):
        file.write_text(f"{OTHER.decode()} rank\n")
        assert (scopes(TOKEN), scopes(OTHER)) == (NONE, {RANK})
        for number, spoil in enumerate(
            [lambda: file.unlink(), lambda: file.write_text(""), lambda: file.write_text("x" * 20 + " no")]
        ):
            spoil()
            assert (scopes(TOKEN), scopes(OTHER)) == (NONE, {RANK})
            assert len(failures) == 2 * (number + 1)
        file.write_text(f"{OTHER.decode()}\n{TOKEN.decode()} write")
        assert (scopes(TOKEN), scopes(OTHER)) == ({"write"}, ALL)
    events = [record.getMessage() for record in caplog.records]
    assert events == ["tokens taken", "tokens kept", "tokens kept", "tokens kept", "tokens taken"]
    assert not any(TOKEN.decode() in str(vars(record)) for record in caplog.records)


def test_what_the_service_tells_about_itself(finished: Path, tmp_path: Path):
    """Without a token `/readyz` has a status alone; a path of this machine is for an admin."""
    read = {TOKEN: frozenset({RANK}), OTHER: ALL}
    with served(finished / "bundle", tmp_path, tokens=(OTHER,)) as service:
        service.middleware.tokens = Tokens(lambda: read)
        service.reloader.refused = f"the bundle at {tmp_path} was refused"
        bearer = {"Authorization": f"Bearer {TOKEN.decode()}"}
        for path, word in (("/healthz", "ok"), ("/readyz", "ready")):
            assert get(service.url + path).json() == {"status": word}
            assert get(service.url + path, headers=bearer).json() == {"status": word}
            assert service.client.get(path).json()["bundle"] == service.reloader.engine.name
        assert str(tmp_path) in service.client.get("/readyz").json()["detail"]
        assert service.client.get("/v1/about").json()["busiest_users"]
        assert get(service.url + "/v1/about", headers=bearer).json()["busiest_users"] == []
        refused = get(service.url + "/metrics", headers=bearer)
        assert refused.status_code == 403
        assert refused.json()["error"].startswith("needs a token with the scope admin, found one with rank;")
        paths = service.client.get("/openapi.json").json()["paths"]
        assert paths["/v1/events"]["post"]["security"] == [{"bearer": ["write"]}]
        assert paths["/v1/rank"]["post"]["security"] == [{"bearer": ["rank"]}]


HUNG_UP = """
import os, signal, sys, time
import uvicorn.supervisors
from mgoe.serving.http.supervisor import ignore_hang_up
ignore_hang_up()
os.kill(os.getpid(), signal.SIGHUP)
config = uvicorn.Config("none:none", workers=2)
supervisor = uvicorn.supervisors.Multiprocess(config, [])
supervisor.restart_all = lambda: sys.exit("the workers are started anew")
os.kill(os.getpid(), signal.SIGHUP)
while not supervisor.signal_queue:
    time.sleep(0.01)
supervisor.handle_signals()
print("serves")
"""


def test_a_hang_up_ends_nothing():
    told = subprocess.run(
        [sys.executable, "-c", HUNG_UP], capture_output=True, text=True, timeout=300, check=False
    )
    assert (told.returncode, told.stdout.strip()) == (0, "serves"), told.stderr
