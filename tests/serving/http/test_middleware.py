"""The middleware in front of an application that only waits: which requests it counts, reads and refuses."""

import asyncio
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

for _name in ("orjson", "prometheus_client"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

from mgoe.bundle.calibration import Calibration  # noqa: E402
from mgoe.serving.http.middleware import Middleware, names_loopback  # noqa: E402
from mgoe.serving.http.settings import Limits  # noqa: E402
from mgoe.serving.http.telemetry import Telemetry  # noqa: E402
from mgoe.serving.http.tokens import ALL, Tokens  # noqa: E402

TOKEN, OTHER = b"0123456789abcdef", b"another-token-of-16"
GUARDED = Tokens(lambda: {TOKEN: ALL, OTHER: ALL})
OPEN = ("/", "/healthz", "/readyz", "/openapi.json")


async def done(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def never() -> dict[str, Any]:
    """Wait for a body that never arrives."""
    await asyncio.sleep(60)
    return {}


class Asked:
    """A request in flight with a body that never arrives."""

    def __init__(self, middleware: Middleware, path: str, token: bytes = TOKEN):
        self.status = 0
        headers = [(b"authorization", b"Bearer " + token), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        self.task = asyncio.create_task(middleware(scope, never, self._hear))

    async def _hear(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if self.status == 401:
            await asyncio.sleep(60)  # a client that does not take its refusal


async def as_far_as_they_can() -> None:
    """Let other tasks run until they wait."""
    for _ in range(100):
        await asyncio.sleep(0)


async def statuses(middleware: Middleware, *asked: tuple[str, bytes]) -> list[int]:
    """Return the status of each request once all wait or are answered; 0 is one that still waits."""
    in_flight = [Asked(middleware, *one) for one in asked]
    await as_far_as_they_can()
    for one in in_flight:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in in_flight), return_exceptions=True)
    return [one.status for one in in_flight]


@pytest.fixture
def middleware() -> Middleware:
    limits = Limits(requests=2, seconds=30)
    return Middleware(done, limits, GUARDED, Telemetry(dict, Calibration), frozenset(), access_log=False)


def test_requests_without_a_token_take_no_place(middleware: Middleware):
    wrong, right = ("/v1/rank", b"wrong"), ("/v1/rank", TOKEN)
    assert asyncio.run(statuses(middleware, *[wrong] * 5, right, right, right, wrong)) == [401] * 5 + [
        0,
        0,
        429,
        401,
    ]
    assert not middleware.in_flight


def test_slow_bodies_of_one_token_take_no_place_of_another(middleware: Middleware):
    """However it is written; where none is needed, all requests share the places."""
    slow, other = [("/v1/rank", token) for token in (TOKEN, b" " + TOKEN, TOKEN)], ("/v1/rank", OTHER)
    assert asyncio.run(statuses(middleware, *slow, other, other, other)) == [0, 0, 429, 0, 0, 429]
    assert not middleware.in_flight
    middleware.tokens = Tokens()
    assert asyncio.run(statuses(middleware, *slow)) == [0, 0, 429]


@pytest.mark.parametrize("path", [*OPEN, "/metrics"])
def test_uncounted_paths_are_answered_at_once_without_waiting_for_a_body(middleware: Middleware, path: str):
    right = ("/v1/rank", TOKEN)
    assert asyncio.run(statuses(middleware, right, right, *[(path, TOKEN)] * 3)) == [0, 0, 200, 200, 200]


def test_the_metric_counts_only_requests_that_have_a_place(middleware: Middleware):
    async def counted() -> list[float]:
        in_flight = [
            Asked(middleware, path, token)
            for path, token in [("/v1/rank", TOKEN)] * 3 + [("/v1/rank", b"no"), ("/metrics", TOKEN)]
        ]
        await as_far_as_they_can()
        held = middleware.telemetry.registry.get_sample_value("mgoe_in_flight")
        for one in in_flight:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in in_flight), return_exceptions=True)
        return [held or 0, middleware.telemetry.registry.get_sample_value("mgoe_in_flight") or 0]

    assert asyncio.run(counted()) == [2, 0]


