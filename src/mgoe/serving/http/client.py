"""A client of a service in this process, by one of two transports: HTTP, or calls of the application.

On a supplied clock, see `OnClock`, both give the same answers and the same logs, so that a program such as a
simulated world need not know which one it uses. No request is sent again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from mgoe._util.extras import install, load
from mgoe.errors import ServiceError
from mgoe.serving.http.settings import ServeSettings, require_serving

if TYPE_CHECKING:
    import httpx
    from starlette.types import ASGIApp

    from mgoe.serving.scoring.engine import Clock

PATIENCE = 600
"""Seconds until an answer must have come, and until the service must have started."""
PAUSE = 0.05
"""Seconds between looks at whether the service has started."""


@asynccontextmanager
async def client(
    settings: ServeSettings, clock: "Clock | None" = None, http: bool = False
) -> AsyncIterator["httpx.AsyncClient"]:
    """Serve while the block runs, and yield a client of the service once it has started.

    Args:
        settings: Of the service. The client sends the first token that may do everything.
        clock: What the present of the service is; None for the system's clock.
        http: Whether to ask over HTTP, from a service in a thread, instead of calling the application.

    Yields:
        The client. Paths suffice as addresses. An answer other than 200 raises `ServiceError`.

    Raises:
        MgoeError: The settings, the bundle or the store cannot be served with.

    Example:
        >>> async def best(user):
        ...     async with client(settings, clock=lambda: 1_700_000_000_000_000) as service:
        ...         answer = await service.post("/v1/recommend", json={"user": user, "k": 2})
        ...         return answer.json()
        >>> len(asyncio.run(best(1))["items"])
        2
    """
    require_serving()
    httpx = load("httpx", "serve", "httpx", install("serve"))
    from mgoe.serving.http.service import application
    from mgoe.serving.http.supervisor import Service
    from mgoe.serving.http.tokens import ALL, read_tokens

    tokens = [token for token, scopes in read_tokens(settings).items() if scopes == ALL]
    async with AsyncExitStack() as stack:
        if http:
            transport, url = None, stack.enter_context(Service(settings, clock=clock)).url
        else:
            app = application(settings, clock)
            await stack.enter_async_context(_living(app))
            transport, url = httpx.ASGITransport(app), "http://localhost"
        asking = httpx.AsyncClient(
            transport=transport, base_url=url, timeout=PATIENCE, trust_env=False,
            headers={"authorization": f"Bearer {tokens[0].decode()}"} if tokens else None,
            event_hooks={"response": [_check]},
        )  # fmt: skip
        await stack.enter_async_context(asking)
        await _started(asking)
        yield asking


@asynccontextmanager
async def _living(app: "ASGIApp") -> AsyncIterator[None]:
    """Start an application, and end it after the block."""
    from uvicorn import Config
    from uvicorn.lifespan.on import LifespanOn

    lifespan = LifespanOn(Config(app, lifespan="on", log_config=None))
    await lifespan.startup()
    if lifespan.should_exit:
        raise ServiceError("serve", "the application did not start; its log says why")
    try:
        yield
    finally:
        await lifespan.shutdown()


async def _started(asking: "httpx.AsyncClient") -> None:
    """Wait until nothing is exported any more, after which another library computes the answers."""
    try:
        async with asyncio.timeout(PATIENCE):
            while str((await asking.get("/readyz")).json().get("detail")).startswith("starting"):
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise ServiceError("/readyz", f"the service still starts after {PATIENCE} s; see its log") from None


async def _check(response: "httpx.Response") -> None:
    if response.status_code != 200:
        text = (await response.aread()).decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):  # what uvicorn says of a defect is no JSON
            text = "{place}: {error}".format_map(response.json())
        raise ServiceError(response.url.path, f"the service answered {response.status_code}, {text}")
