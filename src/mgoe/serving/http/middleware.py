"""What every request passes first: checks of host, origin, token, number, size and time; and its log line.

Pure ASGI around the whole application: of a request that may not pass, nothing is parsed and no route is
looked for. Starlette's own middleware does not cover it: its host check knows no address ranges, and it
limits neither bodies nor times.
"""

import asyncio
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress

import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgoe.serving.http.settings import Limits, is_loopback
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.tokens import NEEDED, RANK, Tokens

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Paths that need no token; without one, none of them says anything about users, items or this machine."""
UNCOUNTED = OPEN | {"/metrics"}
"""Paths that are answered however busy the service is, without reading a body: none of them has one."""
RETRY = {"retry-after": "1"}
CLOSE = {"connection": "close"}
"""Where a body may still be on its way."""
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, place: str, error: str, headers: Mapping[str, str] | None = None):
        self.response = problem(status, error, place, headers=headers)


class Middleware:
    """An application behind its limits.

    It leaves in `request.state`: `request_id`, `scopes`, which its token has, and the whole `body` of a
    request that is counted.

    Args:
        app: What answers.
        limits: How much may be asked.
        tokens: They open the service.
        telemetry: Counts requests.
        routes: Paths that exist; all others are counted together.
        access_log: Log one line per request.
        local: Answer only under the names of loopback. Where no token is needed, a browser would otherwise
            take the service for any site whose name leads to loopback.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        tokens: Tokens,
        telemetry: Telemetry,
        routes: frozenset[str],
        access_log: bool,
        local: bool = False,
    ):
        self.app, self.limits, self.tokens, self.local = app, limits, tokens, local
        self.telemetry, self.routes, self.access_log = telemetry, routes, access_log
        self.in_flight = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _PLAIN_ID.fullmatch(given) else uuid.uuid4().hex
        request = Request(scope, receive)
        request.state.request_id = request_id

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    *SAFE,
                ]
            await send(message)

        try:
            refused = await self._answered(request, send_noted)
            if refused and not status:
                await refused.response(scope, receive, send_noted)
        finally:
            path = scope["path"]
            self.telemetry.answered(path if path in self.routes else "other", status, started)
            if self.access_log:
                log(
                    "request", method=scope["method"], path=path[:200], status=status,
                    ms=round((time.perf_counter() - started) * 1e3, 3), request=request_id,
                )  # fmt: skip

    async def _answered(self, request: Request, send: Send) -> Refused | None:
        """Let the application answer. Return why it did not."""
        counted = request.scope["path"] not in UNCOUNTED
        try:
            self._check(request)
            with self._counted(request) if counted else nullcontext():
                if counted:
                    request.state.body = await self._body(request, send)
                async with asyncio.timeout(self.limits.seconds):
                    await self.app(request.scope, request.receive, send)
        except Refused as refused:
            return refused
        except TimeoutError:
            return Refused(
                503, "server", f"took longer than {self.limits.seconds:g} s; ask for less, or later", RETRY
            )
        except Exception as error:
            log("failed", logging.ERROR, error, request=request.state.request_id, path=request.scope["path"])
            return Refused(500, "server", failure(request))
        return None

    def _check(self, request: Request) -> None:
        """Check the host, the origin, and what the token may do."""
        path, headers = request.scope["path"], request.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and host and not names_loopback(host):
            raise Refused(
                403,
                "host",
                f"must be localhost or a loopback address while no token is needed, found {host[:80]!r}; "
                "start the service with a --token-file, or --public",
                CLOSE,
            )
        # Programs send neither header, and a link from another site to the page is no request of that site.
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if foreign or (headers.get("sec-fetch-site") == "cross-site" and path != "/"):
            raise Refused(
                403,
                "origin",
                f"must be the service's own, {host[:80]!r}, "
                f"found {repr(origin[:80]) if origin else 'another site'}; "
                "ask from its own page or from a program; "
                "a proxy in front must pass Host on unchanged, with its port",
                CLOSE,
            )
        scopes = request.state.scopes = self.tokens.scopes(headers.get("authorization", ""))
        if path in OPEN:
            return
        if not scopes:
            found = "another one" if "authorization" in headers else "none"
            raise Refused(
                401,
                "authorization",
                f"needs a bearer token of this service, found {found}",
                {"www-authenticate": "Bearer"} | CLOSE,
            )
        if (scope := NEEDED.get(path, RANK)) not in scopes:
            raise Refused(
                403,
                "authorization",
                f"needs a token with the scope {scope}, found one with {', '.join(sorted(scopes))}; "
                "send another token, or add the scope to its line in the token file",
                CLOSE,
            )

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        """Count a request in flight. This follows the token check: nobody without a token takes a place, and
        who has one takes none of another token, however slowly bodies arrive."""
        token = self.tokens.known(request.headers.get("authorization", ""))
        if self.in_flight[token] >= self.limits.requests:
            raise Refused(
                429,
                "server",
                f"answers {self.limits.requests} requests at once; ask again in a second",
                RETRY | CLOSE,
            )
        self.in_flight[token] += 1
        self.telemetry.in_flight.inc()
        try:
            yield
        finally:
            self.in_flight -= Counter((token,))  # which keeps no token without requests
            self.telemetry.in_flight.dec()

    async def _body(self, request: Request, send: Send) -> bytes:
        """Read the whole body, within its limits.

        A request with a longer one is answered at once, and the rest is read for a while: if the connection
        were closed before, the client would not get the answer.
        """
        length = request.headers.get("content-length", "0")
        if length == "0" and "transfer-encoding" not in request.headers:
            return b""
        too_large = Refused(
            413, "body", f"may have {self.limits.body:,} bytes at most; send less at a time", CLOSE
        )
        stream, parts = request.stream(), list[bytes]()
        size = int(length[:20]) if length.isdecimal() else 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                if size <= self.limits.body:
                    size = 0
                    async for part in stream:
                        parts.append(part)
                        size += len(part)
                        if size > self.limits.body:
                            break
        except TimeoutError:
            raise Refused(408, "body", f"must arrive within {self.limits.seconds:g} s", CLOSE) from None
        except ClientDisconnect:
            raise Refused(400, "body", "ended before it was complete") from None
        if size > self.limits.body:
            await self._turn_away(too_large, request, stream, send)
            raise too_large
        return b"".join(parts)

    async def _turn_away(
        self, refused: Refused, request: Request, rest: AsyncIterator[bytes], send: Send
    ) -> None:
        """Answer a request whose body is still on its way, and end the answer when the body has ended."""

        async def send_open(message: Message) -> None:
            await send({**message, "more_body": True})

        await refused.response(request.scope, request.receive, send_open)
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(self.limits.seconds):
                async for _ in rest:
                    pass
        await send({"type": "http.response.body"})


def names_loopback(host: str) -> bool:
    """Return whether a Host header, with or without a port, is a name of loopback or an address in it."""
    name = (host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]).lower()
    return is_loopback(name) or name.endswith(".localhost")


def problem(
    status: int,
    error: str,
    place: str,
    position: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a `Problem`: the answer to every request that fails."""
    return Response(
        orjson.dumps({"error": error, "place": place, "position": position}),
        status,
        headers,
        media_type="application/json",
    )


def failure(request: Request) -> str:
    """Return what a client learns of a defect: where to look, and nothing about the inside."""
    return f"failed; its log says why under the request {request.state.request_id}"
