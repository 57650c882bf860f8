"""A closed-loop load generator on raw sockets: each connection sends its next request when the answer to the
last is whole.

Its own cost a request, some 50 microseconds on the core it runs on, is within every latency it reports.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

Asked = tuple[str, bytes]
"""Name of a kind of request, and all its bytes."""


@dataclass
class Answers:
    """What came back.

    Attributes:
        kinds: Of each answer.
        status: 0 where the connection broke.
        seconds: From the first byte sent to the last received.
        moment: Seconds since the start, of the answer.
        took: Of the whole run.
    """

    kinds: list[str] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    moment: list[float] = field(default_factory=list)
    took: float = 0.0

    def milliseconds(self, quantile: float, kind: str | None = None) -> float:
        """A quantile of the latency, of one kind or of all."""
        kept = [
            one for one, name in zip(self.seconds, self.kinds, strict=True) if kind is None or name == kind
        ]
        return float(np.quantile(kept, quantile) * 1e3)

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.took


class _Connection(asyncio.Protocol):
    """One socket; `ask` is answered by the status when the answer is whole. Answers have a length or no
    body.
    """

    def __init__(self) -> None:
        self.lost = False
        self._left, self._held, self._status = -1, b"", 0
        self._waiting: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self._left, self._held = -1, b""
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return self._waiting

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._held += data
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._held[:end].lower()
            self._status = int(head[9:12])
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            self._left = length - (len(self._held) - end - 4)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self._answer(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._answer(0)

    def _answer(self, status: int) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(status)


def load(port: int, requests: Callable[[], Iterator[Asked]], seconds: float, connections: int) -> Answers:
    """Ask for a while.

    Args:
        port: On loopback.
        requests: Makes the endless requests of one connection.
        seconds: How long.
        connections: How many ask at once, each one request at a time.
    """
    return asyncio.run(_load(port, requests, seconds, connections))


async def _load(
    port: int, requests: Callable[[], Iterator[Asked]], seconds: float, connections: int
) -> Answers:
    answers, started = Answers(), time.perf_counter()

    async def one() -> None:
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        for kind, request in requests():
            if time.perf_counter() - started > seconds:
                break
            if connection is None or connection.lost:
                connection = (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
            asked = time.perf_counter()
            status = await connection.ask(request)
            now = time.perf_counter()
            answers.kinds.append(kind)
            answers.status.append(status)
            answers.seconds.append(now - asked)
            answers.moment.append(now - started)
        if connection is not None:
            connection.transport.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    answers.took = time.perf_counter() - started
    return answers


def post(path: str, body: bytes) -> bytes:
    """Return a request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """A request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
