"""Every answer, to any request, is one that the OpenAPI document names."""

import importlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from mgoe.serving.http.settings import Limits
from tests.effort import SOAK
from tests.serving.served import Served, served

httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: pip install schemathesis"
)
MUTATIONS = 10_000 if SOAK else 250
EXAMPLES = 300 if SOAK else 5
TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def fuzzed(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with context features, a token and small limits."""
    limits = Limits(body=20_000, candidates=200, events=20, seconds=10)
    with served(shown / "bundle", tmp_path_factory.mktemp("state"), limits, (TOKEN.encode(),)) as found:
        yield found


def test_schemathesis_finds_nothing(fuzzed: Served):
    """All checks run but one: a well-formed request may still ask for something that does not exist.

    A body that is too large is refused before anything else in it is checked.
    """
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")
    checks = importlib.import_module("schemathesis.specs.openapi.checks")
    left_out = [checks.positive_data_acceptance]
    too_large = [*left_out, checks.negative_data_rejection]
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            tried += try_out(operation, mode, lambda status: too_large if status == 413 else left_out)
    assert tried >= EXAMPLES


def try_out(operation: Any, mode: Any, left_out: Callable[[int], list[Any]]) -> int:
    """Draw requests of one operation, well formed or not, and run every check on the answers."""
    tried = 0

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        nonlocal tried
        tried += 1
        left_bare = mode is schemathesis.GenerationMode.NEGATIVE and "Authorization" not in (
            case.headers or {}
        )
        response = case.call(
            headers={} if left_bare else {"Authorization": f"Bearer {TOKEN}"}
        )  # a token that was taken away stays away
        case.validate_response(response, excluded_checks=left_out(response.status_code))

    with suppress(Unsatisfiable):  # an operation without parameters has no malformed form
        run()
    return tried


def test_every_route_is_described(fuzzed: Served):
    document = fuzzed.client.get("/openapi.json").json()
    versioned = {
        f"/v1/{name}"
        for name in ("rank", "recommend", "score", "events", "items", "explain", "about", "names")
    }
    versioned |= {"/v1/macro", "/v1/macro/nodes"}
    assert set(document["paths"]) == {*versioned, "/healthz", "/readyz", "/metrics"}
    for path, methods in document["paths"].items():
        for method in methods.values():
            assert "200" in method["responses"]
            assert ("security" in method) == (path.startswith("/v1/") or path == "/metrics")
            if path.startswith("/v1/"):
                assert {"401", "413", "422", "429", "500", "503"} <= set(method["responses"])
            if path in ("/v1/rank", "/v1/recommend", "/v1/score", "/v1/events", "/v1/items", "/v1/names"):
                name = method["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[
                    1
                ]
                for example in document["components"]["schemas"][name]["examples"]:
                    assert fuzzed.client.post(path, json=example).status_code in (200, 422)


RANK = {
    "user": 1, "candidates": [1, 2, "x"], "k": 2, "objective": "click * buy^2",
    "context": {"device": "phone"},
    "exclude": [1], "exclude_known": True, "at_least": {"click": 0.0},
}  # fmt: skip
RECOMMEND = {
    "events": [{"item": 1, "behavior": "click", "time": "2026-05-01T12:00:00Z"}],
    "where": {"color": ["red"]}, "max_per": {"color": 1}, "exclude_known": True,
}  # fmt: skip
EVENT = {"user": 1, "item": 2, "behavior": "click", "time": "2026-05-01T12:00:00Z", "id": "a"}
EXPOSURE = {
    "user": 1, "item": 2, "time": "2026-05-01T12:00:00Z", "request": "r", "position": 3, "propensity": 0.1,
    "context": {"device": "phone"},
}  # fmt: skip
LABEL = {"request": "r", "item": 2, "labels": {"click": 1, "stay": 2.5}}
SESSION = {"events": RECOMMEND["events"], "candidates": [1, 2, "x"], "k": 2}
VALID = [
    ("POST", "/v1/rank", RANK),
    ("POST", "/v1/rank", SESSION),
    ("POST", "/v1/recommend", RECOMMEND),
    ("POST", "/v1/recommend", {"user": 1, "k": 2}),
    ("POST", "/v1/score", {"users": [1, 2], "items": [3, 4], "context": {"device": "phone"}}),
    ("POST", "/v1/events", {"events": [EVENT]}),
    ("POST", "/v1/events", {"exposures": [EXPOSURE], "labels": [LABEL]}),
    ("GET", "/v1/explain?user=1&item=2&context=%7B%7D", None),
    ("GET", "/v1/macro?limit=5", None),
    ("GET", "/v1/macro/nodes", None),
    ("POST", "/v1/names", {"users": [1], "items": [2, "x"]}),
    ("GET", "/v1/about", None),
    ("GET", "/healthz", None),
    ("GET", "/metrics", None),
]  # fmt: skip
HOSTILE: list[Any] = [
    None, True, -1, 0, 2**63, 2**64, 10**400, 1e308, -0.0, "", "\x00", "é" * 300, "1/0",
    "click/(buy-buy)", "((((", "__class__", "' OR 1=1", [], {}, [[]], {"a": {}}, ["x"] * 300, [None],
    {"user": 1}, "2026-13-45", "9" * 400, "../../etc/passwd", "\ud7ff", "NaN",
]  # fmt: skip


def mutated(rng: random.Random) -> tuple[str, str, bytes | None, dict[str, str]]:
    method, path, valid = rng.choice(VALID)
    body = (
        None if valid is None else json.dumps(swapped(valid, rng) if rng.random() < 0.7 else valid).encode()
    )
    if body is not None and rng.random() < 0.4:
        body = scrambled(body, rng)
    if rng.random() < 0.3:
        path = scrambled(path.encode(), rng).decode("latin-1")
        path = "/" + "".join(c for c in path if c.isalnum() or c in "/?&=%._-").lstrip("/")
    if rng.random() < 0.1:
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
    headers = rng.choice(
        [
            {},
            {"Content-Type": "text/plain"},
            {"X-Request-Id": "a b"},
            {"Accept": "nothing/*"},
            {"Authorization": "Bearer no"},
        ]
    )
    return method, path, body, headers


def swapped(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one part replaced."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice(HOSTILE)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [swapped(one, rng) if at == k else one for k, one in enumerate(value)]
    key = rng.choice(list(value))
    return {
        (name if rng.random() < 0.95 else name + "x"): (swapped(one, rng) if name == key else one)
        for name, one in value.items()
    }


def scrambled(text: bytes, rng: random.Random) -> bytes:
    held = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(held) or 1)
        put = rng.choice(
            [b"", b"\x00", b"\xff", b'"', b"{", b"]", b"1e999", b"%", b"\\u0000"]
        ) + rng.randbytes(rng.choice([0, 0, 2]))
        held[at : at + rng.choice([0, 0, 1, 5])] = put
    return bytes(held) if rng.random() < 0.97 else bytes(held) * 200


def test_mutated_requests_get_documented_answers(fuzzed: Served):
    paths = fuzzed.client.get("/openapi.json").json()["paths"]
    documented = {
        path: {method.upper(): set(said["responses"]) for method, said in methods.items()}
        for path, methods in paths.items()
    }
    rng, seen = random.Random(6), set()
    for number in range(MUTATIONS):
        method, path, body, headers = mutated(rng)
        response = fuzzed.client.request(method, path, content=body, headers=headers)
        check_documented(response, method, httpx.URL(fuzzed.url + path).path, documented)
        seen.add(response.status_code)
        assert b"Traceback" not in response.content, number
    assert {200, 401, 404, 405, 422} <= seen
    assert fuzzed.client.get("/readyz").json()["detail"] is None


def check_documented(
    response: httpx.Response, method: str, path: str, documented: dict[str, dict[str, set[str]]]
) -> None:
    status = response.status_code
    if path in documented and method in documented[path]:
        assert str(status) in documented[path][method], (
            method,
            path,
            response.request.content,
            response.text,
        )
    elif path != "/":
        assert status in (401, 404, 405, 413), (method, path, response.text)
    if status != 200 and method != "HEAD":
        assert set(response.json()) == {"error", "place", "position"}
        assert response.json()["error"]
