"""Requests that may not pass get the documented status and learn nothing about the inside."""

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mgoe.errors import RequestError
from mgoe.serving.http import protocol
from mgoe.serving.http.app import MISTAKES, _read
from mgoe.serving.http.schemas import EventsRequest, RankRequest
from mgoe.serving.http.settings import Limits, is_loopback
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, get, httpx, served

TOKEN = b"0123456789abcdef"
LIMITS = Limits(body=4096, candidates=50, events=5, seconds=0.5, requests=2)


@pytest.fixture(scope="module")
def guarded(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(
        finished / "bundle", tmp_path_factory.mktemp("state"), LIMITS, (b"another-token-of-16", TOKEN)
    ) as found:
        yield found


def raw(service: Served, text: bytes, wait: float = 60.0) -> tuple[int, bytes]:
    """Return the status and the whole answer to some bytes."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(text)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split()[1]), answer


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN.decode()}", f"Bearer {TOKEN.decode()}x"]
)
def test_a_wrong_token_opens_nothing(guarded: Served, given: str | None):
    headers = {} if given is None else {"Authorization": given}
    for path in ("/v1/about", "/metrics", "/nothing"):
        response = get(guarded.url + path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


def test_every_token_opens_the_service(guarded: Served):
    for token in ("another-token-of-16", TOKEN.decode()):
        assert get(guarded.url + "/v1/about", headers={"Authorization": f"bearer {token}"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
def test_paths_without_user_or_item_data_are_open(guarded: Served, path: str):
    assert get(guarded.url + path).status_code == 200


def test_a_large_body_is_refused(guarded: Served):
    assert guarded.client.post("/v1/rank", content=b"x" * 5000).status_code == 413
    assert guarded.client.post("/v1/rank", content=iter([b"x" * 1000] * 5)).status_code == 413


@pytest.mark.parametrize("announced", [b"Content-Length: %d" % (64 * 2**20), b"Transfer-Encoding: chunked"])
def test_the_answer_to_a_large_body_arrives_before_the_connection_closes(guarded: Served, announced: bytes):
    """The client reads only when it has sent all, which is more than the buffers between both hold."""
    head = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN + b"\r\n%b\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20) if b"chunked" in announced else b"x" * 2**20
    status, answer = raw(guarded, head % announced + piece * 64 + b"0\r\n\r\n" * (b"chunked" in announced))
    assert (status, b"4,096 bytes at most" in answer, b"connection: close" in answer.lower()) == (
        413,
        True,
        True,
    )


def test_a_large_body_that_never_ends_is_answered_at_once_and_read_for_a_while(guarded: Served):
    head = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN + b"\r\n"
    assert raw(guarded, head + b"Content-Length: 5000\r\n\r\n{")[0] == 413
    assert raw(guarded, head + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + b"x" * 5000)[0] == 413
    assert guarded.client.get("/v1/about").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /%b",
        b"GET / HTTP/1.1\r\nHost: %b",
        b"GET / HTTP/1.1\r\n%b",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9 + b"c: %b",
    ],
)
def test_headers_that_never_end_are_refused(guarded: Served, head: bytes):
    status, answer = raw(guarded, head % (b"x" * (protocol.MOST + protocol.PIECE)))
    assert status == 431
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["place"] == "headers"


def test_trailers_that_never_end_close_the_connection(guarded: Served):
    head = (
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + TOKEN
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with pytest.raises((IndexError, ConnectionResetError)):  # no answer
        raw(guarded, head + b"1\r\n{\r\n0\r\n" + b"a: b\r\n" * protocol.MOST)


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 200_000), max_size=6),
    long=st.booleans(),
)
def test_headers_within_the_limit_pass_however_they_arrive(
    guarded: Served, sizes: list[int], cuts: list[int], long: bool
):
    """Requests in sequence with bodies of any size, cut into packets anywhere."""
    name = b"x" * (protocol.MOST - protocol.PIECE) if long else b"x"
    parts = [
        b"POST /v1/none HTTP/1.1\r\nHost: " + name + b"\r\nAuthorization: Bearer " + TOKEN for _ in sizes
    ]
    text = b"".join(
        part + b"\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        for part, size in zip(parts, sizes, strict=True)
    )
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for low, high in itertools.pairwise([0, *sorted(cuts), len(text)]):
            connection.sendall(text[low:high])
        answer = b""
        while answer.count(b"HTTP/1.1 404") < len(sizes) and (part := connection.recv(65536)):
            answer += part
    assert answer.count(b"HTTP/1.1 404") == len(sizes)


def test_a_body_that_never_ends_is_refused(guarded: Served):
    head = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN + b"\r\n"
    status, answer = raw(guarded, head + b"Content-Length: 100\r\n\r\n{")
    assert status == 408
    assert b"connection: close" in answer.lower()
    assert raw(guarded, head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")[0] == 408


def test_too_many_requests_at_once_of_a_token_are_refused(guarded: Served):
    """And none of another token."""
    head = (
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + TOKEN
        + b"\r\nContent-Length: 100\r\n\r\n{"
    )
    refused = threading.Event()

    def ask() -> None:
        while not refused.is_set():
            with suppress(OSError, IndexError):  # the other's turn
                raw(guarded, head)

    waiting = [threading.Thread(target=ask) for _ in range(LIMITS.requests)]
    for thread in waiting:
        thread.start()
    answers: list[httpx.Response] = []
    same = {"Authorization": f"Bearer {TOKEN.decode()}"}

    def is_refused() -> bool:
        answers.append(get(guarded.url + "/v1/about", headers=same))
        return answers[-1].status_code == 429

    try:
        until(is_refused)
        assert guarded.client.get("/healthz").status_code == 200
        assert guarded.client.get("/v1/about").status_code == 200
    finally:
        refused.set()
        for thread in waiting:
            thread.join()
    assert answers[-1].headers["retry-after"] == "1"
    assert get(guarded.url + "/v1/about", headers=same).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(guarded: Served, monkeypatch: pytest.MonkeyPatch):
    async def forever(*_: object) -> list[str | None]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(guarded.reloader, "add", forever)
    response = guarded.client.post("/v1/events", json={"events": [{}]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "0.5 s" in response.json()["error"]


def test_a_defect_shows_no_trace(guarded: Served, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(guarded.reloader.engine.scorer, "in_blocks", broken)
    response = guarded.client.post("/v1/rank", json={"user": 1}, headers={"X-Request-Id": "mine-1"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "mine-1"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "mine-1" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/rank", b"", 422),
        ("POST", "/v1/rank", b"{", 422),
        ("POST", "/v1/rank", b"[" * 4000, 422),
        ("POST", "/v1/rank", b'{"user": "\\ud800"}', 422),
        ("POST", "/v1/rank", b"\xff\xfe", 422),
        ("POST", "/v1/rank", b'{"user": 1' + b"0" * 3000 + b"}", 422),
        ("POST", "/v1/rank", b"{" + b",".join(b'"%d":0' % name for name in range(500)) + b"}", 422),
        ("POST", "/v1/score", b'{"users": [1], "items": [' + b"1," * 50 + b"1]}", 422),
        ("POST", "/v1/events", b'{"events": []}', 422),
        ("POST", "/v1/events", b'{"events": [{},{},{},{},{},{}]}', 422),
        ("GET", "/v1/explain", b"", 422),
        ("GET", "/v1/explain?user=1&user=2", b"", 422),
        ("GET", "/v1/explain?user=1&who=2", b"", 422),
        ("GET", "/v1/explain?user=1&item=1&context=[1]", b"", 422),
        ("GET", '/v1/explain?user=1&context={"a":' + "[" * 253 + "]" * 253 + "}", b"", 422),
        ("GET", "/v1/explain?user=" + "1" * 600, b"", 422),
        ("GET", "/v1/macro?limit=0", b"", 422),
        ("GET", "/v1/macro?limit=%C2%B2", b"", 422),
        ("GET", "/nothing", b"", 404),
        ("POST", "/v1/rank/", b"{}", 404),
        ("GET", "/v1/rank", b"", 405),
        ("DELETE", "/v1/events", b"", 405),
    ],
)
def test_malformed_requests(guarded: Served, method: str, path: str, body: bytes, status: int):
    response = guarded.client.request(method, path, content=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "place", "position"}


@pytest.mark.parametrize("names", [MISTAKES, 5_000, 200_000])
@pytest.mark.parametrize("model", [RankRequest, EventsRequest])
def test_more_mistakes_than_are_listed_are_counted(names: int, model: type[BaseModel]):
    """Listing all mistakes of a body near the limit would take a second, in which nobody is answered."""
    body = b'{"events":0,' + b",".join(b'"%d":0' % name for name in range(names)) + b"}"
    assert len(body) < Limits().body
    with pytest.raises(
        RequestError, match=f"^body: has {names + 1:,} mistakes, more than are listed; send what"
    ):
        _read(model, body)


def test_the_first_of_a_few_mistakes_is_named():
    with pytest.raises(RequestError, match=r"^x0: "):
        _read(RankRequest, b'{"user": 1, ' + b",".join(b'"x%d":0' % name for name in range(MISTAKES)) + b"}")


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "mine.example")))
