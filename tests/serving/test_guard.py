"""The guard before an application that only waits: who takes a place, and whose body is read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

for _name in ("orjson", "prometheus_client"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install 'mgoe[serve]'")

from mgoe.serving.guard import Guard  # noqa: E402
from mgoe.serving.settings import Limits  # noqa: E402
from mgoe.serving.telemetry import Figures  # noqa: E402

TOKEN = b"0123456789abcdef"
OPEN = ("/", "/healthz", "/readyz", "/openapi.json")


async def done(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def never() -> dict[str, Any]:
    """A body that does not come."""
    await asyncio.sleep(60)
    return {}


class Asked:
    """A request under way, whose body never comes."""

    def __init__(self, guard: Guard, path: str, token: bytes = TOKEN):
        self.status = 0
        headers = [(b"authorization", b"Bearer " + token), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        self.task = asyncio.create_task(guard(scope, never, self._hear))

    async def _hear(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if self.status == 401:
            await asyncio.sleep(60)  # a client that does not take its refusal


async def statuses(guard: Guard, *asked: tuple[str, bytes]) -> list[int]:
    """Of requests, each begun after the one before it, a moment after the last; 0 is one that still waits."""
    under_way = [Asked(guard, *one) for one in asked]
    await asyncio.sleep(0.05)
    for one in under_way:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in under_way), return_exceptions=True)
    return [one.status for one in under_way]


@pytest.fixture
def guard() -> Guard:
    limits = Limits(requests=2, seconds=30)
    return Guard(done, limits, (TOKEN,), Figures(dict), frozenset(), access_log=False)


def test_those_without_a_token_take_no_place(guard: Guard):
    wrong, right = ("/v1/rank", b"wrong"), ("/v1/rank", TOKEN)
    assert asyncio.run(statuses(guard, *[wrong] * 5, right, right, right, wrong)) == [401] * 5 + [0, 0, 429, 401]
    assert guard.under_way == 0


@pytest.mark.parametrize("path", [*OPEN, "/metrics"])
def test_what_is_not_counted_is_answered_at_once_and_its_body_not_awaited(guard: Guard, path: str):
    right = ("/v1/rank", TOKEN)
    assert asyncio.run(statuses(guard, right, right, *[(path, TOKEN)] * 3)) == [0, 0, 200, 200, 200]


def test_the_figure_is_of_those_that_have_a_place(guard: Guard):
    async def counted() -> list[float]:
        under_way = [Asked(guard, path, token) for path, token in [("/v1/rank", TOKEN)] * 3 + [("/v1/rank", b"no"), ("/metrics", TOKEN)]]
        await asyncio.sleep(0.05)
        held = guard.figures.registry.get_sample_value("mgoe_in_flight")
        for one in under_way:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in under_way), return_exceptions=True)
        return [held or 0, guard.figures.registry.get_sample_value("mgoe_in_flight") or 0]

    assert asyncio.run(counted()) == [2, 0]


def test_places_taken_by_open_paths_do_not_send_others_away(guard: Guard):
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60 if scope["path"] in (*OPEN, "/metrics") else 0)
        await done(scope, receive, send)

    guard.app = slow
    assert asyncio.run(statuses(guard, *[(path, TOKEN) for path in (*OPEN, "/metrics")], ("/v1/rank", TOKEN))) == [0] * 6
    assert asyncio.run(statuses(guard, *[(path, TOKEN) for path in (*OPEN, "/metrics")], *[("/v1/rank", TOKEN)] * 3))[-1] == 429
