"""What stands before every request: token, size, time, number; and what is said of it afterwards.

Pure ASGI, around the whole application, so that nothing is parsed, and no route is looked for, of a request that may not pass.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import orjson

from mgoe.serving.http.settings import Limits, is_loopback
from mgoe.serving.http.telemetry import Figures, log

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Without a token; none of them tells anything of users or items."""
UNCOUNTED = OPEN | {"/metrics"}
"""Answered however busy the service is, without a look at a body: none of them has one, and one that never ends holds up nobody."""
REQUEST_ID = "mgoe.request"
"""Of a scope: the client's own name for the request if it gave one, so that its log and ours can be read together."""
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, place: str, error: str, headers: tuple[tuple[bytes, bytes], ...] = ()):
        self.status, self.place, self.error, self.headers = status, place, error, headers


class Guard:
    """An application behind its limits.

    Args:
        app: What answers.
        limits: See there.
        tokens: Any of them opens; none: everybody may ask.
        figures: To count with.
        routes: Paths there are; others are counted together.
        access_log: Write a line a request.
        local: Answer under the names of loopback alone. Where no token is needed, a site whose name leads to loopback would else be taken
            by a browser for the service itself.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        tokens: tuple[bytes, ...],
        figures: Figures,
        routes: frozenset[str],
        access_log: bool,
        local: bool = False,
    ):
        self.app, self.limits, self.tokens, self.figures, self.routes, self.access_log = (
            app,
            limits,
            tokens,
            figures,
            routes,
            access_log,
        )
        self.local, self.under_way = local, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        headers = dict(scope["headers"])
        name = headers.get(b"x-request-id", b"")
        request_id = scope[REQUEST_ID] = name if _PLAIN_ID.fullmatch(name) else uuid.uuid4().hex.encode()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id), *SAFE]
            await send(message)

        try:
            await self._answer(scope, headers, receive, noted)
        except Refused as refused:
            await _refuse(noted, refused)
        except TimeoutError:
            if not status:
                await _refuse(
                    noted,
                    Refused(
                        503,
                        "server",
                        f"took longer than {self.limits.seconds:g} s; ask for less, or later",
                        RETRY,
                    ),
                )
        except Exception as error:
            log("failed", logging.ERROR, error, request=request_id.decode(), path=scope["path"])
            if not status:
                await _refuse(noted, Refused(500, "server", failure(scope)))
        finally:
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.figures.answered(route, status, started)
            if self.access_log:
                log(
                    "request", method=scope["method"], path=scope["path"][:200], status=status,
                    ms=round((time.perf_counter() - started) * 1e3, 3), request=request_id.decode(),
                )  # fmt: skip

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self._check_name(headers.get(b"host", b""))
        _check_origin(scope["path"], headers)
        if scope["path"] not in OPEN:
            self._check_token(headers)
        if scope["path"] in UNCOUNTED:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, receive, send)
            return
        with self._counted():
            await self._whole(scope, await self._body(headers, receive), receive, send)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """One of those that may be answered at once; after the token, so that nobody without one can take their places."""
        if self.under_way >= self.limits.requests:
            raise Refused(
                429,
                "server",
                f"answers {self.limits.requests} requests at once; ask again in a second",
                (*RETRY, CLOSE),
            )
        self.under_way += 1
        self.figures.in_flight.inc()
        try:
            yield
        finally:
            self.under_way -= 1
            self.figures.in_flight.dec()

    async def _whole(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a request whose body is there."""
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async with asyncio.timeout(self.limits.seconds):
            await self.app(scope, replay, send)

    def _check_name(self, host: bytes) -> None:
        if self.local and host and not names_loopback(host):
            rule = f"must be localhost or a loopback address while no token is needed, found {_told(host)}"
            raise Refused(
                403, "host", f"{rule}; start the service with a --token-file, or --public", (CLOSE,)
            )

    def _check_token(self, headers: dict[bytes, bytes]) -> None:
        if not self.tokens:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        equal = [
            hmac.compare_digest(given.strip(), token) for token in self.tokens
        ]  # all of them, so that time tells nothing
        if scheme.lower() != b"bearer" or not any(equal):
            found = "found another one" if given else "found none"
            raise Refused(
                401, "authorization", f"needs a bearer token of this service, {found}", (CHALLENGE, CLOSE)
            )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, within its limits."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.limits.body:
            raise self._too_large()
        if length == b"0" and b"transfer-encoding" not in headers:
            return b""
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self.limits.seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused(400, "body", "ended before it was whole")
                    part = message.get("body", b"")
                    parts.append(part)
                    size, more = size + len(part), message.get("more_body", False)
                    if size > self.limits.body:
                        raise self._too_large()
        except TimeoutError:
            raise Refused(408, "body", f"must arrive within {self.limits.seconds:g} s", (CLOSE,)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> Refused:
        return Refused(
            413, "body", f"may have {self.limits.body:,} bytes at most; send less at a time", (CLOSE,)
        )


def names_loopback(host: bytes) -> bool:
    """Whether a Host header, with or without a port, is a name of loopback or an address in it."""
    text = host.decode("latin-1").lower()
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    return is_loopback(name) or name.endswith(".localhost")


def _check_origin(path: str, headers: dict[bytes, bytes]) -> None:
    """See that no browser asks for a page of another site. Programs send no such headers, and a link from elsewhere to the page is none."""
    host, origin = headers.get(b"host", b""), headers.get(b"origin")
    foreign = origin is not None and origin.partition(b"://")[2].lower() != host.lower()
    if foreign or (headers.get(b"sec-fetch-site") == b"cross-site" and path != "/"):
        rule = (
            f"must be the service's own, {_told(host)}, found {_told(origin) if origin else 'another site'}"
        )
        mend = "ask from its own page or from a program; a proxy in front must hand on Host as it came, with its port"
        raise Refused(403, "origin", f"{rule}; {mend}", (CLOSE,))


def _told(header: bytes) -> str:
    return repr(header[:80].decode("latin-1"))


def failure(scope: Scope) -> str:
    """What a client is told of a defect: where to look, and nothing of the inside."""
    return f"failed; its log says why under the request {scope[REQUEST_ID].decode()}"


RETRY = ((b"retry-after", b"1"),)
CLOSE = (b"connection", b"close")
"""Where a body may still be on its way."""
CHALLENGE = (b"www-authenticate", b"Bearer")
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


async def _refuse(send: Send, refused: Refused) -> None:
    body = orjson.dumps({"error": refused.error, "place": refused.place, "position": None})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refused.headers,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