def test_requests_to_open_paths_take_no_place(middleware: Middleware):
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60 if scope["path"] in (*OPEN, "/metrics") else 0)
        await done(scope, receive, send)

    middleware.app = slow
    assert (
        asyncio.run(
            statuses(middleware, *[(path, TOKEN) for path in (*OPEN, "/metrics")], ("/v1/rank", TOKEN))
        )
        == [0] * 6
    )
    assert (
        asyncio.run(
            statuses(middleware, *[(path, TOKEN) for path in (*OPEN, "/metrics")], *[("/v1/rank", TOKEN)] * 3)
        )[-1]
        == 429
    )


# --- browsers ---

PORTS = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
LOOPBACK = st.one_of(
    st.sampled_from(["localhost", "LocalHost", "[::1]"]),
    NAMES.map(lambda name: f"{name}.localhost"),
    st.ip_addresses(v=4, network="127.0.0.0/8").map(str),
)
ELSEWHERE = st.one_of(
    NAMES.map(lambda name: f"{name}.example"),
    NAMES.flatmap(
        lambda name: st.sampled_from([f"localhost.{name}.com", f"127.0.0.1.{name}.io", f"{name}localhost"])
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
).filter(lambda host: not host.startswith("127.") or not host.replace(".", "").isdigit())


def status(path: str = "/v1/rank", token: bool = False, local: bool = False, **headers: str) -> int:
    """Return the status of a request with some headers, at a middleware with or without a token."""
    middleware = Middleware(
        done,
        Limits(),
        GUARDED if token else Tokens(),
        Telemetry(dict, Calibration),
        frozenset(),
        access_log=False,
        local=local,
    )
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    given += [(b"authorization", b"Bearer " + TOKEN)] if token else []
    said: list[int] = []

    async def hear(message: Any) -> None:
        said.append(message.get("status", 0))

    asyncio.run(middleware({"type": "http", "method": "POST", "path": path, "headers": given}, never, hear))
    return said[0]


@given(host=LOOPBACK, port=PORTS)
def test_a_local_service_answers_under_every_loopback_name(host: str, port: str):
    assert names_loopback(host + port)
    assert status(local=True, host=host + port, origin=f"http://{host}{port}") == 200


@given(host=ELSEWHERE, port=PORTS, path=st.sampled_from([*OPEN, "/metrics", "/v1/rank"]))
def test_a_local_service_answers_under_no_other_name(host: str, port: str, path: str):
    """A site may point its own name to 127.0.0.1, and a browser then takes the service for that site."""
    assume(host != "[::1]")
    assert status(path, local=True, host=host + port) == 403
    assert status(path, token=True, host=host + port) == 200


@given(host=st.one_of(LOOPBACK, NAMES), port=PORTS, other=NAMES, token=st.booleans(), local=st.booleans())
def test_pages_of_other_sites_are_refused(host: str, port: str, other: str, token: bool, local: bool):
    assume(other != host.lower())
    origins = [f"https://{other}{port}", f"http://{host}{port}1", "null", f"http://{host}.{other}{port}", ""]
    for origin in origins:
        assert (
            status(token=token, local=local and names_loopback(host), host=host + port, origin=origin) == 403
        )


@pytest.mark.parametrize("token", [False, True])
def test_requests_that_a_browser_marks_as_cross_site_are_refused(token: bool):
    for path in ("/v1/rank", "/v1/events", "/metrics", "/healthz"):
        for site, expected in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
            assert status(path, token, host="localhost:8000", sec_fetch_site=site) == expected
    assert status("/", token, host="localhost:8000", sec_fetch_site="cross-site") == 200  # a link to it


def test_programs_that_send_no_browser_headers_pass():
    assert status(local=True, host="127.0.0.1:8000") == status(local=True) == status(token=True) == 200
